# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A key may be used again: no row hides another one, and what is replaced is kept."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from archive_world import Fixed, World
from fluxmaint.cli.main import main
from fluxmaint.core.errors import InputError, IntegrityError
from fluxmaint.sqlite import archive, archive_query

NEWER = "INSERT INTO trades(id, timestamp, symbol, pnl) VALUES (7, '2026-11-22T00:00:00Z', 'NEW', 1)"
OPEN = "INSERT INTO trades(id, timestamp, symbol, status) VALUES (7, '2026-07-02T00:00:00Z', 'NEW', 'open')"
MONTH_FILE = "trades_archive_202607.db"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.trades(40, 150, every_s=86400)  # from 2026-06-26 on; the row 7 is of 2026-07-02
    made.trades(3, 20)
    return made


def ask(world: World, sql: str, **options: Any) -> archive_query.Answer:
    return archive_query.query(world.config, sql, clock=Fixed(), **options)


def kept(world: World) -> list[tuple[Any, ...]]:
    """What the archive of July keeps of rows that were replaced."""
    con = sqlite3.connect(f"file:{world.directory / MONTH_FILE}?mode=ro", uri=True)
    try:
        return con.execute("SELECT id, pnl, typeof(pnl) FROM fluxmaint_replaced ORDER BY rowid").fetchall()
    finally:
        con.close()


def july(world: World) -> dict[str, Any]:
    found: list[dict[str, Any]] = archive_query.info(world.config)["tables"][0]["files"]
    return next(entry for entry in found if entry["month"] == "202607")


@pytest.mark.parametrize("again", [NEWER, OPEN])
def test_a_row_with_the_key_of_an_archived_one_hides_it_from_nobody(world: World, again: str) -> None:
    world.archive(delete=True)
    world.run_sql(again)
    answer = ask(world, "SELECT symbol FROM trades WHERE id = 7 ORDER BY symbol")
    assert answer.rows == [("NEW",), ("SPY",)]
    assert (answer.reused, answer.changed) == (1, 0)
    assert "the keys of 1 archived rows were used again" in answer.notes[0]
    assert ask(world, "SELECT count(*) FROM trades").rows == [(44,)]
    result = world.archive(delete=True)
    assert (result["result"], result["changed"]) == ("ok", False)
    assert result["tables"][0]["reused"] == {"202607": 1}
    assert f"the keys of 1 rows in {world.directory / MONTH_FILE}" in result["notes"][0]
    assert "such as 7; both are kept" in result["notes"][0]
    assert july(world)["reused"] == 1 and archive_query.info(world.config)["ok"]
    world.run_sql("DELETE FROM trades WHERE id = 7")
    assert world.archive()["notes"] == [] and july(world)["reused"] == 0


def test_a_changed_row_counts_once_and_is_told(world: World) -> None:
    world.archive()
    world.run_sql("UPDATE trades SET pnl = 99 WHERE id IN (7, 8)")
    answer = ask(world, "SELECT count(*), sum(pnl = 99) FROM trades")
    assert answer.rows == [(43, 2)]
    assert (answer.reused, answer.changed) == (0, 2) and "2 archived rows changed" in answer.notes[0]
    result = world.archive()
    assert result["tables"][0]["reused"] == {} and "2 rows of 202607 changed" in result["problems"][0]
    unasked = ask(world, "SELECT count(*) FROM trades", since="202608")
    assert (unasked.changed, unasked.notes) == (0, [])


def test_a_row_that_went_to_another_month_is_shown_with_the_archived_one(world: World) -> None:
    world.archive(delete=True)
    world.run_sql("INSERT INTO trades(id, timestamp, symbol) VALUES (7, '2026-08-02T00:00:00Z', 'NEW')")
    assert ask(world, "SELECT count(*) FROM trades WHERE id = 7").rows == [(2,)]
    result = world.archive(delete=True)
    assert "in the archive of another month" in result["problems"][0]
    assert result["tables"][0]["reused"] == {"202607": 1}
    assert 7 in {row[0] for row in world.lives()}


def test_views_of_other_tables_do_not_decide_which_row_is_meant(world: World) -> None:
    """A contract's query that asks a table which is archived, too, means that table in the database alone."""
    world.run_sql("INSERT INTO positions VALUES (1, 'SPY', 'gone', '2026-06-01')")
    closed = "SELECT id, opened_at AS time FROM positions WHERE opened_at < :cutoff"
    world.tables.insert(0, {"name": "positions", "database": "trades", "query": closed})
    world.tables[1]["query"] += " AND NOT EXISTS (SELECT 1 FROM positions)"
    world.archive(delete=True, accept_clock=True)
    world.run_sql("DELETE FROM positions")
    world.archive(delete=True)
    world.run_sql("INSERT INTO trades(id, timestamp, symbol) VALUES (7, '2026-07-02T09:00:00Z', 'NEW')")
    answer = ask(world, "SELECT (SELECT count(*) FROM positions), symbol FROM trades WHERE id = 7")
    assert (answer.rows, answer.changed) == ([(1, "NEW")], 1)


def test_what_is_replaced_is_kept(world: World) -> None:
    world.archive()
    world.run_sql("UPDATE trades SET pnl = '99 and more' WHERE id = 7")
    first = world.archive(replace_changed=True)
    month = first["tables"][0]["months"][1]
    assert (month["rewritten"], month["replaced"], first["archived"]) == (1, 1, 0)
    world.run_sql("UPDATE trades SET pnl = NULL WHERE id = 7")
    world.archive(replace_changed=True)
    old = [(7, 1.25, "real"), (7, "99 and more", "text")]
    assert kept(world) == old
    world.run_sql("ALTER TABLE trades ADD COLUMN fee REAL")
    world.trades(1, 130.5)
    assert world.archive(delete=True)["result"] == "ok"
    assert kept(world) == old and len(world.archived()) == 41
    assert july(world)["replaced"] == 2
    assert any(
        "keeps 2 rows that were replaced, in fluxmaint_replaced" in note
        for note in archive_query.info(world.config)["notes"]
    )
    answer = ask(world, "SELECT pnl FROM trades WHERE id = 7")
    assert answer.rows == [(None,)] and "keeps 2 rows that were replaced" in answer.notes[0]


