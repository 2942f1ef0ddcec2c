# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service goes on trading while its old rows are copied and deleted, and no trade fails."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from archive_world import Fixed, World
from fluxmaint.core.errors import TimeoutExceeded
from fluxmaint.sqlite import archive, archive_delete, integrity

WRITER = """
import json, select, sqlite3, sys, time
con = sqlite3.connect(sys.argv[1], timeout=1.0, isolation_level=None)
con.execute("PRAGMA synchronous = OFF")
failures, waits, begun = [], [], time.monotonic()
while not select.select([sys.stdin], [], [], 0)[0]:
    at = time.monotonic()
    try:
        con.execute("INSERT INTO trades(timestamp, symbol, pnl) VALUES ('2026-11-22T00:00:00Z', 'NEW', 1)")
    except sqlite3.OperationalError as error:
        failures.append(str(error))
    waits.append(time.monotonic() - at)
    if len(waits) == 1:
        print("ready", flush=True)
    time.sleep(max(0, begun + len(waits) / 250 - time.monotonic()))
print(json.dumps({"failures": failures, "commits": len(waits), "longest_s": max(waits), "s": time.monotonic() - begun}))
"""


class Service:
    """A process that commits 250 times a second, and gives up after one second of waiting."""

    def __init__(self, database: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def stop(self) -> dict[str, Any]:
        out, _nothing = self._process.communicate(timeout=30)
        report: dict[str, Any] = json.loads(out)
        return report


def test_no_trade_fails_while_thousands_of_rows_leave(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.trades(20_000, 150, every_s=150)
    service = Service(world.database)
    try:
        result = world.archive(delete=True, clock=Fixed(patient=True))
    finally:
        report = service.stop()
    assert report["failures"] == []
    assert report["commits"] / report["s"] > 100
    assert (result["result"], result["archived"], result["deleted"]) == ("ok", 20_000, 20_000)
    rows = [row[0] for row in world.archived()] + [row[0] for row in world.lives()]
    assert len(rows) == len(set(rows)) == 20_000 + report["commits"]
    assert world.run_sql("PRAGMA integrity_check") == [("ok",)]


def referring(world: World, rows: int) -> None:
    """Rows of another table, without an index on what they refer to: each deletion costs a scan."""
    with world.live() as con:
        con.execute("CREATE TABLE notes(trade INTEGER REFERENCES trades(id), text TEXT)")
        con.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
            " INSERT INTO notes SELECT (SELECT max(id) FROM trades), 'x' FROM n"
        )


def test_a_transaction_that_takes_too_long_is_cut_into_smaller_ones(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.trades(70, 150, every_s=1)
    world.trades(1, 1)
    referring(world, 80_000)
    steps: list[int] = []

    def note(step: str, facts: dict[str, Any]) -> None:
        if step == archive.DELETED:
            steps.append(facts["rows"])

    result = archive.run(
        world.config, delete=True, writer_wait_s=0.1, journal=world.journal, clock=Fixed(), progress=note
    )
    assert result["deleted"] == 70 == sum(steps)
    assert steps[0] < archive_delete._FIRST_BATCH, "the first one was interrupted, and nothing of it was done"


def test_a_single_row_that_takes_too_long_is_an_error_that_names_the_remedy(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.trades(10, 150)
    world.trades(1, 1)
    referring(world, 150_000)
    with pytest.raises(TimeoutExceeded, match="an index on the columns that refer to the table may help"):
        world.archive(delete=True, writer_wait_s=0.0005)
    assert world.run_sql("SELECT count(*) FROM trades") == [(11,)]
    assert len(world.archived()) == 10


def test_a_reader_that_stays_does_not_make_writers_wait(tmp_path: Path) -> None:
    """The commit waits for readers only as long as the budget says, then lets writers pass and tries again."""
    world = World(tmp_path)
    world.trades(100, 150)
    world.trades(1, 1)
    with world.live() as reader:
        tries: list[float] = []

        class Waiting(Fixed):
            def sleep(self, seconds: float) -> None:
                assert seconds > 0.1, "whoever waits for a lock looks once in 0.1 s"
                tries.append(seconds)
                world.run_sql("SELECT 1")
                if len(tries) == 3:
                    reader.execute("COMMIT")

        def note(step: str, _facts: dict[str, Any]) -> None:
            if step == "delete":
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM trades").fetchone()

        options = {"writer_wait_s": 0.02, "timeout_s": 20.0}  # one commit would wait for 30 s
        result = archive.run(
            world.config, delete=True, journal=world.journal, clock=Waiting(), progress=note, **options
        )
    assert result["deleted"] == 100 and len(tries) >= 3


STARTING = """
import sqlite3, sys
con = sqlite3.connect(sys.argv[1], timeout=2.0, isolation_level=None)
con.execute("INSERT INTO trades(timestamp, symbol, pnl) VALUES ('2026-11-22T00:00:00Z', 'NEW', 1)")
con.execute("SELECT count(*) FROM trades").fetchone()
print("in", flush=True)
sys.stdin.read()
con.execute("INSERT INTO trades(timestamp, symbol, pnl) VALUES ('2026-11-22T00:00:00Z', 'NEW', 1)")
"""
needs_the_bug = pytest.mark.skipif(not integrity.wal_reset_bug(), reason="this SQLite has no such bug")


@needs_the_bug
def test_wal_gets_no_second_writer_where_sqlite_could_corrupt_it(tmp_path: Path) -> None:
    world = World(tmp_path, mode="wal")
    world.trades(10, 150)
    world.trades(1, 1)
    with world.live() as service:
        service.execute("SELECT count(*) FROM trades").fetchone()
        result = world.archive(delete=True)
        assert (result["archived"], result["deleted"]) == (10, 0)
        assert "is in WAL mode and open elsewhere" in result["problems"][0]
    assert world.archive(delete=True)["deleted"] == 10, "nobody else has it open"
    assert world.run_sql("PRAGMA journal_mode") == [("wal",)]


@needs_the_bug
def test_a_service_that_starts_during_a_deletion_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty transactions take 7 s with their pauses, and the service gives up after 2 s."""
    monkeypatch.setattr(archive_delete, "_LARGEST_BATCH", archive_delete._FIRST_BATCH)
    world = World(tmp_path, mode="wal")
    world.trades(3000, 150, every_s=60)
    world.trades(1, 1)
    started: list[subprocess.Popen[str]] = []

    def note(step: str, _facts: dict[str, Any]) -> None:
        if step == archive.DELETED and not started:
            command = [sys.executable, "-c", STARTING, str(world.database)]
            started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    clock = Fixed(patient=True)
    result = archive.run(world.config, delete=True, journal=world.journal, clock=clock, progress=note)
    out, _nothing = started[0].communicate(timeout=30)
    assert (out, started[0].returncode) == ("in\n", 0)
    month = result["tables"][0]["months"][0]
    assert 0 < result["deleted"] < 3000 and month["kept"] == {"left": 3000 - result["deleted"]}
    assert "the deletion ended early" in result["problems"][0] and "open elsewhere" in result["problems"][0]
    rows = [row[0] for row in world.archived()] + [row[0] for row in world.lives()]
    assert len(set(rows)) == 3003
    assert world.run_sql("PRAGMA integrity_check") == [("ok",)]
    monkeypatch.undo()
    again = world.archive(delete=True)
    assert (again["result"], again["deleted"]) == ("ok", 3000 - result["deleted"])


@needs_the_bug
def test_somebody_who_only_looks_does_not_end_the_deletion(tmp_path: Path) -> None:
    world = World(tmp_path, mode="wal")
    world.trades(200, 150, every_s=60)
    world.trades(1, 1)
    with world.live() as reader:
        pauses: list[float] = []

        class Waiting(Fixed):
            def sleep(self, seconds: float) -> None:
                pauses.append(seconds)
                if len(pauses) == 1:
                    reader.execute("SELECT count(*) FROM trades").fetchone()
                if len(pauses) == 4:
                    reader.close()

        result = world.archive(delete=True, clock=Waiting())
    assert (result["result"], result["deleted"]) == ("ok", 200) and len(pauses) > 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_what_a_killed_deletion_leaves_beside_the_database_belongs_to_the_service(tmp_path: Path, mode: str) -> None:
    """Else the service could not open its database any more."""
    world = World(tmp_path, mode=mode)
    world.trades(200, 150, every_s=60)
    world.trades(1, 1)
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(world.database, nobody, -1)
    world.database.chmod(0o640)
    statement = archive_delete.LiveTable._require_unchanged

    def dying(self: archive_delete.LiveTable, con: sqlite3.Connection) -> None:
        statement(self, con)
        con.execute("UPDATE trades SET pnl = 2 WHERE id = 201")
        con.execute("PRAGMA cache_spill = 1")
        con.execute("PRAGMA cache_size = 1")
        con.execute("UPDATE trades SET pnl = 3")
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        archive_delete.LiveTable._require_unchanged = dying  # type: ignore[method-assign]
        try:
            world.archive(delete=True)
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    beside = [path.stat() for path in world.data.glob("trades.db-*")]
    found = {(status.st_uid, status.st_mode & 0o777) for status in beside}
    assert found == {(nobody, 0o640)}
    assert world.run_sql("SELECT count(*), max(pnl) FROM trades") == [(201, 1.25)]


@needs_the_bug
def test_a_database_that_is_brought_into_wal_mode_meanwhile_gets_no_more_deletions(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.trades(200, 150, every_s=60)
    world.trades(1, 1)

    def note(step: str, _facts: dict[str, Any]) -> None:
        if step == archive.DELETED:
            world.run_sql("PRAGMA journal_mode = WAL")

    result = archive.run(world.config, delete=True, journal=world.journal, clock=Fixed(), progress=note)
    assert result["deleted"] == archive_delete._FIRST_BATCH
    assert "was brought into WAL mode meanwhile" in result["problems"][0]
