# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be known of a table before rows of it can be copied elsewhere, compared and deleted."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import InputError
from .fingerprint import integer_key, quoted

_ROW_NUMBER_NAMES = ("rowid", "_rowid_", "oid")
_FEW = 50  # conditions side by side; SQLite limits how deep an expression may be nested


@dataclass(frozen=True)
class Column:
    """A visible column, as SQLite describes it; `generated` ones cannot be written.

    Attributes:
        declared: its type; empty also for what a STRICT table calls ANY, and keeps as it is.
        collation: how it compares, such as `NOCASE`; empty where this SQLite cannot tell.
    """

    name: str
    declared: str
    not_null: bool
    default: str | None
    key_position: int
    generated: bool
    collation: str

    @property
    def kind(self) -> str:
        """SQL for its type and its collation."""
        collation = f"COLLATE {quoted(self.collation)}" if self.collation else ""
        return f"{quoted(self.declared) if self.declared else ''} {collation}".strip()


@dataclass(frozen=True)
class Shape:
    """A table.

    Attributes:
        key: columns whose values tell one row from all others.
        identity: what SQLite itself keeps unique: the name of the row's number, or the primary key where it has none.
        integer_key: the column that is the row's number; empty when there is none.
        statements: `CREATE` statements of the table and its indexes.
    """

    table: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    identity: tuple[str, ...]
    integer_key: str
    statements: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The visible columns."""
        return [column.name for column in self.columns]

    @property
    def collations(self) -> list[str]:
        """How the key's columns compare."""
        by_name = {column.name: column.collation for column in self.columns}
        return [by_name[name] for name in self.key]

    @property
    def stored(self) -> list[str]:
        """The columns that are written."""
        return [column.name for column in self.columns if not column.generated]


def read_shape(con: sqlite3.Connection, table: str, key: Sequence[str] = (), *, subject: str) -> Shape:
    """Look at a table of the database `main`.

    Args:
        key: columns that identify a row; without them its primary key.

    Raises InputError: there is no such table, it is a view or a virtual table, a key column is missing, or there is
    no key.
    """
    entry = con.execute(
        "SELECT name, type, rootpage, sql FROM main.sqlite_master"
        " WHERE name = ? COLLATE NOCASE AND type IN ('table', 'view')",
        (table,),
    ).fetchone()
    if entry is None:
        raise InputError(f"has no table {table}", subject=subject)
    name, kind, root, sql = entry
    if kind != "table" or not root:
        what = "a view" if kind == "view" else "a virtual table"
        raise InputError(f"{table} is {what}; only ordinary tables can be archived", subject=subject)
    # hidden: 1 = hidden column of a virtual table, 2 and 3 = generated columns.
    rows = [row for row in con.execute(f"PRAGMA main.table_xinfo({quoted(name)})") if row[6] != 1]
    collations = _collations(sql, name, [row[1] for row in rows])
    untyped = ("ANY",) if _strict(con, name) else ()
    columns = tuple(
        Column(
            row[1],
            "" if row[2].upper() in untyped else row[2].upper(),
            bool(row[3]),
            row[4],
            row[5],
            row[6] in (2, 3),
            collation,
        )
        for row, collation in zip(rows, collations)
    )
    by_name = {column.name.lower(): column.name for column in columns}
    lacking = [column for column in key if column.lower() not in by_name]
    if lacking:
        raise InputError(f"the table {name} has no key column {', '.join(lacking)}", subject=subject)
    primary = [column.name for column in sorted(columns, key=lambda c: c.key_position) if column.key_position]
    chosen = tuple(by_name[column.lower()] for column in key) or tuple(primary)
    if not chosen:
        raise InputError(
            f"the table {name} has no primary key, so nothing tells one row from another",
            subject=subject,
            remedy="name the columns that do in the key of its entry in service_archives",
        )
    number = integer_key(con, name) or ""
    free = [word for word in _ROW_NUMBER_NAMES if word not in by_name]
    identity = (number,) if number else tuple(primary)  # never `key`: that it tells rows apart is only said
    if not number and free and not _without_rowid(con, name):
        identity = (free[0],)
    if not identity:
        raise InputError(f"nothing finds a row of the table {name}: its columns hide the row's number", subject=subject)
    indexes = con.execute(
        "SELECT sql FROM main.sqlite_master WHERE type = 'index' AND tbl_name = ? COLLATE NOCASE AND sql IS NOT NULL"
        " ORDER BY name",
        (name,),
    )
    return Shape(name, columns, chosen, identity, number, (sql, *(text for (text,) in indexes)))