def test_replaced_rows_are_proven_as_the_others(world: World) -> None:
    world.archive()
    path = world.directory / MONTH_FILE
    world.run_sql("UPDATE trades SET pnl = 2 WHERE id = 7")
    world.archive(replace_changed=True)
    older = path.read_bytes()
    world.run_sql("UPDATE trades SET pnl = 3 WHERE id = 7")
    world.archive(replace_changed=True)
    newer = path.read_bytes()
    path.write_bytes(older)
    with pytest.raises(IntegrityError, match="it is an older copy"):
        world.archive()
    assert ["older copy" in problem for problem in archive_query.info(world.config)["problems"]] == [True]
    path.write_bytes(newer)
    assert archive_query.info(world.config)["ok"]
    con = sqlite3.connect(path)
    con.execute("DELETE FROM fluxmaint_replaced WHERE pnl = 2")
    con.commit()
    con.close()
    with pytest.raises(IntegrityError, match="the 2 replaced rows that it keeps are not those"):
        world.archive()


def test_replaced_rows_that_would_be_lost_end_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.archive()
    world.run_sql("UPDATE trades SET pnl = 2 WHERE id = 7")
    before = world.archived()
    create = archive.archive_file.create

    def losing(path: Path, *arguments: Any, **options: Any) -> None:
        create(path, *arguments, **options)
        con = sqlite3.connect(path)
        con.execute("CREATE TRIGGER t AFTER INSERT ON fluxmaint_replaced BEGIN DELETE FROM fluxmaint_replaced; END")
        con.close()

    monkeypatch.setattr(archive.archive_file, "create", losing)
    with pytest.raises(IntegrityError, match="the rows that were written, 0, are not the 1 that were read"):
        world.archive(replace_changed=True)
    assert world.archived() == before


def test_the_commands_tell_of_them(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.archive(delete=True)
    world.run_sql(NEWER)
    config = ["--config", str(world.top / "config.json")]
    assert main(["archive", *config], clock=Fixed()) == 0
    assert "note: archive trades: the keys of 1 rows in" in capsys.readouterr().out
    assert main(["archive-info", *config], clock=Fixed()) == 0
    assert "the keys of 1 rows were used again" in capsys.readouterr().out
    assert main(["query", "SELECT count(*) FROM trades", *config], clock=Fixed()) == 0
    assert "note: the keys of 1 archived rows were used again" in capsys.readouterr().out
    assert main(["query", "SELECT count(*) FROM trades", "--json", *config], clock=Fixed()) == 0
    assert json.loads(capsys.readouterr().out)["reused"] == 1


KEYED = "CREATE TABLE trades(ref TEXT {} PRIMARY KEY, timestamp TEXT, symbol TEXT, status TEXT DEFAULT 'filled');"


def keyed(directory: Path, before: str) -> World:
    """A table whose keys are text, archived and deleted."""
    world = World(directory, KEYED.format(before))
    world.tables[0]["query"] = "SELECT ref, timestamp AS time FROM trades"
    insert = "INSERT INTO trades(ref, timestamp, symbol) VALUES (?, ?, 'SPY')"
    for ref, time in (("a", "2026-06-01"), ("b", "2026-06-02"), ("new", "2026-11-22")):
        world.run_sql(insert, ref, time)
    world.archive(delete=True)
    return world


def compared_by(world: World, collation: str) -> None:
    with world.live() as con:
        con.executescript("ALTER TABLE trades RENAME TO old;" + KEYED.format(collation))
        con.executescript("INSERT INTO trades SELECT * FROM old; DROP TABLE old;")


@pytest.mark.parametrize(("before", "now"), [("", "COLLATE NOCASE"), ("COLLATE NOCASE", ""), ("", "COLLATE RTRIM")])
def test_a_key_that_compares_otherwise_than_in_the_archive_is_refused(tmp_path: Path, before: str, now: str) -> None:
    world = keyed(tmp_path, before)
    files = {path: path.read_bytes() for path in world.files().values()}
    compared_by(world, now)
    assert world.archive(delete=True)["result"] == "ok", "no row of that month comes"
    world.run_sql("INSERT INTO trades(ref, timestamp, symbol) VALUES ('A', '2026-06-03', 'SPY')")
    with pytest.raises(InputError, match=r"trades_archive_202606.db was written.*column ref compares by") as caught:
        world.archive(delete=True)
    assert "left untouched: the archive and the database" in str(caught.value)
    assert {path: path.read_bytes() for path in world.files().values()} == files
    assert [row[0] for row in world.lives()] == ["new", "A"]


@pytest.mark.parametrize(("before", "now"), [("", "COLLATE NOCASE"), ("COLLATE NOCASE", "")])
def test_either_way_of_comparing_finds_a_key_in_another_month(tmp_path: Path, before: str, now: str) -> None:
    world = keyed(tmp_path, before)
    compared_by(world, now)
    world.run_sql("INSERT INTO trades(ref, timestamp, symbol) VALUES ('A', '2026-07-03', 'SPY')")
    result = world.archive(delete=True)
    assert "1 rows of 202607 are in the archive of another month" in result["problems"][0]
    assert [row[0] for row in world.lives()] == ["new", "A"]
