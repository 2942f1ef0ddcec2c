# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the rows of a damaged database into a new one: whatever a page still holds, whatever pointed to it.

`rows` reads a settled private copy (see `kept_set`), never the original. Tables come from the damaged schema as far as
it holds, else from an earlier, sound copy of the database (a generation); that also tells which of several tables a
page belongs to that nothing points to any more. Without it such rows are in doubt.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from ..core.errors import IntegrityError
from ..core.fsio import fsync_file, private_umask
from . import connect, workbench
from .connect import HEADER_BYTES, Deadline
from .fingerprint import quoted
from .pages import PageFile, guess_page_size
from .trees import Column, Entry, Forest, Shape, Tree, shape_of
from .workbench import ONLY_HERE, READ, SHARED, Layout

DOUBTS = "fluxmaint_doubts"  # the attached database with the doubtful rows of each table
_ENCODINGS = (1, 2, 3)
_SEQUENCE = "sqlite_sequence"
_SYSTEM = ("sqlite_stat", _SEQUENCE)
_MOST_NOTES = 50
# Not wanted, but its pages must not be taken for another table's.
_STATISTICS = Shape([Column(name) for name in "abcdef"], -1, (), "rowid")


@dataclass
class TableDamage:
    """What is wrong with a table's pages.

    Attributes:
        gaps: ranges of keys whose pages are gone or hold something else.
        dropped: rows whose bytes are not a row any more.
        adopted: rows from pages that nothing points to any more.
        rejected: rows that the table's own constraints refuse.
        indexed: how many entries a sound index of the table has, which is how many rows it had; null without one.
    """

    gaps: int = 0
    dropped: int = 0
    adopted: int = 0
    rejected: int = 0
    indexed: Optional[int] = None

    @property
    def any(self) -> bool:
        """Whether rows of the table may be missing or in doubt."""
        return bool(self.gaps or self.dropped or self.adopted or self.rejected)


@dataclass
class Salvaged:
    """A new database with the rows that could be read.

    Attributes:
        doubts: the database with `doubts(name, row)`: the doubtful rows by table and row number.
        tables: what was wrong, by table.
        nowhere: pages with rows that could not be given to any table.
        notes: what an operator should know.
    """

    path: Path
    doubts: Path
    tables: dict[str, TableDamage] = field(default_factory=dict)
    nowhere: int = 0
    notes: list[str] = field(default_factory=list)
    schema_whole: bool = True

    @property
    def complete(self) -> bool:
        """Whether no page with rows is damaged or missing; indexes, free pages or the header may have been."""
        whole = self.schema_whole and not self.nowhere
        return whole and not any(table.any for table in self.tables.values())


def rows(copy: Path, destination: Path, *, generation: Path | None, deadline: Deadline) -> Salvaged:
    """Salvage the rows of the settled private file `copy` into the new database `destination`.

    `copy` is not changed; a second copy of it is made beside `destination` and removed again.

    Args:
        generation: an earlier, sound copy of the same database.

    Raises:
        IntegrityError: no schema can be read, and there is no generation to take it from.
        TimeoutExceeded: the deadline has passed.
    """
    bench = destination.with_name(destination.name + "-bench")
    doubts = destination.with_name(destination.name + "-doubts")
    with private_umask():
        shutil.copyfile(copy, bench)
        with open(bench, "rb", buffering=0) as stream:
            layout = _layout(stream.fileno(), generation)
            pages = PageFile(stream.fileno(), layout.page_size, layout.reserved)
            salvaged = Salvaged(destination, doubts, notes=list(layout.doubts))
            forest = Forest(pages, lambda: deadline.check("looking at the pages of the damaged database"))
            deadline.check("copying the damaged database")
            forest.free(layout.first_free)
            if not forest.free_whole:
                salvaged.notes.append("the list of free pages is damaged: deleted rows may be among the doubtful")
            schema = _Schema.read(forest, layout, generation, salvaged.notes)
            salvaged.schema_whole = schema.whole
            for entry, shape in schema.with_trees():
                forest.walk(entry, shape)
            forest.settle()
            salvaged.nowhere = forest.adopt(all_known=schema.whole)
            _note_indexes(forest, salvaged.notes)
            named = workbench.build(bench, forest, layout)
        try:
            _fill(salvaged, schema, named, bench, layout, generation, deadline)
            _count_damage(salvaged, forest)
            fsync_file(destination)
        finally:
            bench.unlink()
    return salvaged


