from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lab.run_tests import forget_preparation

if TYPE_CHECKING:
    from pathlib import Path


def test_the_next_scenario_prepares_again_on_the_same_hosts(tmp_path: Path) -> None:
    state = tmp_path / "state.yml"
    forget_preparation(state)
    assert not state.exists()
    state.write_text("created: true\nprepared: true\n")
    forget_preparation(state)
    assert state.read_text() == "created: true\nprepared: false\n"