def _strict(con: sqlite3.Connection, table: str) -> bool:
    """Whether a table is STRICT; a SQLite that does not know these has no `table_list` either."""
    return any(row[5] for row in con.execute(f"PRAGMA main.table_list({quoted(table)})") if row[0] == "main")


def _collations(statement: str, table: str, columns: Sequence[str]) -> list[str]:
    """How columns compare, told by an index over them in an empty table that is made for the question."""
    con = sqlite3.connect(":memory:")
    try:
        con.execute(statement)
        con.execute(f"CREATE INDEX fluxmaint_probe ON {quoted(table)}({listed(columns)})")
        found = con.execute("PRAGMA index_xinfo(fluxmaint_probe)").fetchall()
    except sqlite3.Error:  # a function or a collation of the service; an archive cannot be made then, and says why
        return [""] * len(columns)
    finally:
        con.close()
    return [str(row[4]).upper() for row in found if row[5]]


def _without_rowid(con: sqlite3.Connection, table: str) -> bool:
    """Whether a table keeps its rows in its primary key's index: that index has no entry of its own in the schema."""
    names = [row[1] for row in con.execute(f"PRAGMA main.index_list({quoted(table)})") if row[3] == "pk"]
    entries = "SELECT count(*) FROM main.sqlite_master WHERE name = ?"
    return bool(names) and not any(con.execute(entries, (name,)).fetchone()[0] for name in names)


def references(con: sqlite3.Connection, shape: Shape) -> list[tuple[str, list[tuple[str, str]]]]:
    """Foreign keys that point at the table: the child table, and its columns with those of this table."""
    found: list[tuple[str, list[tuple[str, str]]]] = []
    children = con.execute("SELECT name FROM main.sqlite_master WHERE type = 'table' AND rootpage > 0 ORDER BY name")
    primary = [column.name for column in sorted(shape.columns, key=lambda c: c.key_position) if column.key_position]
    for (child,) in children.fetchall():
        keys: dict[int, list[tuple[str, str]]] = {}
        for row in con.execute(f"PRAGMA main.foreign_key_list({quoted(child)})"):
            if row[2].lower() == shape.table.lower():
                parent = row[4] if row[4] is not None else primary[row[1]] if row[1] < len(primary) else shape.key[0]
                keys.setdefault(row[0], []).append((row[3], parent))
        found += [(child, columns) for columns in keys.values()]
    return found


def delete_triggers(con: sqlite3.Connection, shape: Shape) -> list[str]:
    """The triggers that deleting a row would fire, told by SQLite while it compiles the deletion.

    The connection keeps an authorizer that allows everything: before Python 3.11 it cannot be taken away.
    """
    fired: set[str] = set()

    def note(_action: int, _one: str | None, _two: str | None, _database: str | None, within: str | None) -> int:
        if within:
            fired.add(within)
        return sqlite3.SQLITE_OK

    con.set_authorizer(note)
    con.execute(f"EXPLAIN DELETE FROM main.{quoted(shape.table)}")  # noqa: S608 - quoted
    return sorted(fired)


def listed(names: Sequence[str], prefix: str = "") -> str:
    """Columns as SQL, each with the name of its table before it."""
    return ", ".join(f"{prefix}.{quoted(name)}" if prefix else quoted(name) for name in names)


def matching(left: Sequence[str], right: Sequence[str]) -> str:
    """SQL that says that columns are equal, as the left one compares."""
    return all_of([f"{one} = {other}" for one, other in zip(left, right)])


def equal_rows(one: str, other: str, columns: Sequence[str]) -> str:
    """SQL that says that two rows hold exactly the same: values and storage classes, whatever the collation."""
    return all_of([same_value(f"{one}.{name}", f"{other}.{name}") for name in map(quoted, columns)])


def same_value(one: str, other: str) -> str:
    """SQL that says that two values are exactly the same."""
    return f"(typeof({one}) = typeof({other}) AND {one} COLLATE BINARY IS {other})"


def all_of(conditions: Sequence[str]) -> str:
    """Conditions joined by AND, nested so that any number of them is no expression too deep for SQLite."""
    if len(conditions) <= _FEW:
        return "(" + (" AND ".join(conditions) or "TRUE") + ")"
    groups = [all_of(conditions[start : start + _FEW]) for start in range(0, len(conditions), _FEW)]
    return all_of(groups)
