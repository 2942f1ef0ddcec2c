# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenes, and the servers that tests of faults share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scene import EngineServer
from tests.integration import conftest as integration
from tests.integration.restore import conftest as restoring

object_store = integration.object_store
new_world = restoring.new_world

# Services with a database, which the tests of single layers use too.
for directory in ("restore", "sqlite"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration" / directory))


@pytest.fixture(scope="session")
def engine_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    """Runs the commands."""
    server = EngineServer(tmp_path_factory.mktemp("said"))
    yield server
    server.stop()
