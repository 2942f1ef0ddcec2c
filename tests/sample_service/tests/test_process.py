# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend as the service manager runs it."""

from __future__ import annotations

import re
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

from conftest import Running
from websockets.sync.client import connect

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \| [A-Z]+ *\| [\w.]+:\w+:\d+ - .+")


def test_it_trades_streams_and_stops_cleanly_at_once(run_backend: Callable[..., Running]) -> None:
    backend = run_backend(FLUXHERO_TRADE_RATE="50", FLUXHERO_CACHE_REFRESH_S="1")
    backend.wait_for(lambda status: int(str(status["trades"])) >= 20 and int(str(status["heartbeat"])) >= 2)
    with connect(f"ws://127.0.0.1:{backend.port}/ws/prices") as socket:
        received = [time.monotonic() for _unused in range(4) if socket.recv(timeout=5)]
        assert received[-1] - received[0] < 4 * 0.5
        # An open WebSocket and a running writer do not delay the end.
        stopping = time.monotonic()
        backend.process.send_signal(signal.SIGTERM)
        code = backend.process.wait(10)
        assert time.monotonic() - stopping < 2
    assert code in (0, -signal.SIGTERM)
    with closing(sqlite3.connect(backend.root / "data/trades.db")) as con:
        assert con.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        beats = [row[0] for row in con.execute("SELECT n FROM heartbeat ORDER BY n")]
    assert beats == list(range(1, len(beats) + 1))
    assert not (backend.root / "data/trades.db-journal").exists()
    lines = (backend.root / "logs/fluxhero.log").read_text().splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert any("Trade executed" in line for line in lines)
    # Field 4 of the guide's reports is the level.
    assert {line.split()[3] for line in lines} == {"INFO"}


def test_long_lock_is_counted_and_logged(run_backend: Callable[..., Running]) -> None:
    backend = run_backend(FLUXHERO_TRADE_RATE="50")
    backend.wait_for(lambda status: int(str(status["trades"])) >= 1)
    with closing(sqlite3.connect(backend.root / "data/trades.db", isolation_level=None)) as con:
        con.execute("BEGIN EXCLUSIVE")
        time.sleep(6)
        con.execute("ROLLBACK")
    status = backend.wait_for(lambda status: bool(status["database_connected"]))
    assert int(str(status["failed_trades"])) + int(str(status["failed_heartbeats"])) >= 1
    log = (backend.root / "logs/fluxhero.log").read_text()
    assert "database is locked" in log


def test_restart_continues_the_numbers(run_backend: Callable[..., Running]) -> None:
    first = run_backend(FLUXHERO_TRADE_RATE="0")
    last = int(str(first.wait_for(lambda status: int(str(status["heartbeat"])) >= 1)["heartbeat"]))
    first.process.send_signal(signal.SIGTERM)
    first.process.wait(10)
    second = run_backend(FLUXHERO_TRADE_RATE="0")
    assert int(str(second.wait_for(lambda status: int(str(status["heartbeat"])) > last)["heartbeat"])) > last
