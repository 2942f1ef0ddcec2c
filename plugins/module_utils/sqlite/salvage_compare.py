# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what was salvaged with an earlier, sound copy of the database, and put the two together.

Only what equals the earlier copy is certain. A row that differs may have been changed by the service or by the damage:
it is doubtful, and so is one with a number that was free before among numbers that were taken. Rows behind the largest
number of the copy, from pages that hold, are newer: there is nothing to compare them with.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from ..core.errors import PreconditionError
from ..core.fsio import fsync_file, private_umask
from . import connect
from .connect import Deadline
from .fingerprint import count_rows, ordinary_tables, quoted, schema_digest
from .salvage import Salvaged, TableDamage, same_row
from .trees import Shape, shape_of

_SEQUENCE = "sqlite_sequence"


@dataclass(frozen=True)
class TableRows:
    """Rows of one table of a candidate.

    Attributes:
        rows: in the candidate.
        in_generation: in the generation (by its manifest when only that is known); null when there is none.
        saved: of those, in the candidate with the same content; without a generation, rows that are not in doubt.
        lost: of those, not in the candidate; the service may have deleted some of them itself.
        doubtful: with other content than in the generation, or from pages that nothing points to.
        newer: only in the candidate, behind everything that the generation has; null without one.
    """

    rows: int
    in_generation: Optional[int]
    saved: int
    lost: Optional[int]
    doubtful: int
    newer: Optional[int]

    def as_dict(self) -> dict[str, Any]:
        """The counts as JSON-serialisable data."""
        return asdict(self)


@dataclass(frozen=True)
class Doubts:
    """What is in doubt whatever a comparison says: the database of rows by number, and tables without numbers."""

    database: Optional[Path] = None
    tables: Collection[str] = ()

    @classmethod
    def of(cls, salvaged: Salvaged) -> Doubts:
        """Those of salvaged rows."""
        return cls(salvaged.doubts, {name for name, damage in salvaged.tables.items() if damage.adopted})


def against_generation(
    candidate: Path, generation: Path, *, doubts: Doubts, deadline: Deadline
) -> dict[str, TableRows]:
    """Per table what the candidate has of the generation and beside it; both are sound, private files."""
    with _both(candidate, generation, doubts, deadline) as con:
        shapes = _shapes(generation)
        present = set(ordinary_tables(con))
        found = {}
        for table in sorted((present | set(shapes)) - {_SEQUENCE}):
            if table not in shapes:
                rows = _count(con, f"main.{quoted(table)}")
                doubtful = _count(con, "doubts.doubts", f"name = {_text(table)}")
                found[table] = TableRows(rows, 0, 0, 0, min(rows, doubtful), rows - min(rows, doubtful))
            elif table not in present:
                rows = _count(con, f"generation.{quoted(table)}")
                found[table] = TableRows(0, rows, 0, rows, 0, 0)
            else:
                found[table] = _compare(con, table, shapes[table], table in doubts.tables)
        return found


def by_counts(
    candidate: Path, expected: Mapping[str, int] | None, damages: Mapping[str, TableDamage], *, doubts: Doubts
) -> dict[str, TableRows]:
    """Per table what can be told without a generation: by the rows of a manifest, or of a sound index."""
    with connect.reading(candidate, immutable=True) as con:
        rows = count_rows(con)
    doubtful: dict[str, int] = {}
    if doubts.database is not None:
        with connect.reading(doubts.database, immutable=True) as con:
            doubtful = dict(con.execute("SELECT name, count(*) FROM doubts GROUP BY name").fetchall())
    found = {}
    for table in sorted((set(rows) | set(expected or {})) - {_SEQUENCE}):
        have = rows.get(table, 0)
        indexed = damages[table].indexed if table in damages else None
        known = expected.get(table, 0) if expected is not None else None
        should = max((number for number in (known, indexed) if number is not None), default=None)
        in_doubt = min(have, doubtful.get(table, 0))
        lost = None if should is None else max(0, should - have)
        found[table] = TableRows(have, known, have - in_doubt, lost, in_doubt, None)
    return found


