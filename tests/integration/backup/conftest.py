"""A small service to back up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.world import World, build

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A service with keys, configuration and a directory as its target."""
    return build(tmp_path / "world")
