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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.core.clock import Clock
from fluxmaint.core.errors import IntegrityError, PreconditionError, TimeoutExceeded
from fluxmaint.sqlite import salvage, salvage_compare
from fluxmaint.sqlite.connect import Deadline
from fluxmaint.sqlite.pages import signed_varint, varint_bytes
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


@contextlib.contextmanager
def changing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose changes are committed at the end."""
    con = sqlite3.connect(path)
    try:
        with con:
            yield con
    finally:
        con.close()


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
    with changing(world.live) as con:
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
    for _number in range(80):
        bad = world.copy()
        data = bytearray(bad.read_bytes())
        for _flip in range(chance.choice((1, 1, 3, 20))):
            data[chance.randrange(size)] ^= 1 << chance.randrange(8)
        bad.write_bytes(data)
        salvaged, found = world.salvage(bad)
        require_honest(world, salvaged, found, exact=False)
        for path in tmp_path.glob("bad-*"):
            path.unlink()


@pytest.mark.parametrize(
    "options",
    [
        {"page_size": 1024, "encoding": "UTF-16le"},
        {"page_size": 512, "encoding": "UTF-16be", "vacuum": 1},
        {"page_size": 4096, "vacuum": 2},
        {"page_size": 65536},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_other_forms_of_the_file_are_read_the_same_way(tmp_path: Path, options: dict[str, Any]) -> None:
    world = build(tmp_path, **options)
    size = options["page_size"]
    pages = world.live.stat().st_size // size
    for page in sorted({1, 2, 3, pages // 2, pages}):
        bad = world.copy()
        zero(bad, page, page_size=size)
        salvaged, found = world.salvage(bad)
        require_honest(world, salvaged, found, exact=page == 1)
    sound = world.copy()
    salvaged, found = world.salvage(sound)
    assert salvaged.complete
    for table in TABLES:
        assert content(salvaged.path, table) == content(world.live, table)


def test_the_whole_schema_comes_back_and_counters_go_on(damaged: Damaged) -> None:
    salvaged, _found = damaged.salvage(damaged.copy())
    question = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY 1, 2"
    schemas = []
    for path in (damaged.live, salvaged.path):
        with contextlib.closing(sqlite3.connect(path)) as con:
            schemas.append((con.execute(question).fetchall(), con.execute("PRAGMA user_version").fetchone()))
    assert schemas[0] == schemas[1]
    with changing(salvaged.path) as con:
        assert con.execute("SELECT count(*) FROM winners").fetchone() == (148,)
        assert con.execute("SELECT twice, typeof(price) FROM quotes WHERE id = 4").fetchone() == (8, "real")
        assert con.execute("SELECT value FROM settings WHERE name = 'newest'").fetchone() == (
            149,
        )  # no trigger has run
        added = con.execute("INSERT INTO trades(timestamp) VALUES ('later')").lastrowid
        assert added == 150


def test_a_number_that_was_given_out_is_not_given_out_again(damaged: Damaged) -> None:
    with changing(damaged.live) as con:
        con.execute("DELETE FROM trades WHERE id > 100")
        root = con.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_sequence'").fetchone()[0]
    bad = damaged.copy()
    zero(bad, root)
    salvaged, _found = damaged.salvage(bad)
    with changing(salvaged.path) as con:
        assert con.execute("INSERT INTO trades(timestamp) VALUES ('later')").lastrowid == 130  # after the generation's


def test_truncated_files_give_the_rows_before_the_cut(damaged: Damaged) -> None:
    size = damaged.live.stat().st_size
    for part in (0.95, 0.6, 0.3):
        bad = damaged.copy()
        with open(bad, "r+b") as stream:
            stream.truncate(int(size * part))
        salvaged, found = damaged.salvage(bad)
        require_honest(damaged, salvaged, found, exact=True)
        assert sum(told.rows for told in found.values()) > 0


def test_runs_of_zero_pages_and_a_wrong_header(damaged: Damaged) -> None:
    pages = damaged.live.stat().st_size // PAGE
    for first, count in ((5, 10), (pages // 2, pages // 4), (2, pages - 2)):
        bad = damaged.copy()
        zero(bad, first, count)
        salvaged, found = damaged.salvage(bad)
        require_honest(damaged, salvaged, found, exact=False)
    for offset, data in ((0, b"garbage!"), (16, b"\x40\x00"), (56, b"\0\0\0\2"), (20, b"\x20"), (28, b"\0\0\0\3")):
        bad = damaged.copy()
        write(bad, offset, data)
        salvaged, found = damaged.salvage(bad)
        require_honest(damaged, salvaged, found, exact=True)
        assert all(told.lost == 0 for told in found.values()), offset


def test_without_a_generation_the_header_is_found_again_and_orphans_are_in_doubt(damaged: Damaged) -> None:
    bad = damaged.copy()
    write(bad, 0, b"garbage!")
    salvaged, found = damaged.salvage(bad, generation=False)
    assert "the header of the database is damaged" in salvaged.notes
    assert found["trades"] == TableRows(149, None, 149, 0, 0, None)
    with contextlib.closing(sqlite3.connect(damaged.live)) as con:
        [(root,)] = con.execute("SELECT rootpage FROM sqlite_master WHERE name = 'trades'")
    bad = damaged.copy()
    zero(bad, root)
    salvaged, found = damaged.salvage(bad, generation=False)
    assert found["trades"].rows == 149
    assert found["trades"].doubtful == 149
    assert found["trades"].saved == 0
    assert found["trades"].lost == 0  # the index counts them


def test_without_any_schema_there_is_a_clear_refusal(damaged: Damaged) -> None:
    bad = damaged.copy()
    zero(bad, 1)
    with pytest.raises(IntegrityError, match="its schema cannot be read"):
        damaged.salvage(bad, generation=False)


def test_pages_of_the_schema_are_no_rows_of_a_table_that_looks_like_it(damaged: Damaged) -> None:
    with changing(damaged.live) as con:
        con.execute("CREATE TABLE entries(type TEXT, name TEXT, tbl TEXT, root INT, sql TEXT)")
        con.execute("INSERT INTO entries SELECT 'mine', symbol, symbol, id, timestamp FROM trades")
        for number in range(60):
            con.execute(f"CREATE TABLE more_{number}(a, b, c)")
        con.execute("CREATE TABLE three(a TEXT, b TEXT, c TEXT)")
        con.execute("INSERT INTO three(rowid, a, b, c) SELECT id + 1000, 'mine', symbol, timestamp FROM trades")
        con.execute("ANALYZE")
        roots = dict(con.execute("SELECT name, rootpage FROM sqlite_master WHERE name IN ('entries', 'three')"))
    bad = damaged.copy()
    for root in roots.values():
        zero(bad, root)
    for generation in (True, False):
        salvaged, found = damaged.salvage(shutil.copyfile(bad, damaged.copy()), generation=generation)
        for table in roots:
            assert {row[1] for row in content(salvaged.path, table)} == {"mine"}
        assert found["entries"].rows == 149
        assert found["entries"].doubtful == 149
    # And the schema's own inner page gone: what nobody knows of is not guessed.
    zero(bad, 1)
    salvaged, found = damaged.salvage(bad)
    assert found["trades"].lost == 0
    assert "entries" not in found


def test_an_empty_file_has_lost_everything(damaged: Damaged) -> None:
    bad = damaged.copy()
    bad.write_bytes(b"")
    _salvaged, found = damaged.salvage(bad)
    assert found["trades"] == TableRows(0, 129, 0, 129, 0, 0)


def test_deleted_rows_do_not_come_back(damaged: Damaged) -> None:
    """Free pages keep what was deleted; also where the list of them is damaged it is never certain."""
    with changing(damaged.live) as con:
        con.execute("PRAGMA secure_delete = OFF")
        con.execute("CREATE TABLE old(id INTEGER PRIMARY KEY, timestamp TEXT NOT NULL, symbol TEXT, pnl REAL)")
        con.execute("INSERT INTO old SELECT id + 1000, timestamp, 'OLD', pnl FROM trades")
        con.commit()
        con.execute("DROP TABLE old")
        [(root,)] = con.execute("SELECT rootpage FROM sqlite_master WHERE name = 'trades'")
        assert con.execute("PRAGMA freelist_count").fetchone()[0] > 10
    bad = damaged.copy()
    zero(bad, root)
    salvaged, _found = damaged.salvage(bad)
    assert set(content(salvaged.path, "trades")) == set(content(damaged.live, "trades"))
    for generation in (True, False):
        bad = damaged.copy()
        zero(bad, root)
        write(bad, 32, bytes(8))  # and now nothing says that the pages are free
        salvaged, found = damaged.salvage(bad, generation=generation)
        told = found["trades"]
        assert told.rows > 149
        assert told.doubtful >= told.rows - 129  # what the generation has is certain, nothing else
        assert told.newer in (0, None)
        assert told.saved == (128 if generation else 0)


def test_a_page_that_two_tables_claim_belongs_to_neither_by_right(damaged: Damaged) -> None:
    """A pointer of one table leads into another one of the same shape: its rows must not move over."""
    with changing(damaged.generation) as con:
        con.execute("CREATE TABLE other(id INTEGER PRIMARY KEY, timestamp TEXT, symbol TEXT, pnl REAL)")
        con.execute("INSERT INTO other SELECT id, timestamp, 'QQQ', pnl FROM trades")
    shutil.copyfile(damaged.generation, damaged.live)
    with contextlib.closing(sqlite3.connect(damaged.live)) as con:
        roots = dict(con.execute("SELECT name, rootpage FROM sqlite_master WHERE name IN ('trades', 'other')"))
    data = bytearray(damaged.live.read_bytes())
    start, other = ((roots[name] - 1) * PAGE for name in ("trades", "other"))
    at = start + int.from_bytes(data[start + 12 : start + 14], "big")
    theirs = other + int.from_bytes(data[other + 12 : other + 14], "big")
    data[at : at + 4] = data[theirs : theirs + 4]
    for generation in (True, False):
        bad = damaged.copy()
        bad.write_bytes(data)
        salvaged, found = damaged.salvage(bad, generation=generation)
        symbols = {row[3] for row in content(salvaged.path, "trades")}
        assert "QQQ" not in symbols
        assert {row[3] for row in content(salvaged.path, "other")} <= {"QQQ"}
        if generation:
            assert found["other"].lost == 0


def test_a_pointer_that_is_there_twice_puts_one_page_in_doubt_and_loses_none(damaged: Damaged) -> None:
    with contextlib.closing(sqlite3.connect(damaged.live)) as con:
        [(root,)] = con.execute("SELECT rootpage FROM sqlite_master WHERE name = 'trades'")
    data = bytearray(damaged.live.read_bytes())
    start = (root - 1) * PAGE
    first, second = (start + int.from_bytes(data[start + at : start + at + 2], "big") for at in (12, 14))
    rows_of_first, _end = signed_varint(data, first + 4)  # they are numbered from 1 on
    data[first : first + 4] = data[second : second + 4]
    bad = damaged.copy()
    bad.write_bytes(data)
    _salvaged, found = damaged.salvage(bad, generation=False)
    assert found["trades"] == TableRows(149, None, 149 - rows_of_first, 0, rows_of_first, None)


def test_a_flipped_value_is_doubtful_and_not_merged(damaged: Damaged) -> None:
    bad = damaged.copy()
    data = bad.read_bytes()
    stamp = b"2026-11-03T05:00:00ZSPY"
    assert data.count(stamp) == 1
    bad.write_bytes(data.replace(stamp, b"2026-11-03T05:00:00ZSQY"))
    salvaged, found = damaged.salvage(bad)
    assert found["trades"].doubtful == 2  # this one, and number 5, which the service has changed
    merged = damaged.top / "merged.db"
    doubts = Doubts.of(salvaged)
    added, left_out = salvage_compare.merge(
        damaged.generation, salvaged.path, merged, doubts=doubts, deadline=deadline()
    )
    assert left_out == {}
    assert added == {"trades": 20, "quotes": 20, "settings": 6, "notes": 2, "odd 'name'": 6}
    before, now = content(damaged.generation, "trades"), content(merged, "trades")
    assert now[: len(before)] == before
    assert len(now) == 149
    assert ("newest", "newest", 129) in content(merged, "settings")  # the trigger has not run again
    with contextlib.closing(sqlite3.connect(merged)) as con:
        assert con.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone() == (1,)
        assert con.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_rows_that_do_not_fit_together_are_not_merged(damaged: Damaged) -> None:
    with changing(damaged.live) as con:
        con.execute("DELETE FROM \"odd 'name'\" WHERE word = 'word 3'")
        con.execute("INSERT INTO \"odd 'name'\" VALUES ('word 3', 1)")
    salvaged, _found = damaged.salvage(damaged.copy())
    merged = damaged.top / "merged.db"
    with pytest.raises(PreconditionError, match="do not fit to the generation: UNIQUE"):
        salvage_compare.merge(
            damaged.generation, salvaged.path, merged, doubts=Doubts.of(salvaged), deadline=deadline()
        )
    assert not merged.exists()


def test_rows_that_the_table_itself_refuses_are_counted(damaged: Damaged) -> None:
    with changing(damaged.live) as con:
        con.execute("PRAGMA ignore_check_constraints = ON")
        con.execute("UPDATE \"odd 'name'\" SET \"select\" = -1 WHERE word = 'word 9'")
    salvaged, found = damaged.salvage(damaged.copy())
    assert salvaged.tables["odd 'name'"].rejected == 1
    assert found["odd 'name'"].lost == 1
    assert not salvaged.complete


def test_full_text_tables_keep_their_content(tmp_path: Path) -> None:
    path = tmp_path / "live.db"
    with changing(path) as con:
        con.execute("CREATE VIRTUAL TABLE news USING fts5(title, body)")
        con.executemany("INSERT INTO news VALUES (?, ?)", [(f"title {n}", f"market word{n}") for n in range(300)])
    out = tmp_path / "out.db"
    salvage.rows(path, out, generation=None, deadline=deadline())
    with contextlib.closing(sqlite3.connect(out)) as con:
        assert con.execute("SELECT title FROM news WHERE news MATCH 'word77'").fetchall() == [("title 77",)]
        con.execute("INSERT INTO news(news) VALUES ('integrity-check')")


def test_time_is_bounded(damaged: Damaged) -> None:
    with pytest.raises(TimeoutExceeded):
        salvage.rows(damaged.copy(), damaged.top / "out", generation=None, deadline=deadline(1e-9))


def test_numbers_in_the_file_are_read_as_they_are_written() -> None:
    for value in (0, 1, 127, 128, 16383, 16384, 1 << 31, (1 << 55) + 3, 1 << 56, (1 << 63) - 1, -1, -(1 << 63)):
        data = varint_bytes(value)
        assert signed_varint(data, 0) == (value, len(data))
        assert len(data) <= 9


def test_rows_whose_overflow_pages_are_not_theirs_alone_are_in_doubt_or_lost(damaged: Damaged) -> None:
    """A value of 1500 bytes goes on in three pages of 512; each begins with the number of the next one."""
    data = damaged.live.read_bytes()
    chains = []
    for number in (143, 130):
        filler = bytes([number + 1])
        chain = [page for page in range(len(data) // PAGE) if data[page * PAGE + 4 : page * PAGE + 104] == filler * 100]
        chain.sort(key=lambda page: following(data, page) == 0)
        chains.append(chain)
    [one, other] = chains
    last = one[-1]
    before_last = next(page for page in one if following(data, page) == last + 1)
    # Another row's end: both rows look whole, and one of them is not.
    bad = damaged.copy()
    write(bad, before_last * PAGE, (other[-1] + 1).to_bytes(4, "big"))
    _salvaged, found = damaged.salvage(bad)
    assert found["notes"] == TableRows(11, 9, 9, 0, 2, 0)
    # Nothing but zeros at the end: whole by its form.
    bad = damaged.copy()
    zero(bad, last + 1)
    _salvaged, found = damaged.salvage(bad)
    assert found["notes"] == TableRows(11, 9, 9, 0, 1, 1)
    # A chain that goes on where it should end.
    bad = damaged.copy()
    write(bad, last * PAGE, (other[-1] + 1).to_bytes(4, "big"))
    _salvaged, found = damaged.salvage(bad)
    assert found["notes"] == TableRows(10, 9, 9, 0, 0, 1)


def following(data: bytes, page: int) -> int:
    """The number of the next page of a chain, where `page` counts from 0; 0 at its end."""
    return int.from_bytes(data[page * PAGE : page * PAGE + 4], "big")


def test_a_row_whose_lengths_do_not_add_up_is_lost_and_not_read_shifted(damaged: Damaged) -> None:
    data = damaged.live.read_bytes()
    stamp = b"2026-11-07T05:00:00Z"  # of number 149
    record = b"\x05\x00\x35\x13\x02" + stamp  # null, 20 letters, 3 letters, a number of 2 bytes
    assert data.count(record) == 1
    bad = damaged.copy()
    bad.write_bytes(data.replace(record, record.replace(b"\x13", b"\x15")))
    salvaged, found = damaged.salvage(bad)
    assert (found["trades"].rows, found["trades"].newer) == (148, 19)
    assert salvaged.tables["trades"].dropped == 1
