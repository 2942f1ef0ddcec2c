# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running service must answer, and that each thing it does not answer is named."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.core.config import parse
from fluxmaint.service.contract_check import check

from tests.support.world import World, build

ROWS = {"trades": {"trades": 200, "positions": 200}}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"status": "ACTIVE"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Stay silent."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def world(tmp_path: Path, endpoint: str) -> World:
    made = build(tmp_path / "world")
    made.document["health"] = {"liveness": {"url": endpoint, "json": {"status": "ACTIVE"}}}
    return made


def look(world: World, running: tuple[str, ...] = ("fluxhero-backend.service",), **options: Any) -> dict[str, Any]:
    return check(parse(world.document), active=lambda: running, **options)


def test_a_service_that_keeps_its_contract(world: World) -> None:
    found = look(world, least_rows=ROWS)
    assert found["ok"] and found["failures"] == []
    assert [item["name"] for item in found["conditions"]] == ["liveness"]
    database = found["databases"]["trades"]
    assert database["queries"]["newest"].startswith("20")
    assert database["invariants"] == [{"name": "ids", "expect": 0, "value": 0}]
    assert database["rows"] == {"positions": 200, "trades": 200}


def test_each_broken_promise_is_named(world: World) -> None:
    database = world.document["databases"][0]
    database["queries"]["lost"] = "SELECT x FROM nowhere"
    database["invariants"][0]["expect"] = 1
    world.document["health"]["liveness"]["json"] = {"status": "OFFLINE"}
    found = look(world, (), least_rows={"trades": {"trades": 201, "gone": 0}, "other": {"t": 1}})
    assert not found["ok"]
    said = "\n".join(found["failures"])
    for what in (
        *("unit fluxhero-backend.service does not run", "liveness: ", "query lost", "invariant ids gives 0, not 1"),
        *("trades has 200 rows, at least 201", "the table gone has 0 rows", "no database other"),
    ):
        assert what in said
    assert len(found["failures"]) == 7


def test_no_promise_is_no_success(world: World) -> None:
    world.document["health"] = {}
    assert look(world)["failures"] == ["the contract names no endpoint that could be asked"]


def test_a_database_that_is_missing_is_named_and_not_made(world: World) -> None:
    world.database.unlink()
    found = look(world)
    assert not found["ok"] and str(world.database) in found["failures"][0]
    assert not world.database.exists()
