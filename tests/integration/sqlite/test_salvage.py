# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Salvage of databases that are really damaged: every page once, every byte of some pages, and what disks do.

Whatever happens to the file, what is told about the rows must be true: a row counts as saved only when the generation
has it like that, and what the salvage holds and the service never wrote is called doubtful.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.core.clock import Clock
from fluxmaint.sqlite import salvage, salvage_compare
from fluxmaint.sqlite.connect import Deadline
from fluxmaint.sqlite.salvage_compare import Doubts, TableRows

PAGE = 512
TABLES = ("trades", "quotes", "settings", "notes", "odd 'name'")
SCHEMA = """
CREATE TABLE trades(id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT NOT NULL, symbol TEXT, pnl REAL);
CREATE INDEX trades_by_time ON trades(timestamp);
CREATE TABLE quotes(id INTEGER PRIMARY KEY, price REAL, size INTEGER, venue TEXT, twice AS (size * 2));
CREATE TABLE settings(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE notes(id INTEGER PRIMARY KEY, body BLOB);
CREATE TABLE "odd 'name'"(word TEXT UNIQUE, "select" INTEGER CHECK("select" >= 0));
CREATE TRIGGER counted AFTER INSERT ON trades BEGIN UPDATE settings SET value = NEW.id WHERE name = 'newest'; END;
CREATE VIEW winners AS SELECT * FROM trades WHERE pnl > 0;
"""


@dataclass
class Damaged:
    """A database as it was (`live`), an earlier copy of it (`generation`), and room for a damaged one."""

    top: Path
    generation: Path
    live: Path
    number: int = 0

    def copy(self) -> Path:
        self.number += 1
        path = self.top / f"bad-{self.number}.db"
        shutil.copyfile(self.live, path)
        return path

    def salvage(self, bad: Path, *, generation: bool = True) -> tuple[salvage.Salvaged, dict[str, TableRows]]:
        out = bad.with_suffix(".rows")
        chosen = self.generation if generation else None
        salvaged = salvage.rows(bad, out, generation=chosen, deadline=deadline())
        doubts = Doubts.of(salvaged)
        if generation:
            found = salvage_compare.against_generation(out, self.generation, doubts=doubts, deadline=deadline())
        else:
            found = salvage_compare.by_counts(out, None, salvaged.tables, doubts=doubts)
        return salvaged, found


def deadline(seconds: float = 60) -> Deadline:
    return Deadline(Clock(), seconds, "test")


def make(path: Path, *, page_size: int = PAGE, mode: str = "delete", encoding: str = "UTF-8", vacuum: int = 0) -> None:
    con = sqlite3.connect(path)
    con.execute(f"PRAGMA page_size = {page_size}")
    con.execute(f"PRAGMA encoding = '{encoding}'")
    con.execute(f"PRAGMA auto_vacuum = {vacuum}")
    con.execute(f"PRAGMA journal_mode = {mode}")
    con.execute("PRAGMA user_version = 7")
    con.executescript(SCHEMA)
    con.execute("INSERT INTO settings VALUES ('newest', 0)")
    fill(con, 1, 130)
    con.execute("DELETE FROM quotes WHERE id BETWEEN 40 AND 70")
    con.commit()
    con.close()


def fill(con: sqlite3.Connection, first: int, last: int) -> None:
    for number in range(first, last):
        stamp = f"2026-11-{number // 24 + 1:02}T{number % 24:02}:00:00Z"
        con.execute("INSERT INTO trades(timestamp, symbol, pnl) VALUES (?, 'SPY', ?)", (stamp, float(number)))
        con.execute("INSERT INTO quotes(price, size, venue) VALUES (?, ?, 'Zürich')", (number / 4, number))
        if number % 3 == 0:
            con.execute("INSERT INTO settings VALUES (?, ?)", (f"s{number:04}", "x" * (number % 90)))
            con.execute("INSERT INTO \"odd 'name'\" VALUES (?, ?)", (f"word {number}", number))
        if number % 13 == 0:
            con.execute("INSERT INTO notes(body) VALUES (?)", (bytes([number % 250 + 1]) * 1500,))


