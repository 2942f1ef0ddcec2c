# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports from real databases: months, formats, what is refused, kills and full disks."""

from __future__ import annotations

import csv
import dataclasses
import fcntl
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.core.clock import Clock
from fluxmaint.core.errors import EngineError, InputError, LeaseError, PreconditionError, TimeoutExceeded
from fluxmaint.core.period import month
from fluxmaint.sqlite import export
from fluxmaint.sqlite.export import Export
from pyarrow import parquet
from sqlite_lab import elsewhere, make, writing

from tests.faults.disks import mounted, needs_mount
from tests.faults.engine_server import Witness

NOW = datetime(2026, 11, 23, tzinfo=timezone.utc)
OCTOBER = month("2026-10", "America/New_York", NOW)
MONTH = "SELECT * FROM trades WHERE timestamp >= :begin AND timestamp < :end ORDER BY timestamp, id"
TIMES = [
    "2026-10-01T03:59:59.999Z",  # still September in New York
    "2026-10-01T04:00:00.000Z",
    "2026-10-15T12:00:00Z",
    "2026-10-31T23:59:59+00:00",
    "2026-11-01T03:59:59.999Z",
    "2026-11-01T04:00:00.000Z",  # November, while clocks still show summer time
]


@pytest.fixture(params=["delete", "wal"])
def database(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return trades(tmp_path, request.param)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path / "exports"
    directory.mkdir()
    return directory


def trades(directory: Path, mode: str = "delete", rows: int = 0) -> Path:
    path = directory / "trades.db"
    con = sqlite3.connect(path)
    con.execute(f"PRAGMA journal_mode={mode}")
    con.execute("CREATE TABLE trades(id INTEGER PRIMARY KEY, timestamp TEXT, symbol TEXT, pnl REAL)")
    con.executemany("INSERT INTO trades(timestamp, symbol, pnl) VALUES (?, 'SPY', 1.5)", [(text,) for text in TIMES])
    con.executemany(
        "INSERT INTO trades(timestamp, symbol, pnl) VALUES ('2026-10-10T10:00:00Z', 'QQQ', ?)",
        [(number / 7,) for number in range(rows)],
    )
    con.commit()
    con.close()
    return path


def change(database: Path, *statements: str) -> None:
    con = sqlite3.connect(database)
    with con:
        for sql in statements:
            con.execute(sql)
    con.close()


def october(database: Path, place: Path, **more: Any) -> Export:
    return Export(database, MONTH, place / "trades_202610.csv", "trades", period=OCTOBER, **more)


def plain(database: Path, place: Path, sql: str, **more: Any) -> Export:
    return Export(database, sql, place / f"plain.{more.get('format', 'csv')}", **more)


def content(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(place.iterdir())}


def table(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream, strict=True))


def require_whole(place: Path) -> dict[str, Any]:
    """What lies beside an export is true of it, for `sha256sum` and for the record's readers."""
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", "trades_202610.csv.sha256"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "trades_202610.csv: OK\n", done.stderr
    record: dict[str, Any] = json.loads((place / "trades_202610.csv.json").read_text())
    data = (place / "trades_202610.csv").read_bytes()
    assert record["sha256"] == hashlib.sha256(data).hexdigest()
    assert record["bytes"] == len(data)
    assert record["rows"] == len(table(place / "trades_202610.csv")) - 1
    return record


def test_d25_the_monthly_export_covers_the_calendar_month_of_the_exchange(database: Path, place: Path) -> None:
    result = export.run(october(database, place))
    rows = table(place / "trades_202610.csv")
    assert rows[0] == ["id", "timestamp", "symbol", "pnl"]
    assert [row[1] for row in rows[1:]] == TIMES[1:5]
    record = require_whole(place)
    assert record["period"] == OCTOBER.as_dict()
    assert record["query"] == "trades"
    assert record["query_sha256"] == hashlib.sha256(MONTH.encode()).hexdigest()
    assert record["complete"] is True
    assert record["cut_off"] > "2026-11-01"
    assert result["changed"] is True
    assert set(content(place)) == {f"trades_202610.csv{suffix}" for suffix in ("", ".json", ".sha256")}


