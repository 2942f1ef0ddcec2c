# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images on which the service is deployed are made again exactly when something changes that goes into them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab import deployed, names
from tests.lab.scenarios import discover, prepared_roles

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a file in each folder that is deployed, and bare images that never change."""
    monkeypatch.setattr(names, "ROOT", tmp_path)
    monkeypatch.setattr(deployed, "output_of", lambda _argv: "sha256:bare")
    for source in deployed.SOURCES:
        (tmp_path / source).mkdir(parents=True)
        (tmp_path / source / "file").write_text("one")
    return tmp_path


@pytest.mark.parametrize("source", deployed.SOURCES)
def test_a_change_of_what_is_deployed_is_seen(checkout: Path, source: str) -> None:
    before = deployed.inputs()
    assert deployed.inputs() == before
    (checkout / source / "file").write_text("two")
    changed = deployed.inputs()
    (checkout / source / "file").rename(checkout / source / "other")
    assert len({before, changed, deployed.inputs()}) == 3


def test_another_bare_image_is_seen(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = deployed.inputs()
    monkeypatch.setattr(deployed, "output_of", lambda _argv: "sha256:newer")
    assert deployed.inputs() != before


def test_what_running_the_code_leaves_is_no_change(checkout: Path) -> None:
    before = deployed.inputs()
    for name in ("__pycache__/x.pyc", "deep/node_modules/x", ".next/x"):
        path = checkout / "tests/sample_service" / name
        path.parent.mkdir(parents=True)
        path.write_text("made")
    assert deployed.inputs() == before


def test_the_roles_that_deploy_are_tested_on_bare_hosts_and_first() -> None:
    bare = prepared_roles(deployed.PLAYBOOK)
    assert bare == {"agent", "app"}
    assert set(discover()[: len(bare)]) == bare
    assert {f"roles/{role}" for role in bare} < set(deployed.SOURCES)