def _layout(descriptor: int, generation: Path | None) -> Layout:
    """How to read the file; where its header cannot be right, as the generation says, else as the pages look."""
    header = os.pread(descriptor, HEADER_BYTES, 0)
    parsed = connect.parse_header(header)
    size = parsed.page_size if parsed else 0
    sound = (
        parsed is not None
        and size in {1 << power for power in range(9, 17)}
        and size - header[20] >= 480
        and header[21:24] == bytes([64, 32, 32])
        and int.from_bytes(header[56:60], "big") in _ENCODINGS
    )
    known = generation.open("rb").read(HEADER_BYTES) if generation is not None else None
    doubts = []
    if not sound:
        doubts.append("the header of the database is damaged")
        size = 0
    if known is not None:
        theirs = connect.parse_header(known)
        other = theirs is not None and theirs.page_size != size
        # A VACUUM can change it, a flipped bit too.
        if theirs is not None and other and (not sound or guess_page_size(descriptor) == theirs.page_size):
            size = theirs.page_size
            doubts += ["the page size is that of the generation"] if sound else []
        if sound and (header[20], header[56:60]) != (known[20], known[56:60]):
            doubts.append("the header does not name the encoding of the generation, which never changes")
    trusted = known if known is not None else header if sound else None
    first_free = int.from_bytes(header[32:36], "big") if sound else 0
    return Layout(
        page_size=size or guess_page_size(descriptor),
        reserved=trusted[20] if trusted else 0,
        encoding=int.from_bytes(trusted[56:60], "big") if trusted else 1,
        first_free=first_free,
        application_id=_signed((header if sound else trusted or bytes(HEADER_BYTES))[68:72]),
        user_version=_signed((header if sound else trusted or bytes(HEADER_BYTES))[60:64]),
        doubts=tuple(doubts),
    )


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


@dataclass
class _Schema:
    """The entries to work with, each table with its shape; `whole` when nothing of the schema is in doubt."""

    entries: list[Entry]
    shapes: dict[str, Shape]
    whole: bool

    @classmethod
    def read(cls, forest: Forest, layout: Layout, generation: Path | None, notes: list[str]) -> _Schema:
        """The damaged schema, mended with that of the generation. Raises IntegrityError when there is none."""
        own, whole = forest.read_schema(layout.codec)
        theirs = _entries_of(generation)
        chosen: dict[tuple[str, str], Entry] = {}
        shapes: dict[str, Shape] = {}
        for found in own:
            known = next((other for other in theirs if _key(other) == _key(found)), None)
            entry, shape = found, _proven(found)
            if found.type == "table" and found.root and shape is None:
                whole = False
                if known is None:
                    notes.append(f"the definition of table {found.name!r} is damaged; it is left out")
                    continue
                entry, shape = known, _proven(known)
            if known is not None and known.sql != found.sql:
                notes.append(f"the definition of {entry.type} {entry.name!r} differs from that of the generation")
            chosen[_key(entry)] = entry
            if shape is not None:
                shapes[entry.name] = shape
        if not whole:
            notes.append("the schema is damaged" + ("; what is missing is taken from the generation" if theirs else ""))
            taken = {entry.root for entry in chosen.values()}
            for entry in theirs:
                if _key(entry) not in chosen and (not entry.root or entry.root not in taken):
                    chosen[_key(entry)] = entry
                    shape = _proven(entry)
                    if shape is not None:
                        shapes[entry.name] = shape
        if not shapes:
            raise IntegrityError(
                "its schema cannot be read, and there is no generation to take it from",
                untouched="the database",
                remedy="give the age identity, so that the newest generation can help",
            )
        return cls(list(chosen.values()), shapes, whole)

    def with_trees(self) -> list[tuple[Entry, Optional[Shape]]]:
        """Tables before indexes; each has a root."""
        trees = [entry for entry in self.entries if entry.root > 1 and entry.type in ("table", "index")]
        trees.sort(key=lambda entry: entry.type != "table")
        return [
            (entry, self.shapes.get(entry.name) if entry.type == "table" else None)
            for entry in trees
            if entry.type == "index" or entry.name in self.shapes
        ]

    def statements(self, *, before_rows: bool) -> list[tuple[str, str]]:
        """Names and SQL of what to make before the rows come, and of what to make afterwards."""
        found = []
        for entry in self.entries:
            if not entry.sql or entry.name.startswith(_SYSTEM):
                continue
            unique = entry.type == "index" and entry.sql.upper().startswith("CREATE UNIQUE")
            first = (entry.type == "table" and entry.name in self.shapes) or unique
            if first == before_rows and not (entry.type == "table" and not first):
                found.append((entry, first))
        order = ("table", "index", "view", "trigger")
        found.sort(key=lambda item: order.index(item[0].type))
        return [(entry.name, entry.sql) for entry, _first in found]

    @property
    def virtual(self) -> list[Entry]:
        """Virtual tables: their content is in ordinary ones."""
        return [entry for entry in self.entries if entry.type == "table" and not entry.root and entry.sql]


