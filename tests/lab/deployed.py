# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of hosts on which the service is deployed: where the scenarios start that are not about deploying it.

Hosts that were bare are kept as images, once for each platform and again when something changes that goes into them:
by the scenario `app` before its tests (`python -m tests.lab.deployed`), or, where that does not run, after
`molecule/shared/deploy.yml`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from . import hosts, image_build, names
from .steps import SetupError, digest, output_of, run, say

if TYPE_CHECKING:
    from pathlib import Path

VARIANT = "-deployed"
PLAYBOOK = names.ROOT / "molecule" / "shared" / "deploy.yml"
# What goes into the images, beside the bare ones.
SOURCES = (
    *("plugins/module_utils", "roles/agent", "roles/app", "roles/service"),
    *("inventories/lab", "molecule/shared", "tests/sample_service"),
)
NOT_DEPLOYED = ("__pycache__", "node_modules", ".next", ".venv")


def ensure() -> None:
    """Have current images; makes them from hosts that are created for it. Raises SetupError."""
    if not outdated(inputs()):
        return
    hosts.create(hosts.ROLE_HOSTS, fresh=True)
    run(
        [names.bin_path("ansible-playbook"), "--inventory", hosts.INVENTORY, PLAYBOOK],
        log="hosts-deploy",
        env={"ANSIBLE_CONFIG": str(names.ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
    )
    keep_all()


def outdated(recipe: str) -> list[str]:
    """The suites whose image was not made from these inputs."""
    return [suite for suite in hosts.ROLE_HOSTS if not image_build.is_built(f"{suite}{VARIANT}", recipe)]


def keep_all() -> None:
    """Make images of the hosts, on which the service has just been deployed, where they are not current."""
    recipe = inputs()
    for suite in outdated(recipe):
        keep(suite, recipe)
        say(f"kept {suite}")


def keep(suite: str, recipe: str) -> None:
    """Make an image of the host that is named after a suite of Debian."""
    tag = image_build.tag(f"{suite}{VARIANT}")
    earlier = (output_of(["docker", "image", "inspect", "--format", "{{.Id}}", tag]) or "").strip()
    labels = {names.LABEL: "image", image_build.RECIPE_LABEL: recipe}
    changes = [word for name, value in labels.items() for word in ("--change", f"LABEL {name}={value}")]
    run(["docker", "commit", *changes, f"{names.PREFIX}-{suite}", tag], log="hosts-deploy")
    if earlier and output_of(["docker", "image", "rm", earlier]) is None:
        say(f"    the image before it is still used: {earlier}")


def inputs() -> str:
    """Digest of everything that goes into the images."""
    files = [path for source in SOURCES for path in deployed_files(names.ROOT / source)]
    relative = [str(path.relative_to(names.ROOT)) for path in files]
    bare = [
        output_of(["docker", "image", "inspect", "--format", "{{.Id}}", image_build.tag(suite)]) or ""
        for suite in hosts.ROLE_HOSTS
    ]
    return digest(*bare, *relative, *files)


def deployed_files(folder: Path) -> list[Path]:
    """The files below a folder, without what running it leaves there."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not set(NOT_DEPLOYED) & set(path.relative_to(folder).parts))


if __name__ == "__main__":
    try:
        keep_all()
    except SetupError as exc:
        sys.exit(str(exc))
