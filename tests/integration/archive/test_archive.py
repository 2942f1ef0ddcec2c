# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old rows go into archives by month, exactly as they are, once, and leave the database only when asked to."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from archive_world import NOW, TRADES, Fixed, World, rows_of
from fluxmaint.core import config as configuration
from fluxmaint.core.errors import ConfigError, InputError, IntegrityError, LeaseError
from fluxmaint.core.lease import Lease
from fluxmaint.sqlite import archive, archive_file, archive_query
from fluxmaint.sqlite.archive_selection import Selection
from fluxmaint.sqlite.table_shape import Shape


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.trades(40, 150, every_s=86400)  # from 2026-06-26 on, one a day: 40 days old enough
    made.trades(30, 20)
    return made


def meanwhile(world: World, *statements: str, **options: Any) -> dict[str, Any]:
    """Archive and delete; statements run right before the first row is deleted."""
    pending = list(statements)

    def on_step(step: str, _facts: dict[str, Any]) -> None:
        while step == "delete" and pending:
            world.run_sql(pending.pop(0))

    return archive.run(world.config, delete=True, journal=world.journal, clock=Fixed(), progress=on_step, **options)


def test_rows_go_into_the_file_of_their_month_with_the_live_schema(world: World) -> None:
    before = world.lives()
    result = world.archive()
    assert (result["result"], result["changed"], result["archived"], result["deleted"]) == ("ok", True, 40, 0)
    assert result["cutoff"] == "2026-08-25T04:00:00Z"
    months = {month["month"]: month["rows"] for month in result["tables"][0]["months"]}
    assert months == {"202606": 5, "202607": 31, "202608": 4}
    assert list(world.files()) == [f"trades_archive_{month}.db" for month in months]
    assert world.lives() == before, "nothing is deleted unless asked to"
    assert sorted(world.archived()) == sorted(before)[:40]
    for month, path in zip(months, world.files().values()):
        assert all(row[1].replace("-", "").startswith(month) for row in rows_of(path, "trades"))
        con = sqlite3.connect(path)
        live = dict(world.run_sql("SELECT name, sql FROM sqlite_master WHERE tbl_name = 'trades'"))
        found = dict(con.execute("SELECT name, sql FROM sqlite_master WHERE tbl_name = 'trades'"))
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        con.close()
        assert found == live
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not list((world.top / "state").glob("*-work"))


def test_d48_archives_what_the_guide_loses(world: World) -> None:
    """D48: no schema file, rows archived again each month, open trades too, another "now" for the deletion."""
    world.trades(3, 120, status="open")
    first = world.archive()
    again = world.archive()
    assert (again["changed"], again["archived"]) == (False, 0)
    assert sorted(world.archived()) == sorted(set(world.archived())), "nothing is archived twice"
    deleted = world.archive(delete=True)
    assert deleted["deleted"] == first["archived"] == 40
    assert deleted["cutoff"] == first["cutoff"]
    assert [row[0] for row in world.lives(columns="id, status") if row[1] == "open"] == [71, 72, 73]
    assert world.run_sql("SELECT count(*) FROM trades") == [(33,)]
    assert world.archive(delete=True)["changed"] is False


def test_a_later_run_adds_to_the_month_without_touching_what_it_holds(world: World) -> None:
    world.archive(delete=True)
    before = world.archived()
    world.trades(2, 130.5)
    world.trades(1, 1)
    result = world.archive(delete=True)
    assert result["archived"] == result["deleted"] == 2
    assert set(before) < set(world.archived())
    assert len(world.archived()) == 42


def test_check_mode_tells_rows_and_bytes_and_writes_nothing(world: World) -> None:
    plan = world.plan()
    assert plan["changed"] and plan["dry_run"]
    assert [(month["month"], month["added"]) for month in plan["tables"][0]["months"]] == [
        ("202606", 5),
        ("202607", 31),
        ("202608", 4),
    ]
    assert all(month["bytes"] > 20 * month["added"] for month in plan["tables"][0]["months"])
    assert world.files() == {} and not world.journal.path.exists()
    files = {month["file"]: month["rows"] for month in plan["tables"][0]["months"]}
    assert archive.difference(plan) == {"before": {}, "after": files}
    world.archive()
    assert world.plan()["changed"] is False
    assert archive.difference(world.plan()) == {"before": files, "after": files}


