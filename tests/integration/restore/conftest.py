# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Worlds for the restore tests; their services end with the test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from restore_world import World, make_world


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds in `tmp_path`."""
    made: list[World] = []

    def make(**options: Any) -> World:
        directory = tmp_path / f"world{len(made)}"
        directory.mkdir()
        world = make_world(directory, **options)
        made.append(world)
        return world

    yield make
    for world in made:
        world.service.stop()