def test_d25_a_column_that_does_not_exist_is_named_and_nothing_is_written(database: Path, place: Path) -> None:
    wrong = dataclasses.replace(october(database, place), sql=MONTH.replace("timestamp", "executed_at"))
    with pytest.raises(InputError, match="executed_at"):
        export.run(wrong)
    assert content(place) == {}


def test_d25_a_query_that_ignores_the_month_is_refused(database: Path, place: Path) -> None:
    for sql, lacks in (
        ("SELECT * FROM trades WHERE timestamp >= date('now', '-30 days')", ":begin and :end"),
        ("SELECT * FROM trades WHERE timestamp >= :begin", ":end"),
        ("SELECT * FROM trades WHERE timestamp >= :begin AND timestamp < :until", ":until"),
    ):
        with pytest.raises(InputError, match=lacks):
            export.run(dataclasses.replace(october(database, place), sql=sql))
    with pytest.raises(InputError, match="needs a month"):
        export.run(dataclasses.replace(october(database, place), period=None))
    assert content(place) == {}


def test_seconds_since_1970_have_borders_too(tmp_path: Path, place: Path) -> None:
    database = trades(tmp_path)
    sql = "SELECT id FROM trades WHERE unixtime >= :begin_unix * 1000 AND unixtime < :end_unix * 1000"
    change(
        database,
        "ALTER TABLE trades ADD unixtime INTEGER",
        "UPDATE trades SET unixtime = CAST(strftime('%s', timestamp) AS INTEGER) * 1000",
    )
    result = export.run(dataclasses.replace(october(database, place), sql=sql))
    assert result["rows"] == 4


def test_the_second_run_changes_nothing_and_a_changed_row_is_exported_again(database: Path, place: Path) -> None:
    first = export.run(october(database, place))
    before = content(place)
    stats = {path.name: path.stat().st_mtime_ns for path in place.iterdir()}
    second = export.run(october(database, place))
    assert second["changed"] is False
    assert content(place) == before
    assert {path.name: path.stat().st_mtime_ns for path in place.iterdir()} == stats
    change(database, "UPDATE trades SET pnl = 2.25 WHERE id = 3")
    planned = export.run(october(database, place), dry_run=True)
    assert (planned["changed"], planned["rows"]) == (True, 4)
    assert content(place) == before
    third = export.run(october(database, place))
    assert (third["changed"], third["sha256"]) == (True, planned["sha256"])
    assert (third["before"]["sha256"], third["after"]["sha256"]) == (first["sha256"], third["sha256"])
    assert require_whole(place)["sha256"] == third["sha256"]


def test_what_lies_beside_is_repaired(database: Path, place: Path) -> None:
    export.run(october(database, place))
    for name in ("trades_202610.csv.sha256", "trades_202610.csv.json"):
        (place / name).write_text("{}")
        assert export.run(october(database, place))["changed"] is True
        require_whole(place)
        (place / name).unlink()
        assert export.run(october(database, place))["changed"] is True
        require_whole(place)
        assert export.run(october(database, place))["changed"] is False


def test_a_finished_month_does_not_lose_rows_unnoticed(database: Path, place: Path) -> None:
    export.run(october(database, place))
    before = content(place)
    change(database, "DELETE FROM trades WHERE id = 2")
    for dry_run in (True, False):
        with pytest.raises(PreconditionError, match="has 4 rows, the database now gives 3"):
            export.run(october(database, place), dry_run=dry_run)
    assert content(place) == before
    assert export.run(october(database, place, accept_fewer=True))["rows"] == 3
    require_whole(place)


def test_a_month_that_is_not_over_says_so_and_may_change(tmp_path: Path, place: Path) -> None:
    class Then(Clock):
        def now(self) -> datetime:
            return datetime(2026, 10, 20, tzinfo=timezone.utc)

    database = trades(tmp_path)
    assert export.run(october(database, place), clock=Then())["complete"] is False
    change(database, "DELETE FROM trades WHERE id = 2")
    assert export.run(october(database, place), clock=Then())["rows"] == 3
    finished = export.run(october(database, place))
    assert (finished["changed"], finished["complete"]) == (True, True)


