"""`make clean` removes in as many passes as it takes, and says what stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.clean import remove

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def things(tmp_path: Path) -> Path:
    for name in ("parent", "parent/child", "parent/child/grandchild"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_what_others_depend_on_goes_in_a_later_pass(things: Path) -> None:
    assert remove("folders", ["find", str(things), "-mindepth", "1"], ["rmdir"])
    assert list(things.iterdir()) == []


def test_what_cannot_be_removed_is_named(things: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not remove("folders", ["find", str(things), "-mindepth", "1", "-name", "parent"], ["rmdir"])
    assert f"could not be removed: folders {things}/parent" in capsys.readouterr().out


def test_nothing_to_remove_is_fine(tmp_path: Path) -> None:
    assert remove("folders", ["find", str(tmp_path), "-mindepth", "1"], ["false"])
