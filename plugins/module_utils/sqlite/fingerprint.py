# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answer "is this the same content?", whatever the page layout, the row numbers or the backup method.

**Schema digest**: SHA-256 over type, name, table and SQL text of every schema entry, sorted.

**Content digest** of a table. A row is the sequence of its visible columns (generated ones included), each as
a type letter and its value: `N` null; `I<decimal>;` integer; `R` and 8 bytes big-endian IEEE 754 real, where
-0.0 counts as 0.0, as for SQLite; `T<length>:` and UTF-8 text; `B<length>:` and blob. Column names go before
the first row. With an INTEGER PRIMARY KEY the digest is the SHA-256 of the rows in the order of that key.
Any other table has no order that all copies share (text sorts differently in UTF-16, null keys repeat,
row numbers change in a VACUUM): its digest is the SHA-256 of the sum modulo 2**256 of the rows' SHA-256, which
counts equal rows as often as they occur. Both read the table once and need constant memory.

Included: ordinary tables, `sqlite_sequence` (where AUTOINCREMENT goes on), and the shadow tables of
virtual tables, which hold everything that FTS5, R-Tree and others store. Left out: `sqlite_stat*`
(statistics, not content) and virtual tables themselves, unless asked for by name.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..core.clock import Clock
from ..core.errors import InputError
from .connect import Deadline, reading

_REAL = struct.Struct(">d")
_MODULUS = 1 << 256
_BATCH = 500
_LONGEST_VALUE = 64 << 10  # answers go into manifests and messages

_READ_ONLY_ACTIONS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)


def schema_digest(con: sqlite3.Connection) -> str:
    """The digest of a database's schema; it does not depend on where the tables lie in the file."""
    rows = con.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master").fetchall()
    digest = hashlib.sha256()
    for row in sorted(rows):
        for text in row:
            encoded = text.encode("utf-8", "surrogateescape")
            digest.update(b"%d:" % len(encoded) + encoded)
    return digest.hexdigest()


def ordinary_tables(con: sqlite3.Connection) -> list[str]:
    """The tables that hold content, sorted by name: all but virtual tables and statistics."""
    rows = con.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
        " AND name NOT LIKE 'sqlite\\_stat%' ESCAPE '\\' ORDER BY name"
    )
    return [name for (name,) in rows]