def test_no_row_gives_a_header_unless_rows_are_required(database: Path, place: Path) -> None:
    change(database, "DELETE FROM trades")
    assert export.run(october(database, place))["rows"] == 0
    assert (place / "trades_202610.csv").read_bytes() == b"id,timestamp,symbol,pnl\r\n"
    assert require_whole(place)["rows"] == 0
    before = content(place)
    with pytest.raises(PreconditionError, match="gives no row"):
        export.run(october(database, place, require_rows=True))
    assert content(place) == before


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM trades",
        "DELETE FROM trades RETURNING *",
        "WITH x AS (SELECT 1) INSERT INTO trades(id) SELECT 99 FROM x",
        "SELECT 1; DELETE FROM trades",
        "PRAGMA user_version = 7",
        "SELECT * FROM pragma_user_version",
        "ATTACH 'other.db' AS other",
        "CREATE TEMP TABLE t(x)",
        "BEGIN IMMEDIATE",
        "VACUUM INTO 'copy.db'",
        "EXPLAIN SELECT 1",
        "SELECT * FROM nowhere",
        "SELECT ?",
        "-- nothing",
        "",
    ],
)
def test_a_query_that_does_more_than_reading_is_refused_before_it_runs(
    database: Path, place: Path, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    with pytest.raises(InputError, match="is not one SELECT") as refused:
        export.run(plain(database, place, sql))
    assert refused.value.untouched == "everything"
    assert content(place) == {}
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before


def test_each_kind_of_value(database: Path, place: Path) -> None:
    change(
        database,
        "CREATE TABLE odd(a, b, c)",
        "INSERT INTO odd VALUES (1, 'x,y', NULL), (0.1, '', x'00ff'), (9e999, 'line' || char(10) || 'end', ''),"
        " (-9223372036854775808, CAST(x'ff41' AS TEXT), 'a' || char(0) || 'b'), (NULL, '\"', 1e-300)",
    )
    result = export.run(plain(database, place, "SELECT * FROM odd ORDER BY rowid"))
    assert (place / "plain.csv").read_bytes() == (
        b'a,b,c\r\n1,"x,y",\r\n0.1,"",00ff\r\ninf,"line\nend",""\r\n'
        b'-9223372036854775808,\xef\xbf\xbdA,"a\0b"\r\n,"""",1e-300\r\n'
    )
    assert [item["sqlite_types"] for item in result["columns"]] == [
        ["integer", "real"],
        ["text"],
        ["blob", "real", "text"],
    ]
    assert result["notes"] == ["1 cells hold text that is not UTF-8; what is not became U+FFFD"]


def test_columns_of_one_name_are_told_apart(database: Path, place: Path) -> None:
    result = export.run(plain(database, place, "SELECT 1 AS id, 2 AS ID, 3 AS id_2, 4 AS id, 5 AS 'a,b'"))
    assert table(place / "plain.csv")[0] == ["id", "ID_3", "id_2", "id_4", "a,b"]
    assert len(result["notes"]) == 2


def test_times_become_those_of_the_exchange_when_asked(database: Path, place: Path) -> None:
    change(database, "UPDATE trades SET timestamp = '2026-10-05 nonsense' WHERE id = 3")
    wanted = october(database, place, local_times=["timestamp"], time_zone="America/New_York")
    result = export.run(wanted)
    assert [row[1] for row in table(place / "trades_202610.csv")[1:]] == [
        "2026-10-01T00:00:00-04:00",
        "2026-10-05 nonsense",
        "2026-10-31T19:59:59-04:00",
        "2026-10-31T23:59:59.999-04:00",
    ]
    assert result["notes"] == ["1 cells of timestamp are no times; they are left as stored"]
    with pytest.raises(InputError, match="no column nowhere"):
        export.run(october(database, place, local_times=["nowhere"]))


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_slow_export_keeps_no_writer_waiting(tmp_path: Path, place: Path, mode: str) -> None:
    """The query takes longer than the writers' patience; they would fail if it read the file that they write."""
    database = make(tmp_path / "live.db", mode=mode)
    counting = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200000)"
    slow = f"{counting} SELECT count(*) FROM n, (SELECT count(*) FROM tally)"
    with writing(database, 200, 0.2) as writer:
        result = export.run(plain(database, place, slow))
    assert writer.report["failures"] == []
    assert result["read"]["from"] == ("live" if mode == "wal" else "snapshot")
    assert sorted(content(place)) == ["plain.csv", "plain.csv.json", "plain.csv.sha256"]


