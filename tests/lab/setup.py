# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set-up of everything the tests and the lab need: `python3 -m tests.lab.setup`.

Runs under the system's Python with the standard library alone. Each step is quick when it has
nothing to do.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from . import engine, image_build, keys, names
from .requirements import pinned
from .steps import SetupError, digest, is_current, output_of, record, run, say, step

# What ansible-core 2.19 runs on.
PYTHONS = ("python3.13", "python3.12", "python3.11")


def main() -> int:
    """Run all steps; return the exit code."""
    started = time.monotonic()
    try:
        with step("System tools (git, ssh, zstd, age)"):
            engine.ensure_tools()
        with step("Python environment .lab/venv from requirements/dev.txt"):
            ensure_venv()
        with step("The checkout as an installed collection"):
            ensure_collection_link()
        with step("Keys of the lab"):
            keys.ensure_keys()
        with step("Container engine"):
            engine.ensure_engine()
        with step("Images of the lab's hosts"):
            names.IMAGES.mkdir(parents=True, exist_ok=True)
            image_build.ensure_images()
    except SetupError as exc:
        say(f"\nSet-up stopped: {exc}")
        return 1
    say(f"Set-up complete in {time.monotonic() - started:.1f} s")
    return 0


def ensure_venv() -> None:
    """Install exactly what the lock names, when the lock or the interpreter changed."""
    python = controller_python()
    wanted = digest(names.REQUIREMENTS, python, str(names.VENV))
    if is_current("venv", wanted) and names.PYTHON.exists():
        return
    if output_of([names.PYTHON, "-c", "import pip"]) is None:
        if names.VENV.exists():
            shutil.rmtree(names.VENV)
        if output_of([python, "-c", "import ensurepip, venv"]) is None:
            if not engine.may_install():
                raise SetupError(f"{python} cannot make virtual environments: sudo apt-get install python3-venv")
            engine.apt_install("python3-venv")
        run([python, "-m", "venv", names.VENV], log="venv")
    bootstrap = names.LAB / "bootstrap.txt"
    bootstrap.write_text(pinned("uv"), encoding="utf-8")
    run(
        [names.PYTHON, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", bootstrap],
        log="venv",
    )
    run(
        [
            *(names.bin_path("uv"), "pip", "sync", "--native-tls", "--require-hashes"),
            *("--python", names.PYTHON, names.REQUIREMENTS),
        ],
        log="venv",
        env=package_index(),
    )
    record("venv", wanted)


def controller_python() -> str:
    """A Python that ansible-core supports: this one, or one found by its name."""
    if sys.version_info[:2] in {(3, 11), (3, 12), (3, 13)}:
        return sys.executable
    for name in PYTHONS:
        path = shutil.which(name)
        if path and output_of([path, "-c", "pass"]) is not None:
            return path
    raise SetupError(f"Python 3.11, 3.12 or 3.13 is needed; found only {sys.version.split()[0]}")


def package_index() -> dict[str, str]:
    """The package index that pip is configured to use, in uv's words."""
    configured = [str(names.PYTHON), "-m", "pip", "config", "get", "global.index-url"]
    index = os.environ.get("PIP_INDEX_URL") or output_of(configured)
    return {"UV_DEFAULT_INDEX": index.strip()} if index and "UV_DEFAULT_INDEX" not in os.environ else {}


def ensure_collection_link() -> None:
    """Let Ansible find the checkout as `fluxhero.maintenance`."""
    link = names.COLLECTIONS / "ansible_collections" / "fluxhero" / "maintenance"
    link.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(names.ROOT, link.parent)
    if link.is_symlink() and link.readlink() == Path(target):
        return
    link.unlink(missing_ok=True)
    link.symlink_to(Path(target))


if __name__ == "__main__":
    sys.exit(main())