def test_times_in_every_form_and_those_nobody_can_read(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.tables[0]["query"] = "SELECT id, timestamp AS time FROM trades"
    times = [
        "2026-07-31T23:30:00-01:00",
        "2026-08-01 00:30:00+01:00",
        "2026-07-15",
        1784073600,  # 2026-07-15
        "1784073600",
        "yesterday",
        "",
        "2026-02-30T00:00:00Z",
        b"2026-07-15",
        NOW.isoformat(),
        "2026-08-25T04:00:00Z",
        "2026-08-25T03:59:59.999Z",
    ]
    with world.live() as con:
        con.execute("DROP TABLE trades")
        con.execute("CREATE TABLE trades(id INTEGER PRIMARY KEY, timestamp)")
        con.executemany("INSERT INTO trades(timestamp) VALUES (?)", [(time,) for time in times])
    result = world.archive(delete=True)
    months = {month["month"]: month["rows"] for month in result["tables"][0]["months"]}
    assert months == {"202607": 4, "202608": 2}
    assert result["tables"][0]["unreadable"] == 4
    assert result["result"] == "degraded" and "4 rows have a time that cannot be read" in result["problems"][0]
    assert [row[0] for row in world.lives()] == [6, 7, 8, 9, 10, 11, 12], "12 is the newest, its number stays taken"


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_every_value_is_kept_exactly(tmp_path: Path, encoding: str) -> None:
    world = World(tmp_path, encoding=encoding)
    values = [
        (2**63 - 1, 1e308, "ünïcödé \U0001f600", b"\x00\xff" * 5),
        (-(2**63), -0.0, "", b""),
        (1, 0.1 + 0.2, "a\x00b", bytes(range(256)) * 100),
        (1.0, math.inf, "1", None),
        ("text in an integer column", 5e-324, None, 7),
        (None, math.nan, 'it\'s "quoted"', "text in a blob column"),
    ]
    with world.live() as con:
        con.execute("DROP TABLE trades")
        con.execute(
            'CREATE TABLE "odd ""näme"(id TEXT COLLATE NOCASE, part INTEGER, at TEXT, n INTEGER, "r e a l" REAL, t'
            " TEXT, b BLOB, twice INTEGER GENERATED ALWAYS AS (part * 2) STORED, more AS (part + 1),"
            " PRIMARY KEY (id, part)) WITHOUT ROWID"
        )
        con.executemany(
            'INSERT INTO "odd ""näme"(id, part, at, n, "r e a l", t, b) VALUES (?, ?, ?, ?, ?, ?, ?)',
            [(f"Kéy{number}", number, "2026-05-01T00:00:00Z", *row) for number, row in enumerate(values)],
        )
    world.tables = [
        {
            "name": "odd",
            "database": "trades",
            "table": 'odd "näme',
            "query": 'SELECT id, part, at AS time FROM "odd ""näme" WHERE at < :cutoff;',
        }
    ]
    columns = 'id, part, n, typeof(n), "r e a l", typeof("r e a l"), t, hex(t), b, typeof(b), twice, more'
    name = 'odd ""näme'
    before = world.run_sql(f'SELECT {columns} FROM "{name}"')
    result = world.archive(delete=True, accept_clock=True)
    assert (result["archived"], result["deleted"]) == (6, 6)
    path = world.directory / "odd_archive_202605.db"
    assert repr(rows_of(path, name, columns)) == repr(before)
    assert world.run_sql(f'SELECT count(*) FROM "{name}"') == [(0,)]


def test_a_row_that_changed_after_it_was_archived_stays_until_a_person_decides(world: World) -> None:
    world.archive()
    world.run_sql("UPDATE trades SET pnl = 99 WHERE id = 7")
    before = world.archived()
    result = world.archive(delete=True)
    assert (
        result["result"] == "degraded" and "1 rows of 202607 changed after they were archived" in result["problems"][0]
    )
    assert result["deleted"] == 39
    assert world.archived() == before
    assert world.run_sql("SELECT pnl FROM trades WHERE id = 7") == [(99.0,)]
    again = world.archive(delete=True, replace_changed=True)
    assert (again["result"], again["deleted"], again["archived"]) == ("ok", 1, 0)
    assert [row[3] for row in world.archived() if row[0] == 7] == [99.0]
    assert len(world.archived()) == 40


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trades SET pnl = 99 WHERE id = 7",
        "UPDATE trades SET symbol = 'spy' WHERE id = 7",
        "UPDATE trades SET pnl = '1.25x' WHERE id = 7",
        "UPDATE trades SET pnl = NULL WHERE id = 7",
    ],
)
def test_a_row_that_changes_between_copying_and_deleting_stays(world: World, change: str) -> None:
    """The comparison is in the deleting transaction, and it is exact: no collation, no affinity."""
    world.run_sql("UPDATE trades SET pnl = 1 WHERE id = 7")
    result = meanwhile(world, change)
    assert result["deleted"] == 39
    assert [month["kept"] for month in result["tables"][0]["months"]] == [{}, {"changed": 1}, {}]
    assert [row[0] for row in world.lives()][:1] == [7]
    assert len(world.archived()) == 40


