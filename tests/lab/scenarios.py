# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Molecule's scenarios: which there are and in which order they run on their shared hosts."""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

import yaml

from . import names

if TYPE_CHECKING:
    from pathlib import Path

DIRECTORY = names.ROOT / "molecule"
LIFECYCLE = "default"
COLLECTION = "fluxhero.maintenance."


def discover(directory: Path = DIRECTORY) -> list[str]:
    """The roles' scenarios, each after those of the roles that its `prepare.yml` applies, and of those that deploy.

    Scenarios that do not depend on each other are in alphabetical order.
    """
    found = sorted(path.parent.name for path in directory.glob("*/molecule.yml") if path.parent.name != LIFECYCLE)
    deployed = prepared_roles(directory / "shared" / "deploy.yml")
    graph: dict[str, list[str]] = {}
    for name in found:
        before = prepared_roles(directory / name / "prepare.yml") | (set() if name in deployed else deployed)
        graph[name] = sorted(before & set(found) - {name})
    return list(TopologicalSorter(graph).static_order())


def prepared_roles(playbook: Path) -> set[str]:
    """Short names of this collection's roles that a playbook applies; none when it does not exist."""
    if not playbook.is_file():
        return set()
    plays = yaml.safe_load(playbook.read_text(encoding="utf-8")) or []
    return {name for play in plays for name in map(_role_name, _role_entries(play)) if name}


def _role_entries(play: dict[str, Any]) -> list[Any]:
    tasks = [*play.get("pre_tasks", []), *play.get("tasks", []), *play.get("post_tasks", [])]
    included = [
        task[module]["name"]
        for task in tasks
        for module in ("ansible.builtin.include_role", "ansible.builtin.import_role")
        if module in task
    ]
    return [*play.get("roles", []), *included]


def _role_name(entry: Any) -> str:
    """`agent` for `fluxhero.maintenance.agent`, in each way that a playbook may write it."""
    full = str(entry if isinstance(entry, str) else entry.get("role") or entry.get("name") or "")
    return full.removeprefix(COLLECTION) if full.startswith(COLLECTION) else ""
