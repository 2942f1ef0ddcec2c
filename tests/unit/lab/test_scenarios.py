# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenarios are discovered, and ordered by what their preparation applies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.scenarios import discover, prepared_roles


def scenario(directory: Path, name: str, prepare: str = "") -> None:
    (directory / name).mkdir()
    (directory / name / "molecule.yml").write_text("---\n", encoding="utf-8")
    if prepare:
        (directory / name / "prepare.yml").write_text(prepare, encoding="utf-8")


def test_a_scenario_runs_after_those_of_the_roles_it_prepares(tmp_path: Path) -> None:
    scenario(tmp_path, "default")
    scenario(tmp_path, "app", "- roles: [fluxhero.maintenance.service]")
    scenario(tmp_path, "backup", "- roles: [{role: fluxhero.maintenance.app}, {role: fluxhero.maintenance.unknown}]")
    scenario(tmp_path, "service")
    (tmp_path / "shared").mkdir()
    assert discover(tmp_path) == ["service", "app", "backup"]


@pytest.mark.parametrize(
    "play",
    [
        "- roles: [fluxhero.maintenance.agent]",
        "- roles: [{role: fluxhero.maintenance.agent}]",
        "- roles: [{name: fluxhero.maintenance.agent}, other.collection.role]",
        "- tasks: [{ansible.builtin.include_role: {name: fluxhero.maintenance.agent}}]",
        "- pre_tasks: [{name: x, ansible.builtin.import_role: {name: fluxhero.maintenance.agent}}]",
    ],
)
def test_every_way_to_apply_a_role_is_seen(tmp_path: Path, play: str) -> None:
    playbook = tmp_path / "prepare.yml"
    playbook.write_text(play, encoding="utf-8")
    assert prepared_roles(playbook) == {"agent"}


def test_a_scenario_without_preparation_depends_on_nothing(tmp_path: Path) -> None:
    assert prepared_roles(tmp_path / "prepare.yml") == set()