def test_what_rows_need_to_stay_for_may_come_up_meanwhile(world: World) -> None:
    world.run_sql("CREATE TABLE notes(trade INTEGER REFERENCES trades(id) ON DELETE CASCADE)")
    result = meanwhile(world, "INSERT INTO notes VALUES (5)", "DELETE FROM trades WHERE id > 40")
    assert result["deleted"] == 38
    assert [row[0] for row in world.lives()] == [5, 40], "one that is referred to, and the newest one"
    assert world.run_sql("SELECT trade FROM notes") == [(5,)]


def test_a_new_row_with_a_key_that_is_not_the_tables_own_stays(tmp_path: Path) -> None:
    columns = "id INTEGER, part INTEGER DEFAULT 0, timestamp TEXT, symbol TEXT, status TEXT DEFAULT 'filled'"
    world = World(tmp_path, f"CREATE TABLE trades({columns}, PRIMARY KEY(id, part)) WITHOUT ROWID;")
    world.tables[0].update(key=["id"])
    for number in range(3):
        world.run_sql("INSERT INTO trades(id, timestamp, symbol) VALUES (?, '2026-06-01', 'SPY')", number)
    new = "INSERT INTO trades(id, part, timestamp, symbol, status) VALUES (1, 1, '2026-11-22', 'NEW', 'open')"
    assert meanwhile(world, new, accept_clock=True)["deleted"] == 3
    assert [row[3] for row in world.lives()] == ["NEW"]


def test_a_table_whose_columns_hide_the_rows_number_is_refused(tmp_path: Path) -> None:
    names = "id INTEGER, rowid INT, _rowid_ INT, oid INT, timestamp TEXT, symbol TEXT, status TEXT DEFAULT 'filled'"
    world = World(tmp_path, f"CREATE TABLE trades({names});")
    world.tables[0].update(key=["id"])
    world.run_sql("INSERT INTO trades(id, timestamp, symbol) VALUES (1, '2026-06-01', 'SPY')")
    with pytest.raises(InputError, match="nothing finds a row of the table trades"):
        world.archive(delete=True)
    assert len(world.lives()) == 1