def count_rows(con: sqlite3.Connection) -> dict[str, int]:
    """Rows per table of `ordinary_tables`."""
    return {
        name: int(con.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()[0])  # noqa: S608 - quoted
        for name in ordinary_tables(con)
    }


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def content_digests(
    path: Path,
    tables: Sequence[str] | None = None,
    *,
    timeout_s: float = 3600.0,
    immutable: bool = False,
    clock: Clock | None = None,
    deadline: Deadline | None = None,
) -> dict[str, dict[str, Any]]:
    """The content digest of each table: `{table: {"rows": n, "sha256": hex}}`.

    All tables are read in one transaction. In rollback-journal mode that makes writers wait: for a live
    database take a snapshot and read that.

    Args:
        tables: names; without them all that the module's description lists.
        immutable: the file is private, nobody can write it.
        deadline: instead of `timeout_s`, one that somebody else may cancel.
    Raises InputError for a table that does not exist, TimeoutExceeded after `timeout_s`.
    """
    deadline = deadline or Deadline(clock or Clock(), timeout_s, str(path))
    with reading(path, immutable=immutable) as con:
        deadline.bind(con)
        con.execute("BEGIN")
        names = ordinary_tables(con) if tables is None else list(tables)
        known = {name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for name in names:
            if name not in known:
                raise InputError(f"has no table {name}", subject=str(path))
        return {name: _table_digest(con, name) for name in names}


def digests(con: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    """As `content_digests` of all tables, through a connection that keeps others from writing meanwhile."""
    return {name: _table_digest(con, name) for name in ordinary_tables(con)}


def _table_digest(con: sqlite3.Connection, table: str) -> dict[str, Any]:
    # hidden: 1 = hidden column of a virtual table, 2 and 3 = generated columns, which are visible.
    info = [row for row in con.execute(f"PRAGMA table_xinfo({quoted(table)})") if row[6] != 1]
    names = [row[1] for row in info]
    heading = _row([*names])
    # Text comes as bytearray, so that it differs from a blob, and invalid UTF-8 is taken as it is.
    con.text_factory = bytearray
    try:
        columns = ", ".join(quoted(name) for name in names)
        con.text_factory = str
        key = integer_key(con, table)
        con.text_factory = bytearray
        if key is None:
            cursor = con.execute(f"SELECT {columns} FROM {quoted(table)}")  # noqa: S608 - quoted
            return _multiset(heading, cursor)
        cursor = con.execute(f"SELECT {columns} FROM {quoted(table)} ORDER BY {quoted(key)}")  # noqa: S608 - quoted
        return _ordered(heading, cursor)
    finally:
        con.text_factory = str


def rows_digest(con: sqlite3.Connection, columns: Sequence[str], query: str) -> dict[str, Any]:
    """Number and digest of the rows that a query gives, whatever their order: `{"rows": n, "sha256": hex}`.

    Args:
        columns: the names that go before the rows.
    """
    before = con.text_factory
    con.text_factory = bytearray
    try:
        return _multiset(_row([*columns]), con.execute(query))
    finally:
        con.text_factory = before


def integer_key(con: sqlite3.Connection, table: str) -> str | None:
    """The INTEGER PRIMARY KEY column, which is the row number and so unique and never null; else None."""
    keys = [row for row in con.execute(f"PRAGMA table_xinfo({quoted(table)})") if row[5]]
    if len(keys) != 1 or keys[0][2].upper() != "INTEGER":
        return None
    # WITHOUT ROWID tables, and the historical "INTEGER PRIMARY KEY DESC", keep their key in an index.
    if any(row[3] == "pk" for row in con.execute(f"PRAGMA index_list({quoted(table)})")):
        return None
    return str(keys[0][1])


def _ordered(heading: bytes, rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    digest, count = hashlib.sha256(heading), 0
    for batch in _batches(rows):
        digest.update(b"".join(batch))
        count += len(batch)
    return {"rows": count, "sha256": digest.hexdigest()}


def _multiset(heading: bytes, rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    total, count = 0, 0
    sha256, integer = hashlib.sha256, int.from_bytes
    for batch in _batches(rows):
        total = (total + sum(integer(sha256(row).digest(), "big") for row in batch)) % _MODULUS
        count += len(batch)
    digest = hashlib.sha256(heading + b"*" + total.to_bytes(32, "big") + b"%d" % count)
    return {"rows": count, "sha256": digest.hexdigest()}


def _batches(rows: Iterable[Sequence[Any]]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for row in rows:
        encoded = _row(row)
        batch.append(encoded)
        size += len(encoded)
        if len(batch) == _BATCH or size > 1 << 20:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _row(values: Sequence[Any]) -> bytes:
    parts = []
    for value in values:
        kind = type(value)
        if kind is int:
            parts.append(b"I%d;" % value)
        elif kind is bytearray:
            parts.append(b"T%d:%b" % (len(value), value))
        elif value is None:
            parts.append(b"N")
        elif kind is float:
            parts.append(b"R" + _REAL.pack(value or 0.0))
        elif kind is bytes:
            parts.append(b"B%d:%b" % (len(value), value))
        else:
            text = str(value).encode("utf-8", "surrogateescape")
            parts.append(b"T%d:%b" % (len(text), text))
    return b"".join(parts) + b"\n"


def run_query(
    path: Path,
    sql: str,
    parameters: Sequence[Any] = (),
    *,
    timeout_s: float = 60.0,
    busy_timeout_s: float = 5.0,
    max_rows: int = 1000,
    immutable: bool = False,
    clock: Clock | None = None,
    deadline: Deadline | None = None,
) -> list[tuple[Any, ...]]:
    """The rows of one SELECT that can neither write, attach files nor call PRAGMAs.

    Args:
        timeout_s: the statement is interrupted after this many seconds, so that it cannot block writers.
        max_rows: more rows than this are an InputError.
        deadline: also ends the statement, when somebody else cancels it or its time is over.
    """
    deadline = Deadline(clock or Clock(), timeout_s, str(path), deadline)
    with reading(path, busy_timeout_s=busy_timeout_s, immutable=immutable) as con:
        deadline.bind(con)
        only_reading(con)
        try:
            rows = con.execute(sql, tuple(parameters)).fetchmany(max_rows + 1)
        except (sqlite3.ProgrammingError, sqlite3.Warning) as error:
            raise InputError(f"the query {sql!r} is not one SELECT: {error}", subject=str(path)) from error
    if len(rows) > max_rows:
        raise InputError(f"the query {sql!r} gives more than {max_rows} rows", subject=str(path))
    return rows


def only_reading(con: sqlite3.Connection, tables: set[str] | None = None) -> None:
    """Let a connection do nothing any more but SELECT.

    Args:
        tables: gets the names of the tables that statements read, in lower case.
    """

    def judge(action: int, name: str | None, *_rest: str | None) -> int:
        if tables is not None and action == sqlite3.SQLITE_READ and name:
            tables.add(name.lower())
        return sqlite3.SQLITE_OK if action in _READ_ONLY_ACTIONS else sqlite3.SQLITE_DENY

    con.set_authorizer(judge)


def query_value(path: Path, sql: str, parameters: Sequence[Any] = (), **options: Any) -> Any:
    """The single value of a query with one row and one column. Raises InputError for any other shape."""
    rows = run_query(path, sql, parameters, **options)
    if len(rows) != 1 or len(rows[0]) != 1:
        raise InputError(f"the query {sql!r} does not give exactly one value", subject=str(path))
    value = rows[0][0]
    if isinstance(value, (str, bytes)) and len(value) > _LONGEST_VALUE:
        raise InputError(f"the query {sql!r} gives a value of {len(value)} bytes or characters", subject=str(path))
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"the query {sql!r} gives {value}, which JSON cannot hold", subject=str(path))
    return value
