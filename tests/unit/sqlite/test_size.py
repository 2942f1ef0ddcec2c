# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How large a database is, and how fast it grows."""

from __future__ import annotations

import os
import sqlite3
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from fluxmaint.core.errors import InputError
from fluxmaint.sqlite import size
from fluxmaint.sqlite.size import days_until_full, growth_per_day, measure

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


def make(path: Path, *statements: str, mode: str = "delete", auto_vacuum: str = "none") -> Path:
    con = sqlite3.connect(path, isolation_level=None)
    con.execute(f"PRAGMA auto_vacuum={auto_vacuum}")
    con.execute(f"PRAGMA journal_mode={mode}")
    for statement in statements:
        con.execute(statement)
    con.close()
    return path


def rows(table: str, count: int) -> str:
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
    return f"{numbers} INSERT INTO {table} SELECT i, hex(randomblob(20)) FROM n"


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_each_table_and_index_is_told(tmp_path: Path, mode: str) -> None:
    path = make(
        tmp_path / "a.db",
        'CREATE TABLE "odd ""name""; ü"(id INTEGER PRIMARY KEY, note TEXT)',
        rows('"odd ""name""; ü"', 3000),
        "CREATE TABLE keyed(id INTEGER PRIMARY KEY, note TEXT UNIQUE) WITHOUT ROWID",
        rows("keyed", 3000),
        "CREATE TABLE empty(id INTEGER)",
        "CREATE VIEW seen AS SELECT * FROM keyed",
        mode=mode,
    )
    sizes = measure(path)
    assert sizes.objects is not None and sizes.no_objects == "" and sizes.measured == "live"
    assert sizes.rows() == {'odd "name"; ü': 3000, "keyed": 3000, "empty": 0}
    kinds = {item.name: (item.table, item.kind) for item in sizes.objects}
    assert list(kinds.values()).count(("keyed", "index")) == 1
    assert sum(item.pages for item in sizes.objects) == sizes.page_count - sizes.freelist_count
    assert sum(item.bytes for item in sizes.objects) == sizes.used_bytes
    assert all(0 <= item.fill <= 1 and item.gaps < item.pages for item in sizes.objects)
    assert [item.bytes for item in sizes.objects] == sorted((item.bytes for item in sizes.objects), reverse=True)
    assert sizes.bytes >= sizes.page_count * sizes.page_size or mode == "wal"
    assert sizes.journal_mode == mode and sizes.disk_free_bytes > 0


@pytest.mark.parametrize("auto_vacuum", ["none", "full", "incremental"])
def test_free_pages_are_told_by_auto_vacuum(tmp_path: Path, auto_vacuum: str) -> None:
    path = make(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, note TEXT)",
        rows("t", 5000),
        "DELETE FROM t WHERE id > 1000",
        auto_vacuum=auto_vacuum,
    )
    sizes = measure(path)
    assert sizes.auto_vacuum == auto_vacuum
    assert (sizes.free_page_bytes == 0) is (auto_vacuum == "full")
    assert sizes.used_bytes + sizes.free_page_bytes == sizes.page_count * sizes.page_size
    assert sizes.rows() == {"t": 1000}


def test_scattered_and_half_empty_pages_are_told(tmp_path: Path) -> None:
    create = "CREATE TABLE t(id INTEGER PRIMARY KEY, note TEXT)"
    path = make(tmp_path / "a.db", create, "CREATE INDEX i ON t(note)", rows("t", 20000), "DELETE FROM t WHERE id % 3")
    scattered = measure(path)
    con = sqlite3.connect(path)
    con.execute("VACUUM")
    con.close()
    tidy = measure(path)
    assert scattered.fragmentation is not None and tidy.fragmentation is not None
    assert scattered.fragmentation > 0.3 > 0.1 > tidy.fragmentation
    assert scattered.fill is not None and tidy.fill is not None
    assert scattered.fill < 0.7 < 0.9 < tidy.fill