@pytest.mark.parametrize("by", ["another file", "nothing"])
def test_an_archive_that_is_replaced_while_rows_are_deleted_ends_the_deletion(world: World, by: str) -> None:
    world.trades(3000, 150, every_s=60)
    everything = {row[0] for row in world.lives()}
    gone: set[int] = set()

    def on_step(step: str, _facts: dict[str, Any]) -> None:
        if step != "deleted" or gone:
            return
        for path in world.files().values():
            gone.update(row[0] for row in rows_of(path, "trades"))
            if by == "another file":
                path.with_name("older").write_bytes(path.read_bytes())
                os.replace(path.with_name("older"), path)
            else:
                path.unlink()

    with pytest.raises(IntegrityError, match="was replaced while"):
        archive.run(world.config, delete=True, journal=world.journal, clock=Fixed(), progress=on_step)
    assert gone and everything - gone <= {row[0] for row in world.lives()}
    assert gone & {row[0] for row in world.lives()}, "what was left when it was replaced is still there"


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE trades ADD COLUMN fee REAL DEFAULT 1",
        "CREATE TRIGGER told AFTER DELETE ON trades BEGIN DELETE FROM positions; END",
    ],
)
def test_a_schema_that_changes_meanwhile_ends_the_deletion(world: World, change: str) -> None:
    """A column that the archive does not have could hold something, and a trigger would fire."""
    with pytest.raises(InputError, match="the schema was changed meanwhile"):
        meanwhile(world, change)
    assert world.run_sql("SELECT count(*) FROM trades") == [(70,)]
    world.run_sql("DROP TRIGGER IF EXISTS told")
    assert world.archive(delete=True)["deleted"] == 40


def test_copies_that_are_not_exact_are_never_given_a_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    original = archive_file.create

    def create(path: Path, shape: Shape, **options: Any) -> None:
        wrong = tuple(text.replace("pnl REAL", "pnl TEXT") for text in shape.statements)
        original(path, dataclasses.replace(shape, statements=wrong), **options)

    monkeypatch.setattr(archive_file, "create", create)
    with pytest.raises(IntegrityError, match="are not the 5 that were read"):
        world.archive(delete=True)
    assert world.files() == {} and world.run_sql("SELECT count(*) FROM trades") == [(70,)]


def test_an_archive_never_loses_what_it_held(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.archive(delete=True)
    before = world.archived()
    world.trades(1, 130.5)
    monkeypatch.setattr(Selection, "_copy_rest", lambda *_: None)
    with pytest.raises(IntegrityError, match="0, are not the 31 that were read"):
        world.archive(delete=True)
    assert world.archived() == before


def test_a_row_whose_month_changed_is_not_archived_twice(world: World) -> None:
    world.archive()
    world.run_sql("UPDATE trades SET timestamp = '2026-08-01T00:00:00Z' WHERE id = 7")
    result = world.archive(delete=True)
    assert "in the archive of another month" in result["problems"][0]
    assert [row[0] for row in world.archived()].count(7) == 1
    assert world.run_sql("SELECT count(*) FROM trades WHERE id = 7") == [(1,)]


def test_a_column_that_was_added_extends_the_archive(world: World) -> None:
    world.archive()
    world.run_sql("ALTER TABLE trades ADD COLUMN fee REAL NOT NULL DEFAULT 0.5")
    world.run_sql("UPDATE trades SET fee = 2 WHERE id = 3")
    world.run_sql("CREATE INDEX trades_fee ON trades(fee)")
    result = world.archive(delete=True)
    assert (result["result"], result["deleted"], result["archived"]) == ("ok", 40, 0)
    fees = dict(world.archived(columns="id, fee"))
    assert fees[3] == 2 and fees[4] == 0.5 and len(fees) == 40


def test_a_column_that_is_gone_or_declared_otherwise_is_refused(world: World) -> None:
    world.archive()
    before = world.archived()
    world.trades(1, 140)
    world.run_sql("ALTER TABLE trades RENAME COLUMN pnl TO profit")
    with pytest.raises(InputError, match=r"trades_archive_202606.db was written.*column pnl is gone") as caught:
        world.archive(delete=True)
    assert "trades" in str(caught.value)
    assert world.archived() == before


def test_triggers_never_fire(world: World) -> None:
    with world.live() as con:
        con.execute("CREATE TABLE audit(what TEXT)")
        con.execute("CREATE TRIGGER told AFTER INSERT ON trades BEGIN INSERT INTO audit VALUES ('insert'); END")
        con.execute("CREATE TRIGGER told_too AFTER DELETE ON trades BEGIN INSERT INTO audit VALUES ('delete'); END")
    result = world.archive(delete=True)
    assert result["archived"] == 40 and result["deleted"] == 0
    assert "would fire the trigger told_too" in result["problems"][0]
    assert world.run_sql("SELECT count(*) FROM audit") == [(0,)]
    assert world.run_sql("SELECT count(*) FROM trades") == [(70,)]
    con = sqlite3.connect(world.directory / "trades_archive_202607.db")
    assert con.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone() == (0,)
    con.close()


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "RESTRICT"])
def test_a_row_that_others_refer_to_stays(world: World, action: str) -> None:
    with world.live() as con:
        con.execute(f"CREATE TABLE notes(trade INTEGER REFERENCES Trades(id) ON DELETE {action}, text TEXT)")
        con.execute("INSERT INTO notes VALUES (5, 'keep'), (NULL, 'none')")
    result = world.archive(delete=True)
    assert result["deleted"] == 39
    assert result["tables"][0]["months"][0]["kept"] == {"referenced": 1}
    assert world.run_sql("SELECT trade FROM notes ORDER BY trade") == [(None,), (5,)]
    assert world.run_sql("PRAGMA foreign_key_check") == []


