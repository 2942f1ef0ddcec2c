# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts for the rotation tests; their writers end with the test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from rotation_scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A host without a log."""
    for name in ("logs", "logrotate.d", "state", "run", "code", "system.d"):
        (tmp_path / name).mkdir()
    (tmp_path / "logrotate.conf").write_text(f"weekly\nrotate 4\ncreate\ninclude {tmp_path / 'system.d'}\n")
    made = Scene(tmp_path)
    yield made
    for writing in made.processes:
        writing.process.kill()
        writing.process.communicate()