def test_a_library_that_cannot_tell_gives_the_reason_in_place_of_numbers(tmp_path: Path) -> None:
    # A table of that name hides dbstat as a library without it does.
    path = make(tmp_path / "a.db", "CREATE TABLE dbstat(x)", "INSERT INTO dbstat VALUES (1)")
    sizes = measure(path)
    assert sizes.objects is None and sizes.fragmentation is None and sizes.fill is None
    assert "cannot tell" in sizes.no_objects
    assert sizes.rows() == {} and sizes.page_count == 2


def test_writers_do_not_wait_for_longer_than_the_budget(tmp_path: Path) -> None:
    create = "CREATE TABLE t(id INTEGER PRIMARY KEY, note TEXT)"
    path = make(tmp_path / "a.db", "PRAGMA page_size=512", "VACUUM", create, rows("t", 60000))
    refused = measure(path, budget_s=0.0001)
    assert refused.objects is None and "keep writers waiting" in refused.no_objects
    copied = measure(path, budget_s=0.0001, copy_dir=tmp_path)
    assert copied.measured == "snapshot" and copied.rows() == {"t": 60000}
    assert (copied.path, copied.bytes) == (str(path), path.stat().st_size)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.db"]


def test_what_a_killed_measurement_left_goes_and_a_running_one_stays(tmp_path: Path) -> None:
    create = "CREATE TABLE t(id INTEGER PRIMARY KEY, note TEXT)"
    path = make(tmp_path / "a.db", "PRAGMA page_size=512", "VACUUM", create, rows("t", 60000))
    for name, age_s in (("killed", 3 * 600), ("running", 60)):
        left = tmp_path / f".fluxmaint-size-{name}"
        left.mkdir()
        (left / "copy.db").touch()
        os.utime(left, (time.time() - age_s,) * 2)
    assert measure(path, budget_s=0.0001, copy_dir=tmp_path).measured == "snapshot"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".fluxmaint-size-running", "a.db"]


def test_in_wal_mode_nobody_waits_so_there_is_no_copy(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "CREATE TABLE t(id INTEGER PRIMARY KEY, note TEXT)", rows("t", 30000), mode="wal")
    assert measure(path, budget_s=0.0001, copy_dir=tmp_path).measured == "live"


def test_measuring_changes_nothing(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "CREATE TABLE t(id INTEGER PRIMARY KEY, note TEXT)", rows("t", 100))
    before = path.read_bytes(), path.stat().st_mtime_ns
    measure(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    with pytest.raises(InputError, match="does not exist; nothing was created"):
        measure(tmp_path / "wrong.db")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.db"]


@pytest.mark.parametrize("content", [b"", b"no database, " * 100])
def test_what_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.db").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.db"):
        measure(tmp_path / "a.db")


def day(days: float) -> datetime:
    return NOW + timedelta(days=days)


@pytest.mark.parametrize(
    ("samples", "growth"),
    [
        ([], None),
        ([(day(0), 100)], None),
        ([(day(-0.5), 100), (day(0), 200)], None),  # too close to tell a day from
        ([(day(-90), 0), (day(0), 200)], None),  # too long ago
        ([(day(-1), 100), (day(0), 300)], 200),
        ([(day(0), 300), (day(-1), 200), (day(-2), 100)], 100),
        ([(day(-2), 300), (day(0), 100)], -100),
        ([(day(-1), 100), (day(0), 100), (day(1), 9999)], 0),  # the future counts for nothing
    ],
)
def test_growth_is_a_line_through_the_notes(samples: list[tuple[datetime, int]], growth: float | None) -> None:
    found = growth_per_day(samples, NOW)
    assert found == (growth if growth is None else pytest.approx(growth))


@pytest.mark.parametrize(
    ("free", "growth", "days"), [(1000, 100.0, 10.0), (1000, None, None), (1000, 0.0, None), (1000, -5.0, None)]
)
def test_days_until_full_are_a_number_only_where_it_grows(free: int, growth: float | None, days: float | None) -> None:
    assert days_until_full(free, growth) == days


def test_the_budget_is_short() -> None:
    assert size.BUDGET_S <= 0.25