def _left_out(entry: Entry) -> bool:
    """Statistics of the planner: no content."""
    return entry.name.startswith("sqlite_stat")


def _key(entry: Entry) -> tuple[str, str]:
    return entry.type, entry.name


def _entries_of(generation: Path | None) -> list[Entry]:
    if generation is None:
        return []
    with connect.reading(generation, immutable=True) as con:
        found = con.execute("SELECT type, name, tbl_name, coalesce(rootpage, 0), coalesce(sql, '') FROM sqlite_master")
        return [Entry(*row) for row in found]


def _proven(entry: Entry) -> Optional[Shape]:
    """The shape of an ordinary table whose SQL makes a table of its name; None for anything else."""
    if entry.type != "table" or not entry.root:
        return None
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as con:
        try:
            if _left_out(entry):
                return _STATISTICS
            if entry.name.startswith("sqlite_"):
                if entry.name != _SEQUENCE:
                    return None
                con.execute("CREATE TABLE x(a INTEGER PRIMARY KEY AUTOINCREMENT)")
            else:
                con.execute(entry.sql)
            made = [name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            shape = shape_of(con, entry.name) if entry.name in made else None
        except (sqlite3.Error, sqlite3.Warning, ValueError):
            return None
    return shape if shape and shape.columns else None


def _note_indexes(forest: Forest, notes: list[str]) -> None:
    damaged = [tree.entry.name for tree in forest.trees if tree.shape is None and tree.damaged]
    notes.extend(f"index {name!r} is damaged; it is made anew from the rows" for name in damaged)


def _fill(
    salvaged: Salvaged,
    schema: _Schema,
    named: dict[str, Tree],
    bench: Path,
    layout: Layout,
    generation: Path | None,
    deadline: Deadline,
) -> None:
    con = sqlite3.connect(connect.uri(salvaged.path), uri=True, isolation_level=None)
    try:
        deadline.bind(con)
        con.execute(f"PRAGMA page_size = {layout.page_size}")
        con.execute(f"PRAGMA encoding = '{workbench.ENCODINGS[layout.encoding]}'")
        con.execute(f"PRAGMA application_id = {layout.application_id}")
        con.execute(f"PRAGMA user_version = {layout.user_version}")
        con.execute("PRAGMA synchronous = OFF")  # it is brought to the disk as a whole
        con.execute("ATTACH ? AS bench", (connect.uri(bench, mode="ro", immutable="1"),))
        con.execute(f"ATTACH ? AS {DOUBTS}", (str(salvaged.doubts),))
        con.execute(f"CREATE TABLE {DOUBTS}.doubts(name TEXT, row INTEGER, PRIMARY KEY(name, row)) WITHOUT ROWID")
        if generation is not None:
            con.execute("ATTACH ? AS generation", (connect.uri(generation, mode="ro", immutable="1"),))
        for name, sql in schema.statements(before_rows=True):
            _make(con, name, sql, salvaged.notes)
        present = {name for (name,) in con.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")}
        theirs = {entry.name for entry in _entries_of(generation) if entry.type == "table" and entry.root}
        for letter in (READ, ONLY_HERE, SHARED):
            for bench_name, tree in named.items():
                table = tree.entry.name
                if bench_name.startswith(letter) and table in present and table != _SEQUENCE:
                    copy = _Copy(con, bench_name, tree, salvaged, table in theirs)
                    with connect.sqlite_errors(salvaged.path):
                        copy.run(letter)
        counters = [name for name, tree in named.items() if tree.entry.name == _SEQUENCE and name[0] == READ]
        _continue_counters(con, [f"bench.{name}" for name in counters], generation is not None and _SEQUENCE in theirs)
        for name, sql in schema.statements(before_rows=False):
            _make(con, name, sql, salvaged.notes)
        _add_virtual(con, schema.virtual)
    finally:
        con.close()
    del salvaged.notes[_MOST_NOTES:]


def _make(con: sqlite3.Connection, name: str, sql: str, notes: list[str]) -> None:
    try:
        con.execute(sql)
    except (sqlite3.Error, sqlite3.Warning) as error:
        if str(error) == "interrupted":
            raise connect.engine_error(sqlite3.OperationalError("interrupted"), Path(name)) from None
        notes.append(f"{name!r} cannot be made again: {error!s:.200}")


def _continue_counters(con: sqlite3.Connection, read: Sequence[str], in_generation: bool) -> None:
    """AUTOINCREMENT goes on after the largest number that any source knows: none is given out twice."""
    if not con.execute("SELECT 1 FROM main.sqlite_master WHERE name = ?", (_SEQUENCE,)).fetchone():
        return
    sources = ["SELECT name, seq FROM main.sqlite_sequence"]
    sources += [f"SELECT c0, c1 FROM {name}" for name in read]  # noqa: S608 - names of this program
    sources += ["SELECT name, seq FROM generation.sqlite_sequence"] if in_generation else []
    largest = con.execute(
        f"SELECT name, max(seq) FROM ({' UNION ALL '.join(sources)}) WHERE typeof(seq) = 'integer'"  # noqa: S608
        " AND name IN (SELECT name FROM main.sqlite_master) GROUP BY name"
    ).fetchall()
    con.execute("DELETE FROM main.sqlite_sequence")
    con.executemany("INSERT INTO main.sqlite_sequence(name, seq) VALUES (?, ?)", largest)


def _add_virtual(con: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    """Virtual tables as entries alone: making them would make their content anew, and empty."""
    if not entries:
        return
    con.execute("PRAGMA writable_schema = ON")
    con.executemany(
        "INSERT INTO sqlite_master(type, name, tbl_name, rootpage, sql) VALUES ('table', ?1, ?1, 0, ?2)",
        [(entry.name, entry.sql) for entry in entries],
    )
    con.execute("PRAGMA writable_schema = RESET")


class _Copy:
    """Copies the rows of one table of the workbench."""

    def __init__(
        self, con: sqlite3.Connection, source: str, tree: Tree, salvaged: Salvaged, in_generation: bool
    ) -> None:
        self._con = con
        self._tree = tree
        self._table = tree.entry.name
        self._damage = salvaged.tables.setdefault(self._table, TableDamage())
        self._in_generation = in_generation
        self._notes = salvaged.notes
        shape = tree.require_shape()
        self._target = f"main.{quoted(self._table)}"
        self._source = f"bench.{quoted(source)}"
        pairs = [(quoted(c.name), f"c{index}") for index, c in enumerate(shape.columns) if not c.generated]
        if shape.rowid and shape.key < 0:
            pairs.insert(0, (shape.rowid, "rowid"))
        self._columns = ", ".join(name for name, _source in pairs)
        self._values = ", ".join(f"s.{source}" for _name, source in pairs)
        self._count = len(pairs)
        self._equal = same_row("s", "g", [(source, name) for name, source in pairs if name != shape.rowid])
        self._rowid = shape.rowid
        # Without a name for row numbers, or without any, rows are found again by the key.
        keys = [f"g.{quoted(name)} IS s.c{index}" for index, name in enumerate(shape.primary)]
        self._join = " AND ".join(keys) or f"g.{shape.rowid or 'rowid'} = s.rowid"

    def run(self, letter: str) -> None:
        """Copy: what was reached, all; what fits here alone, in doubt; what fits elsewhere too, when it is proven."""
        if letter == READ:
            self._insert(f"SELECT {self._values} FROM {self._source} s NOT INDEXED")  # noqa: S608 - quoted
            if self._tree.by_rowid:
                self._con.executemany(
                    f"INSERT OR IGNORE INTO {DOUBTS}.doubts VALUES (?, ?)",  # noqa: S608 - a constant
                    ((self._table, key) for key in sorted(self._tree.suspects)),
                )
            return
        other = f"generation.{quoted(self._table)}"
        exists = f"EXISTS (SELECT 1 FROM {other} g WHERE {self._join} AND {self._equal})"  # noqa: S608 - quoted
        if letter == SHARED and not self._in_generation:
            return
        condition = f"WHERE {exists}" if letter == SHARED else ""
        before = self._rows()
        self._insert(f"SELECT {self._values} FROM {self._source} s {condition}")  # noqa: S608 - quoted
        self._damage.adopted += self._rows() - before
        if letter == ONLY_HERE and self._tree.by_rowid:
            self._con.execute(
                f"INSERT OR IGNORE INTO {DOUBTS}.doubts SELECT ?, rowid FROM {self._source}",  # noqa: S608
                (self._table,),
            )

    def _rows(self) -> int:
        return int(self._con.execute(f"SELECT count(*) FROM {self._target}").fetchone()[0])  # noqa: S608 - quoted

    def _insert(self, select: str) -> None:
        """Insert what the table accepts, in one statement; row by row only where that fails."""
        con = self._con
        before = self._rows()
        [(offered,)] = con.execute(f"SELECT count(*) FROM ({select})")  # noqa: S608 - built above
        con.execute("BEGIN")
        try:
            con.execute(f"INSERT OR IGNORE INTO {self._target}({self._columns}) {select}")
        except sqlite3.DatabaseError as error:
            con.execute("ROLLBACK")
            if str(error) == "interrupted":
                raise
            con.execute("BEGIN")
            self._one_by_one(select)
        con.execute("COMMIT")
        self._damage.rejected += int(offered) - (self._rows() - before)

    def _one_by_one(self, select: str) -> None:
        marks = ", ".join("?" * self._count)
        insert = f"INSERT OR IGNORE INTO {self._target}({self._columns}) VALUES ({marks})"  # noqa: S608
        self._con.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        try:
            for row in self._con.execute(select):
                with contextlib.suppress(sqlite3.IntegrityError, sqlite3.OperationalError, UnicodeEncodeError):
                    self._con.execute(insert, row)
        except sqlite3.DatabaseError as error:
            if str(error) == "interrupted":
                raise
            self._notes.append(f"reading table {self._table!r} ended early: {error!s:.200}")
        finally:
            self._con.text_factory = str


def same_row(one: str, other: str, columns: Iterable[tuple[str, str]]) -> str:
    """SQL that is true when two rows hold the same values of the same types, whatever their collations."""
    parts = [
        f"typeof({one}.{left}) = typeof({other}.{right}) AND {one}.{left} IS {other}.{right} COLLATE BINARY"
        for left, right in columns
    ]
    return "(" + (" AND ".join(parts) or "1") + ")"


def _count_damage(salvaged: Salvaged, forest: Forest) -> None:
    for tree in forest.trees:
        if tree.shape is not None and tree.entry.name in salvaged.tables:
            damage = salvaged.tables[tree.entry.name]
            damage.gaps, damage.dropped = len(tree.gaps), tree.dropped
        elif tree.shape is None and not tree.damaged and tree.entry.table in salvaged.tables:
            # A partial index has fewer entries than the table rows, so the largest one tells most.
            damage = salvaged.tables[tree.entry.table]
            damage.indexed = max(damage.indexed or 0, tree.cells)