def test_the_newest_row_stays_so_that_its_number_is_not_given_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.trades(10, 150)
    result = world.archive(delete=True, accept_clock=True)
    assert result["tables"][0]["months"][0]["kept"] == {"newest": 1}
    assert [row[0] for row in world.lives()] == [10]
    world.trades(1, 1)
    assert [row[0] for row in world.lives()] == [10, 11]


def test_autoincrement_remembers_its_numbers(tmp_path: Path) -> None:
    world = World(tmp_path)
    with world.live() as con:
        con.execute("DROP TABLE trades")
        con.execute(
            "CREATE TABLE trades(id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, symbol TEXT, pnl REAL,"
            " status TEXT DEFAULT 'filled')"
        )
    world.trades(10, 150)
    assert world.archive(delete=True, accept_clock=True)["deleted"] == 10
    world.trades(1, 1)
    assert [row[0] for row in world.lives()] == [11]


def test_a_table_without_primary_key_needs_key_columns(tmp_path: Path) -> None:
    world = World(tmp_path)
    with world.live() as con:
        con.execute("CREATE TABLE fills(ref TEXT, at TEXT, rowid INTEGER)")
        con.executemany("INSERT INTO fills VALUES (?, '2026-05-01', ?)", [(f"r{n}", n) for n in range(300)])
    query = "SELECT ref, at AS time FROM fills WHERE at < :cutoff"
    world.tables = [{"name": "fills", "database": "trades", "query": query}]
    with pytest.raises(InputError, match="no primary key"):
        world.archive()
    world.tables[0]["key"] = ["ref"]
    assert world.archive(delete=True, accept_clock=True)["deleted"] == 300
    assert len(world.archived("fills")) == 300
    with world.live() as con:
        con.execute("INSERT INTO fills VALUES ('x', '2026-05-01', 1), ('x', '2026-11-22', 2)")
    with pytest.raises(InputError, match="does not identify rows of fills"):
        world.archive(delete=True)
    assert world.run_sql("SELECT count(*) FROM fills") == [(2,)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"table": "nothing"}, "has no table nothing"),
        ({"table": "seen"}, "seen is a view"),
        ({"table": "words"}, "words is a virtual table"),
        ({"query": "DELETE FROM trades"}, "not one SELECT"),
        ({"query": "SELECT id FROM trades"}, "not one SELECT that gives id, time"),
        ({"query": "SELECT 1 AS id, timestamp AS time FROM trades"}, "gives the key 1 twice"),
        ({"query": "SELECT id, timestamp AS time FROM trades; DROP TABLE trades"}, "not one SELECT"),
        ({"query": "SELECT id, timestamp AS time FROM trades, pragma_journal_mode('WAL')"}, "not one SELECT"),
        ({"query": "SELECT id + 1000 AS id, timestamp AS time FROM trades WHERE id = 1"}, "does not identify rows"),
        ({"key": ["nothing"]}, "no key column nothing"),
    ],
)
def test_bad_contracts_are_refused(world: World, change: dict[str, Any], message: str) -> None:
    with world.live() as con:
        con.execute("CREATE VIEW seen AS SELECT * FROM trades")
        con.execute("CREATE VIRTUAL TABLE words USING fts5(word)")
    before = world.lives()
    world.tables[0].update(change)
    with pytest.raises(InputError, match=message):
        world.archive(delete=True, accept_clock=True)
    assert world.files() == {} and world.lives() == before