def merge(
    generation: Path, candidate: Path, destination: Path, *, doubts: Doubts, deadline: Deadline
) -> tuple[dict[str, int], dict[str, int]]:
    """The generation with the newer rows of the candidate, as the new file `destination`.

    Nothing of the generation is changed, and no doubtful row is taken. The caller proves the result.

    Returns the rows added to each table, and those left out, because a row that they refer to is lost or doubtful.

    Raises:
        PreconditionError: the two cannot be put together row by row, with the reason.
    """
    with connect.reading(candidate, immutable=True) as con:
        theirs = schema_digest(con)
    with connect.reading(generation, immutable=True) as con:
        ours = schema_digest(con)
        virtual = [name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type='table' AND rootpage=0")]
    if theirs != ours:
        raise PreconditionError("the schema of the salvaged rows is not that of the generation", subject=str(candidate))
    if virtual:
        raise PreconditionError(
            f"{', '.join(virtual)}: the content of virtual tables cannot be put together", subject=str(candidate)
        )
    with private_umask():
        shutil.copyfile(generation, destination)
    added: dict[str, int] = {}
    left_out: dict[str, int] = {}
    try:
        with _writing(destination, candidate, doubts, deadline) as con, connect.sqlite_errors(destination):
            triggers = con.execute("SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger'").fetchall()
            con.execute("BEGIN")
            for name, _sql in triggers:  # they have run already, when the service wrote these rows
                con.execute(f"DROP TRIGGER main.{quoted(name)}")
            before: dict[str, int] = {}
            shapes = _shapes(generation)
            for table, shape in shapes.items():
                if shape.rowid:
                    before[table] = con.execute(
                        f"SELECT coalesce(max({shape.rowid}), -1 << 63) FROM main.{quoted(table)}"  # noqa: S608 - quoted
                    ).fetchone()[0]
                if table == _SEQUENCE or (shape.primary and table in doubts.tables):
                    continue
                names = [quoted(name) for name in shape.names]
                if shape.rowid and shape.key < 0:
                    names.insert(0, shape.rowid)
                columns = ", ".join(names)
                condition = _newer(table, shape, "main")
                select = f"SELECT {columns} FROM candidate.{quoted(table)} s WHERE {condition}"  # noqa: S608 - quoted
                try:
                    done = con.execute(f"INSERT INTO main.{quoted(table)}({columns}) {select}")
                except sqlite3.IntegrityError as error:
                    raise PreconditionError(
                        f"newer rows of table {table} do not fit to the generation: {error}", subject=str(candidate)
                    ) from None
                if done.rowcount > 0:
                    added[table] = done.rowcount
            for table, number in _without_parents(con, before):
                name = shapes[table].rowid
                con.execute(f"DELETE FROM main.{quoted(table)} WHERE {name} = ?", (number,))  # noqa: S608 - quoted
                added[table] -= 1
                left_out[table] = left_out.get(table, 0) + 1
            for _name, sql in triggers:
                con.execute(sql)
            con.execute("COMMIT")
    except BaseException:
        destination.unlink(missing_ok=True)
        raise
    fsync_file(destination)
    return {table: count for table, count in added.items() if count}, left_out


def _without_parents(con: sqlite3.Connection, before: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Rows that were added and refer to one that is not there, until there are none, as the caller deletes them."""
    while True:
        broken = {
            (str(table), int(number))
            for table, number, _parent, _constraint in con.execute("PRAGMA main.foreign_key_check").fetchall()
            if number is not None and number > before.get(table, number)
        }
        if not broken:
            return
        yield from sorted(broken)


def _compare(con: sqlite3.Connection, table: str, shape: Shape, in_doubt: bool) -> TableRows:
    name = quoted(table)
    own = {row[1] for row in con.execute(f"PRAGMA main.table_xinfo({name})")}
    columns = [quoted(column) for column in shape.names if column in own]
    equal = same_row("s", "g", [(column, column) for column in columns])
    rows = _count(con, f"main.{name}")
    before = _count(con, f"generation.{name}")
    if not shape.primary and not shape.rowid:
        return TableRows(rows, before, 0, max(0, before - rows), rows, 0)  # its rows have no name to ask for
    key = _key("s", "g", shape)
    both, same = con.execute(
        f"SELECT count(*), coalesce(sum({equal}), 0) FROM main.{name} s JOIN generation.{name} g ON {key}"  # noqa: S608
    ).fetchone()
    newer = 0
    if not (shape.primary and in_doubt):
        newer = _count(con, f"main.{name} s", _newer(table, shape, "generation"))
    return TableRows(rows, before, same, before - both, rows - same - newer, newer)


def _newer(table: str, shape: Shape, other: str) -> str:
    """SQL that is true for a row `s` that is newer than all of the same table in the database `other`."""
    place = f"{other}.{quoted(table)}"
    if shape.primary:
        return f"NOT EXISTS (SELECT 1 FROM {place} g WHERE {_key('s', 'g', shape)})"  # noqa: S608 - quoted
    number = shape.rowid
    if not number:
        return "0"
    doubted = f"SELECT row FROM doubts.doubts WHERE name = {_text(table)}"  # noqa: S608 - quoted
    largest = f"SELECT coalesce(max({number}), -9223372036854775808) FROM {place}"  # noqa: S608 - quoted
    return f"s.{number} > ({largest}) AND s.{number} NOT IN ({doubted})"


def _key(one: str, other: str, shape: Shape) -> str:
    if not shape.primary:
        return f"{one}.{shape.rowid} = {other}.{shape.rowid}"
    return " AND ".join(f"{one}.{quoted(name)} = {other}.{quoted(name)}" for name in shape.primary)


def _shapes(database: Path) -> dict[str, Shape]:
    with connect.reading(database, immutable=True) as con:
        return {table: shape_of(con, table) for table in ordinary_tables(con)}


@contextlib.contextmanager
def _both(candidate: Path, generation: Path, doubts: Doubts, deadline: Deadline) -> Iterator[sqlite3.Connection]:
    con = connect.connect(candidate, timeout_s=0, mode="ro", immutable="1")
    try:
        deadline.bind(con)
        with connect.sqlite_errors(candidate):
            con.execute("ATTACH ? AS generation", (connect.uri(generation, mode="ro", immutable="1"),))
            _attach_doubts(con, doubts)
            yield con
    finally:
        con.close()


@contextlib.contextmanager
def _writing(destination: Path, candidate: Path, doubts: Doubts, deadline: Deadline) -> Iterator[sqlite3.Connection]:
    con = connect.connect(destination, timeout_s=0, mode="rw")
    try:
        deadline.bind(con)
        con.execute("PRAGMA journal_mode = DELETE")
        con.execute("PRAGMA synchronous = OFF")  # it is brought to the disk as a whole
        con.execute("ATTACH ? AS candidate", (connect.uri(candidate, mode="ro", immutable="1"),))
        _attach_doubts(con, doubts)
        yield con
    finally:
        con.close()


def _attach_doubts(con: sqlite3.Connection, doubts: Doubts) -> None:
    if doubts.database is not None:
        con.execute("ATTACH ? AS doubts", (connect.uri(doubts.database, mode="ro", immutable="1"),))
    else:
        con.execute("ATTACH ':memory:' AS doubts")
        con.execute("CREATE TABLE doubts.doubts(name TEXT, row INTEGER)")


def _count(con: sqlite3.Connection, source: str, condition: str = "1") -> int:
    return int(con.execute(f"SELECT count(*) FROM {source} WHERE {condition}").fetchone()[0])  # noqa: S608 - quoted


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
