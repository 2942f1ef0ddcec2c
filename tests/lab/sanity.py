# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`ansible-test sanity` on a copy of the checkout, in the place that the tool insists on.

The copy holds what git knows and would add: nothing that set-up generated.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from . import names
from .steps import SetupError

HOME = names.LAB / "home"
TREE = names.LAB / "sanity" / "ansible_collections" / "fluxhero" / "maintenance"

# ansible-test downloads this program from a host that is not reachable everywhere. Python brings pip along.
# ensurepip hides pip's configuration from everything that runs after it, so that is put back.
PIP_BOOTSTRAP = '''
import ensurepip, os, subprocess, sys
configured = os.environ.get("PIP_CONFIG_FILE")
ensurepip.bootstrap(upgrade=True)
os.environ.pop("PIP_CONFIG_FILE", None)
if configured:
    os.environ["PIP_CONFIG_FILE"] = configured
wanted = [word for word in sys.argv[1:] if not word.startswith("--no-")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", *wanted]))
'''


def copy_checkout() -> None:
    """Copy the project's own files, without what git ignores."""
    listed = subprocess.run(
        [
            *("git", "-c", "safe.directory=*", "-C", names.ROOT),
            *("ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        ],
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        raise SetupError(f"The sanity tests need a git checkout: {listed.stderr.decode().strip()}")
    shutil.rmtree(TREE.parents[2], ignore_errors=True)
    for name in listed.stdout.decode().split("\0"):
        source = names.ROOT / name
        if name and (source.is_file() or source.is_symlink()):
            target = TREE / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    # Else ansible-test takes the checkout around it for the project, which ignores the copy.
    subprocess.run(["git", "init", "--quiet", TREE], check=True)


def prepare_pip() -> None:
    """Put the bootstrap of pip where ansible-test looks before it downloads one."""
    sources = Path(package_folder("ansible_test")) / "_internal" / "python_requirements.py"
    found = re.search(r"^ +pip='([0-9.]+)'", sources.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SetupError(f"{sources} does not say which pip it wants")
    cache = HOME / ".ansible" / "test" / "cache" / f"get_pip_{found.group(1).replace('.', '_')}.py"
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(PIP_BOOTSTRAP.lstrip(), encoding="utf-8")


def package_folder(package: str) -> str:
    """Folder of an installed package that cannot be imported by itself."""
    [folder] = [path for path in map(Path, sys.path) if (path / package).is_dir()]
    return str(folder / package)


def environment() -> dict[str, str]:
    """The environment of ansible-test: its own home folder, with the user's pip configuration."""
    env = {**os.environ, "HOME": str(HOME), "PATH": f"{names.VENV / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    user_config = Path.home() / ".config" / "pip" / "pip.conf"
    if "PIP_CONFIG_FILE" not in env and user_config.is_file():
        env["PIP_CONFIG_FILE"] = str(user_config)
    # Where Ansible's own settings point into the checkout, the copy must not follow.
    return {name: value for name, value in env.items() if not name.startswith("ANSIBLE_")}


def main() -> int:
    """Run the sanity tests; the arguments go to ansible-test."""
    copy_checkout()
    prepare_pip()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    argv = [names.bin_path("ansible-test"), "sanity", "--local", "--python", version, "--color", "no"]
    return subprocess.run([*argv, *sys.argv[1:]], cwd=TREE, env=environment(), check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SetupError as exc:
        sys.exit(str(exc))