def test_one_table_has_one_entry(world: World) -> None:
    world.tables.append({**TRADES, "name": "again", "table": "Trades"})
    with pytest.raises(ConfigError, match=r"archives.tables has the name 'trades.trades' more than once"):
        world.archive()


def test_rows_that_one_table_cannot_hold_are_told(tmp_path: Path) -> None:
    """A time that only one row may have was given again, after its row had left."""
    world = World(
        tmp_path,
        "CREATE TABLE trades(id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT UNIQUE, symbol TEXT, pnl REAL,"
        " status TEXT DEFAULT 'filled');",
    )
    world.trades(3, 150)
    world.trades(1, 1)
    world.archive(delete=True)
    before = world.archived()
    world.trades(1, 150)
    with pytest.raises(
        InputError, match=r"cannot be in one table: UNIQUE constraint failed: trades.timestamp"
    ) as caught:
        world.archive(delete=True)
    assert caught.value.subject == str(world.directory / "trades_archive_202606.db")
    assert world.archived() == before and len(world.lives()) == 2


def test_one_table_that_cannot_be_archived_does_not_keep_the_others(world: World) -> None:
    world.tables.insert(0, {**TRADES, "name": "other", "table": "nothing"})
    result = world.archive()
    assert result["result"] == "degraded" and result["archived"] == 40
    assert "archive other: " in result["problems"][0]


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_a_damaged_archive_is_found_and_named_before_anything_is_done(world: World, where: float) -> None:
    world.archive()
    path = world.directory / "trades_archive_202607.db"
    data = bytearray(path.read_bytes())
    at = data.index(b"SPY", int(len(data) * 0.05))
    data[at] ^= 1
    path.write_bytes(data if where < 0.5 else data[: int(len(data) * where)])
    world.trades(1, 100)
    with pytest.raises(IntegrityError) as caught:
        world.archive(delete=True)
    assert str(path) in str(caught.value) and "fetch this file from a backup" in str(caught.value)
    assert world.run_sql("SELECT count(*) FROM trades") == [(71,)]
    assert "trades_archive_202608.db" in world.files()
    assert len(rows_of(world.directory / "trades_archive_202608.db", "trades")) == 4


@pytest.mark.parametrize("occurrence", [0, 1])
def test_a_flipped_bit_in_the_rows_or_in_an_index_is_found(world: World, occurrence: int) -> None:
    world.archive()
    path = world.directory / "trades_archive_202607.db"
    data = bytearray(path.read_bytes())
    places = [found.start() for found in re.finditer(rb"2026-07-05T", data)]
    assert len(places) == 2, "once in the table, once in its index"
    data[places[occurrence] + 9] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"is damaged|are not the 31"):
        world.archive()


def test_what_lies_beside_an_archive_is_not_ignored(world: World) -> None:
    world.archive()
    path = world.directory / "trades_archive_202607.db"
    stray = world.directory / "trades_archive_202501.db.partial"
    stray.write_bytes(b"of a run that was killed")
    other = world.directory / "notes.partial"
    other.write_bytes(b"not ours")
    world.archive()
    assert not stray.exists() and other.exists()
    journal = Path(f"{path}-journal")
    journal.write_bytes(b"x")
    with pytest.raises(IntegrityError, match="db-journal lies beside it"):
        world.archive()
    journal.unlink()
    con = sqlite3.connect(path)
    con.execute("PRAGMA journal_mode = WAL")
    con.close()
    with pytest.raises(IntegrityError, match="WAL mode"):
        world.archive()