def test_a_snapshot_that_would_keep_writers_waiting_too_long_is_refused(tmp_path: Path, place: Path) -> None:
    database = trades(tmp_path)
    with pytest.raises(PreconditionError, match="writers may have to wait"):
        export.run(october(database, place), max_wait_s=1e-9)
    assert content(place) == {}
    wal = trades(place, "wal")
    assert export.run(plain(wal, tmp_path, "SELECT 1"), max_wait_s=1e-9)["read"]["from"] == "live"
    assert export.run(plain(wal, tmp_path, "SELECT 1"), source="snapshot")["read"]["from"] == "snapshot"


def test_the_deadline_ends_a_query_and_nothing_is_left(database: Path, place: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(TimeoutExceeded) as late:
        export.run(plain(database, place, endless), timeout_s=0.5)
    assert late.value.subject == str(database)
    assert content(place) == {}


def test_a_locked_database_is_no_export(tmp_path: Path, place: Path) -> None:
    database = trades(tmp_path)
    with elsewhere(database, "BEGIN EXCLUSIVE"), pytest.raises(TimeoutExceeded):
        export.run(october(database, place), timeout_s=0.5)
    assert content(place) == {}


def test_one_export_at_a_time_in_a_directory(database: Path, place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(LeaseError, match="another export"):
            export.run(october(database, place))
    finally:
        os.close(descriptor)
    assert export.run(october(database, place))["changed"] is True


def test_nothing_but_a_file_is_replaced(database: Path, place: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (place / "trades_202610.csv").symlink_to(precious)
    with pytest.raises(InputError, match="no export"):
        export.run(october(database, place))
    (place / "trades_202610.csv").unlink()
    (place / "trades_202610.csv").mkdir()
    with pytest.raises(InputError, match="not a regular file"):
        export.run(october(database, place))
    (place / "trades_202610.csv").rmdir()
    # Who may write into the directory cannot make the export write somewhere else.
    (place / ".trades_202610.csv.fluxmaint-export").symlink_to(precious)
    (place / "trades_202610.csv.json").symlink_to(precious)
    export.run(october(database, place))
    assert precious.read_text() == "keep"
    require_whole(place)


@pytest.mark.parametrize("name", ["a\nb.csv", "a\\b.csv", ".."])
def test_a_name_that_sha256sum_cannot_list_is_refused(database: Path, place: Path, name: str) -> None:
    with pytest.raises(InputError):
        export.run(Export(database, "SELECT 1", place / name))
    assert content(place) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_belong_to_the_owner_of_the_directory(database: Path, place: Path) -> None:
    os.chown(place, 12345, 23456)
    export.run(october(database, place))
    for path in place.iterdir():
        status = path.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (12345, 23456, 0o640)


@needs_mount
def test_a_full_disk_leaves_the_old_export(tmp_path: Path) -> None:
    database = trades(tmp_path, rows=20_000)
    with mounted(tmp_path / "small", "1300k") as disk:
        export.run(october(database, disk.path), work_dir=tmp_path)
        before = content(disk.path)
        change(database, "UPDATE trades SET symbol = 'a symbol that is much longer than it was'")
        with pytest.raises(PreconditionError, match="No space left"):
            export.run(october(database, disk.path), work_dir=tmp_path)
        assert content(disk.path) == before
        require_whole(disk.path)


# ------------------------------------------------------------------------------------------------ kills


def killed(work: Any, log: Path, at: int = 0) -> int:
    """Do something in a process of its own that dies by SIGKILL right before its change of that number."""

    def watched() -> None:
        sys.addaudithook(Witness({"at": at, "fault": "SIGKILL", "log": str(log)}))
        work()

    return in_child(watched)


def in_child(work: Any) -> int:
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def changes(log: Path) -> list[str]:
    return [json.loads(line)["event"] for line in log.read_text().splitlines()] if log.exists() else []


def files_of_one(place: Path) -> set[str]:
    """What lies there but for partial files."""
    return {path.name for path in place.iterdir() if not path.name.startswith(".")}


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_killed_at_each_step_the_old_export_or_the_new_one_is_there_whole(tmp_path: Path, mode: str) -> None:
    database = trades(tmp_path, mode, rows=50)
    whole, place = tmp_path / "whole", tmp_path / "place"
    for directory in (whole, place):
        directory.mkdir()
    export.run(october(database, place))
    old = (place / "trades_202610.csv").read_bytes()
    generations = [old]
    assert killed(lambda: export.run(october(database, whole)), tmp_path / "log") == 0
    steps = len(changes(tmp_path / "log"))
    assert steps >= 9, changes(tmp_path / "log")
    for step in range(1, steps + 1):
        change(database, f"UPDATE trades SET pnl = {step} WHERE id = 3")
        before = (place / "trades_202610.csv").read_bytes()
        work = tmp_path / f"log{step}"
        code = killed(lambda: export.run(october(database, place)), work, step)
        assert code in (0, -9), changes(work)
        found = content(place)
        data = found["trades_202610.csv"]
        assert data == before or f",{step}.0\r\n".encode() in data, f"half a file after step {step}"
        assert data.endswith(b"\r\n")
        assert "trades_202610.csv.json" in found, f"no record after step {step}"
        if "trades_202610.csv.sha256" in found:
            for name in ("trades_202610.csv.sha256", "trades_202610.csv.json"):
                assert hashlib.sha256(data).hexdigest() in found[name].decode(), f"step {step}: {name} of another file"
        result = export.run(october(database, place))
        assert result["after"]["sha256"] == require_whole(place)["sha256"]
        assert set(content(place)) == {f"trades_202610.csv{suffix}" for suffix in ("", ".json", ".sha256")}, step
        generations.append((place / "trades_202610.csv").read_bytes())
    assert len(set(generations)) == steps + 1


ROWS = 20


class Months:
    """A directory with an export of ten rows; the database has twenty by now, and soon fewer than either."""

    def __init__(self, directory: Path) -> None:
        self.place = directory / "place"
        self.place.mkdir(parents=True)
        self.database = trades(directory, "wal")
        self._rows(ROWS // 2)
        export.run(october(self.database, self.place))
        self.old = self.data()
        self._rows(ROWS)

    def _rows(self, rows: int) -> None:
        times = ", ".join(f"('2026-10-{10 + number:02d}T10:00:00Z')" for number in range(rows))
        change(self.database, "DELETE FROM trades", f"INSERT INTO trades(timestamp) VALUES {times}")

    def data(self) -> bytes:
        return (self.place / "trades_202610.csv").read_bytes()

    def export(self, log: Path, at: int = 0) -> int:
        return killed(lambda: export.run(october(self.database, self.place)), log, at)

    def export_another(self, log: Path, at: int = 0) -> int:
        return killed(lambda: export.run(plain(self.database, self.place, "SELECT 1")), log, at)

    def require_guard(self) -> None:
        """One row less than the file that stands has is refused, and the refusal leaves that file whole."""
        stands = self.data()
        rows = stands.count(b"\r\n") - 1
        assert rows == (ROWS // 2 if stands == self.old else ROWS)
        self._rows(rows - 1)
        for dry_run in (True, False):
            with pytest.raises(PreconditionError, match=f"has {rows} rows, the database now gives {rows - 1}"):
                export.run(october(self.database, self.place), dry_run=dry_run)
        assert self.data() == stands
        assert require_whole(self.place)["rows"] == rows
        assert files_of_one(self.place) - {"plain.csv", "plain.csv.json", "plain.csv.sha256"} == {
            f"trades_202610.csv{suffix}" for suffix in ("", ".json", ".sha256")
        }


def test_killed_at_each_step_a_finished_month_still_does_not_lose_rows(tmp_path: Path) -> None:
    whole = Months(tmp_path / "whole")
    assert whole.export(tmp_path / "log") == 0
    steps = len(changes(tmp_path / "log"))
    stood = set()
    for step in range(1, steps + 1):
        for between in (False, True):
            months = Months(tmp_path / f"{step}-{between}")
            assert months.export(tmp_path / f"log-{step}-{between}", step) == -9
            stood.add(months.data() == months.old)
            if between:  # another export into this directory removes what killed ones left, and no record
                assert months.export_another(tmp_path / f"log-{step}-another") == 0
            months.require_guard()
    assert stood == {True, False}


def test_what_a_killed_export_left_is_finished_without_a_new_one(tmp_path: Path) -> None:
    """With the same rows as before, all that is to do is what the kill left undone."""
    months = Months(tmp_path)
    assert months.export(tmp_path / "whole-log") == 0
    after = content(months.place)
    steps = changes(tmp_path / "whole-log")
    renames = [number for number, event in enumerate(steps, 1) if event == "os.rename"]
    assert len(renames) == 3
    for step in (renames[1], renames[2]):  # before the record has its name, and before the digest has
        months = Months(tmp_path / str(step))
        assert months.export(tmp_path / f"log-{step}", step) == -9
        planned = export.run(october(months.database, months.place), dry_run=True)
        assert planned["changed"] is True
        result = export.run(october(months.database, months.place))
        assert result["changed"] is True
        assert result["notes"] == ["finished what a killed export had left undone"]
        assert set(content(months.place)) == set(after)
        require_whole(months.place)
        assert export.run(october(months.database, months.place))["changed"] is False


def test_killed_while_it_finishes_an_export_the_guard_holds(tmp_path: Path) -> None:
    steps = len(changes_of_a_whole_run(tmp_path))
    reached = 0
    for first in range(steps - 2, steps + 1):  # before the file, its record and its digest come
        for second in range(1, 7):
            months = Months(tmp_path / f"{first}-{second}")
            assert months.export(tmp_path / f"log-{first}-{second}-a", first) == -9
            code = months.export_another(tmp_path / f"log-{first}-{second}-b", second)
            reached += code == -9
            months.require_guard()
    assert reached == 3 * 6


def changes_of_a_whole_run(directory: Path) -> list[str]:
    months = Months(directory / "whole")
    assert months.export(directory / "whole-log") == 0
    return changes(directory / "whole-log")


def test_an_error_between_the_file_and_its_record_leaves_the_record_for_the_next_run(tmp_path: Path) -> None:
    database, place, log = trades(tmp_path), tmp_path / "place", tmp_path / "log"
    place.mkdir()
    assert killed(lambda: export.run(october(database, place)), log) == 0
    last = [number for number, event in enumerate(changes(log), 1) if event == "os.rename"][1]
    for path in place.iterdir():
        path.unlink()
    in_the_way = place / "trades_202610.csv.json"

    def work() -> None:
        witness = {"at": last, "fault": f"mkdir {in_the_way}", "log": str(tmp_path / "second")}
        sys.addaudithook(Witness(witness))
        with pytest.raises(PreconditionError, match="Is a directory"):
            export.run(october(database, place))

    assert in_child(work) == 0
    in_the_way.rmdir()
    change(database, "DELETE FROM trades WHERE id = 2")
    with pytest.raises(PreconditionError, match="has 4 rows, the database now gives 3"):
        export.run(october(database, place))
    assert require_whole(place)["rows"] == 4


# ---------------------------------------------------------------------------------------------- Parquet


def test_parquet_has_the_types_of_the_values(database: Path, place: Path) -> None:
    change(
        database,
        "CREATE TABLE odd(i, r, t, b, n, m, big, blank)",
        "INSERT INTO odd VALUES (1, 1.5, 'x', x'00', 1, 1, 9007199254740993, NULL)",
        "INSERT INTO odd VALUES (NULL, NULL, NULL, NULL, 0.5, 'two', 0.5, NULL)",
        "INSERT INTO odd VALUES (-2, -0.5, CAST(x'ff41' AS TEXT), x'ff', 2, x'0a', 1, NULL)",
    )
    result = export.run(plain(database, place, "SELECT * FROM odd ORDER BY rowid", format="parquet"))
    read = parquet.read_table(place / "plain.parquet")
    assert {field.name: str(field.type) for field in read.schema} == {
        "i": "int64",
        "r": "double",
        "t": "string",
        "b": "binary",
        "n": "double",
        "m": "string",
        "big": "string",
        "blank": "string",
    }
    assert read.to_pydict() == {
        "i": [1, None, -2],
        "r": [1.5, None, -0.5],
        "t": ["x", None, "\ufffdA"],
        "b": [b"\0", None, b"\xff"],
        "n": [1.0, 0.5, 2.0],
        "m": ["1", "two", "0a"],
        "big": ["9007199254740993", "0.5", "1"],
        "blank": [None, None, None],
    }
    assert read.schema.field("m").metadata[b"sqlite_types"] == b"blob,integer,text"
    assert "columns with values of several types: n, m, big" in result["notes"]
    again = export.run(plain(database, place, "SELECT * FROM odd ORDER BY rowid", format="parquet"))
    assert again["changed"] is False
    digest = hashlib.sha256((place / "plain.parquet").read_bytes()).hexdigest()
    assert json.loads((place / "plain.parquet.json").read_text())["sha256"] == digest


def test_parquet_is_written_in_row_groups(tmp_path: Path, place: Path) -> None:
    database = trades(tmp_path, rows=100_100)
    result = export.run(dataclasses.replace(october(database, place), format="parquet"))
    found = parquet.ParquetFile(place / "trades_202610.csv")
    assert found.metadata.num_rows == result["rows"] == 100_104
    assert found.metadata.num_row_groups > 1
    assert found.schema_arrow.metadata[b"month"] == b"2026-10"


def test_parquet_without_a_row_has_its_columns(tmp_path: Path, place: Path) -> None:
    database = trades(tmp_path)
    result = export.run(plain(database, place, "SELECT * FROM trades WHERE id < 0", format="parquet"))
    assert result["rows"] == 0
    assert parquet.read_table(place / "plain.parquet").column_names == ["id", "timestamp", "symbol", "pnl"]


def test_without_pyarrow_the_package_is_named(tmp_path: Path, place: Path) -> None:
    """In a Python that has no packages at all."""
    code = (
        "import importlib, sys; sys.path.insert(0, sys.argv[1]); importlib.import_module('tests.conftest')\n"
        "from pathlib import Path; from fluxmaint.sqlite import export\n"
        "from fluxmaint.core.errors import PreconditionError\n"
        "wanted = export.Export(Path(sys.argv[2]), 'SELECT 1', Path(sys.argv[3]), format=sys.argv[4])\n"
        "try: print(export.run(wanted)['rows'])\n"
        "except PreconditionError as error: print(error)\n"
    )
    root = Path(__file__).resolve().parents[3]
    start = [sys.executable, "-I", "-S", "-c", code, str(root), str(trades(tmp_path))]

    def answer(kind: str) -> str:
        words = [*start, str(place / f"x.{kind}"), kind]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    assert answer("csv") == "1\n"
    assert "needs the Python package pyarrow" in answer("parquet")
    assert sorted(content(place)) == ["x.csv", "x.csv.json", "x.csv.sha256"]


def test_what_cannot_be_asked_for(database: Path, place: Path) -> None:
    for wrong in ({"format": "xml"}, {"blobs": "raw"}, {"spreadsheet": True, "format": "parquet"}, {"time_zone": "X"}):
        with pytest.raises(EngineError):
            export.run(dataclasses.replace(plain(database, place, "SELECT 1"), **wrong))
    with pytest.raises(InputError, match="no directory"):
        export.run(plain(database, place / "nowhere", "SELECT 1"))
    assert content(place) == {}


@pytest.mark.parametrize("by", ["its name", "a link", "another database"])
def test_an_export_never_replaces_a_database(database: Path, tmp_path: Path, by: str) -> None:
    destination = {"its name": database, "a link": tmp_path / "link.csv", "another database": tmp_path / "other.db"}[by]
    if by == "a link":
        destination.symlink_to(database)
    elif by == "another database":
        destination.write_bytes(database.read_bytes())
    before = destination.read_bytes()
    with pytest.raises(InputError, match="is a database"):
        export.run(Export(database, "SELECT * FROM trades", destination))
    assert destination.read_bytes() == before


def test_what_is_no_record_of_an_export_stays(database: Path, place: Path) -> None:
    (place / "plain.csv.json").write_text('{"precious": true}')
    with pytest.raises(InputError, match="is no record of an export"):
        export.run(plain(database, place, "SELECT * FROM trades"))
    assert content(place) == {"plain.csv.json": b'{"precious": true}'}