@pytest.fixture
def damaged(tmp_path: Path) -> Damaged:
    return build(tmp_path)


def build(top: Path, **options: Any) -> Damaged:
    world = Damaged(top, top / "generation.db", top / "live.db")
    make(world.generation, **options)
    shutil.copyfile(world.generation, world.live)
    with contextlib.closing(sqlite3.connect(world.live)) as con, con:
        fill(con, 130, 150)
        con.execute("UPDATE trades SET pnl = -1 WHERE id = 5")
    return world


def content(path: Path, table: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as con:
        con.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        key = "name" if table == "settings" else "rowid"
        name = '"' + table + '"'
        try:
            return con.execute(f"SELECT {key}, * FROM {name}").fetchall()
        except sqlite3.OperationalError:
            return []


def zero(path: Path, page: int, count: int = 1, page_size: int = PAGE) -> None:
    write(path, (page - 1) * page_size, bytes(count * page_size))


def write(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def require_honest(world: Damaged, salvaged: salvage.Salvaged, found: dict[str, TableRows], *, exact: bool) -> None:
    """`exact`: a page is gone as a whole, so nothing at all may be there that the service has not written."""
    with contextlib.closing(sqlite3.connect(salvaged.path)) as con:
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for table in TABLES:
        before, live, have = (content(path, table) for path in (world.generation, world.live, salvaged.path))
        told = found[table]
        known = {row[0] for row in before}
        same = set(before) & set(have)
        keys = {row[0] for row in have}
        assert told.rows == len(have)
        assert told.in_generation == len(before)
        assert told.saved == len(same), table
        assert told.lost == len(known - keys), table
        assert told.saved + (told.lost or 0) <= len(before)
        assert told.saved + told.doubtful + (told.newer or 0) == told.rows
        strange = set(have) - set(live) - same
        if exact:
            assert not strange, table
        else:
            # Among rows that the generation knows, what differs is doubtful; newer ones nobody can compare.
            assert len({row for row in strange if row[0] in known}) <= told.doubtful, table


def test_each_page_in_turn_is_lost_and_the_report_is_true(tmp_path: Path) -> None:
    world = build(tmp_path)
    pages = world.live.stat().st_size // PAGE
    assert pages > 80
    all_rows = {table: len(content(world.live, table)) for table in TABLES}
    whole = 0
    for page in range(1, pages + 1):
        bad = world.copy()
        zero(bad, page)
        salvaged, found = world.salvage(bad)
        require_honest(world, salvaged, found, exact=not lies_in_overflow(world.live, page))
        # One page is lost, so never more than the rows of one page.
        missing = {table: all_rows[table] - found[table].rows for table in TABLES}
        assert sum(missing.values()) <= 45, (page, missing)
        assert sum(count > 0 for count in missing.values()) <= 1, (page, missing)
        whole += not any(missing.values())
        for path in tmp_path.glob("bad-*"):
            path.unlink()
    assert whole > pages / 4  # inner pages, roots, indexes, free pages: no row is lost with them


def lies_in_overflow(path: Path, page: int) -> bool:
    """Whether a page holds only the rest of a value: then its row looks whole."""
    with open(path, "rb") as stream:
        stream.seek((page - 1) * PAGE)
        return stream.read(1) == b"\0"


def test_flipped_bits_anywhere_never_make_a_row_certain(tmp_path: Path) -> None:
    world = build(tmp_path)
    size = world.live.stat().st_size
    chance = random.Random(4711)
    for _number in range(150):
        bad = world.copy()
        data = bytearray(bad.read_bytes())
        for _flip in range(chance.choice((1, 1, 3, 20))):
            data[chance.randrange(size)] ^= 1 << chance.randrange(8)
        bad.write_bytes(data)
        salvaged, found = world.salvage(bad)
        require_honest(world, salvaged, found, exact=False)
        for path in tmp_path.glob("bad-*"):
            path.unlink()