def test_files_that_only_look_like_archives_are_refused(world: World) -> None:
    world.directory.mkdir()
    path = world.directory / "trades_archive_202607.db"
    con = sqlite3.connect(path)
    con.execute("CREATE TABLE trades(id)")
    con.close()
    with pytest.raises(InputError, match="not made by fluxmaint"):
        world.archive()
    path.unlink()
    world.archive()
    world.files()["trades_archive_202606.db"].rename(world.directory / "trades_archive_202605.db")
    with pytest.raises(InputError, match="another archive than its name says: month"):
        world.archive()


def test_somebody_wrote_to_an_archive(world: World) -> None:
    world.archive()
    path = world.directory / "trades_archive_202607.db"
    con = sqlite3.connect(path)
    con.execute("DELETE FROM trades WHERE id = 10")
    con.commit()
    con.close()
    with pytest.raises(IntegrityError, match="its 30 rows are not the 31"):
        world.archive()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE fluxmaint_archive SET value = 'x' WHERE key = 'rows'",
        "DELETE FROM fluxmaint_archive WHERE key = 'sha256'",
    ],
)
def test_what_an_archive_says_of_itself_is_damaged(world: World, change: str) -> None:
    world.archive()
    con = sqlite3.connect(world.directory / "trades_archive_202607.db")
    con.execute(change)
    con.commit()
    con.close()
    with pytest.raises(IntegrityError, match="what its table fluxmaint_archive says is damaged"):
        world.archive()
    assert not archive_query.info(world.config, content=False)["ok"]


def test_the_lease_keeps_other_work_away(world: World) -> None:
    with Lease(world.config.lease_file, purpose="maintain"), pytest.raises(LeaseError, match="maintain"):
        world.archive()


def test_a_contract_without_archives(world: World) -> None:
    world.tables = []
    with pytest.raises(ConfigError, match="there is no archive named x"):
        world.archive(names=["x"])


def test_archives_belong_to_the_service(world: World) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    import fluxmaint.sqlite.archive as module

    owners = []
    original = archive_file.publish

    def publish(*arguments: Any) -> Any:
        owners.append(arguments[4])
        return original(*arguments)

    module.archive_file.publish = publish
    try:
        document = world.document
        document.update(user="nobody", group="nogroup")
        (world.top / "state").mkdir(exist_ok=True)
        archive.run(configuration.parse(document), journal=world.journal, clock=Fixed())
    finally:
        module.archive_file.publish = original
    status = next(iter(world.files().values())).stat()
    assert (status.st_uid, status.st_gid) == owners[0] != (0, 0)
    assert world.directory.stat().st_uid == owners[0][0]


@pytest.mark.parametrize("by", ["an older copy", "nothing"])
def test_an_archive_that_is_gone_or_an_older_copy_ends_the_work_on_its_table(world: World, by: str) -> None:
    world.archive(older_than_days=149, accept_clock=True)
    older = {path: path.read_bytes() for path in world.files().values()}
    world.archive(delete=True)
    newer = {path: path.read_bytes() for path in world.files().values()}
    path = next(path for path in older if older[path] != newer[path])
    world.trades(3, 151)
    before = world.lives()
    path.write_bytes(older[path]) if by == "an older copy" else path.unlink()
    said = "it is an older copy" if by == "an older copy" else "is gone, and"
    with pytest.raises(IntegrityError, match=said) as caught:
        world.archive(delete=True)
    assert caught.value.subject == str(path)
    assert world.lives() == before
    assert [said in problem for problem in archive_query.info(world.config)["problems"]] == [True]
    path.write_bytes(newer[path])
    assert world.archive()["result"] == "ok"
    assert archive_query.info(world.config)["ok"]


def test_a_month_that_was_moved_away_is_accepted_once(world: World) -> None:
    world.archive(delete=True)
    next(iter(world.files().values())).unlink()
    assert world.archive(accept_fewer=True)["result"] == "ok"
    assert world.archive()["result"] == "ok"
    assert archive_query.info(world.config)["ok"]


def test_a_restore_begins_the_count_anew(world: World) -> None:
    world.archive()
    next(iter(world.files().values())).unlink()
    world.journal.append("restore", "end", "failed")
    with pytest.raises(IntegrityError, match="is gone"):
        world.archive()
    world.journal.append("restore", "end", "ok")
    assert world.archive()["result"] == "ok"
