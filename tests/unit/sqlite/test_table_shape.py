# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is found out about a table before its rows are moved."""

from __future__ import annotations

import sqlite3

import pytest
from fluxmaint.core.errors import InputError
from fluxmaint.sqlite.table_shape import all_of, delete_triggers, equal_rows, read_shape, references


@pytest.fixture
def con() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


@pytest.mark.parametrize(
    ("columns", "key", "identity", "integer_key"),
    [
        ("id INTEGER PRIMARY KEY, x", ("id",), ("id",), "id"),
        ("id INTEGER PRIMARY KEY DESC, x", ("id",), ("rowid",), ""),
        ("a TEXT, b TEXT, PRIMARY KEY (b, a)", ("b", "a"), ("rowid",), ""),
        ("rowid TEXT, b TEXT, PRIMARY KEY (b)", ("b",), ("_rowid_",), ""),
        ("rowid, _ROWID_, oid, b TEXT PRIMARY KEY", ("b",), ("b",), ""),
    ],
)
def test_keys(
    con: sqlite3.Connection, columns: str, key: tuple[str, ...], identity: tuple[str, ...], integer_key: str
) -> None:
    con.execute(f"CREATE TABLE t({columns})")
    shape = read_shape(con, "T", subject="x")
    assert (shape.table, shape.key, shape.identity, shape.integer_key) == ("t", key, identity, integer_key)
    if "DESC" not in columns and "INTEGER" not in columns:
        con.execute("DROP TABLE t")
        con.execute(f"CREATE TABLE t({columns}) WITHOUT ROWID")
        assert read_shape(con, "t", subject="x").identity == key


def test_a_key_of_the_contract(con: sqlite3.Connection) -> None:
    con.execute("CREATE TABLE t(Ref TEXT, x)")
    assert read_shape(con, "t", ["ref"], subject="x").key == ("Ref",)
    with pytest.raises(InputError, match="no key column nothing"):
        read_shape(con, "t", ["nothing"], subject="x")
    with pytest.raises(InputError, match="no primary key"):
        read_shape(con, "t", subject="x")


def test_foreign_keys_that_point_at_the_table(con: sqlite3.Connection) -> None:
    con.execute("CREATE TABLE t(a, b, c UNIQUE, PRIMARY KEY (a, b))")
    con.execute("CREATE TABLE one(x, y, FOREIGN KEY (y, x) REFERENCES T)")
    con.execute("CREATE TABLE two(z REFERENCES t(c), a REFERENCES other(id))")
    assert references(con, read_shape(con, "t", subject="x")) == [
        ("one", [("y", "a"), ("x", "b")]),
        ("two", [("z", "c")]),
    ]


@pytest.mark.parametrize(
    ("trigger", "fires"),
    [
        ("AFTER DELETE ON t BEGIN SELECT 1; END", True),
        ("BEFORE DELETE ON t WHEN old.a > 5 BEGIN SELECT raise(ABORT, 'no'); END", True),
        ("AFTER INSERT ON t BEGIN DELETE FROM u; END", False),
        ("AFTER UPDATE ON t BEGIN SELECT 'DELETE ON t'; END", False),
        ("AFTER DELETE ON u BEGIN DELETE FROM t; END", False),
    ],
)
def test_triggers_that_a_deletion_fires(con: sqlite3.Connection, trigger: str, fires: bool) -> None:
    con.execute("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    con.execute("CREATE TABLE u(a)")
    con.execute(f"CREATE TRIGGER tell {trigger}")
    assert delete_triggers(con, read_shape(con, "t", subject="x")) == (["tell"] if fires else [])


def test_tables_with_very_many_columns(con: sqlite3.Connection) -> None:
    names = [f"c{number}" for number in range(1900)]
    con.execute(f"CREATE TABLE t({', '.join(names)})")
    con.execute("INSERT INTO t(c1, c1899) VALUES (1, 'x')")
    same = equal_rows("a", "b", names)
    assert con.execute(f"SELECT {same} FROM t AS a, t AS b").fetchone() == (1,)
    assert all_of([]) == "(TRUE)"


@pytest.mark.parametrize(
    ("one", "other"), [("1", "1.0"), ("'a'", "'A'"), ("'1'", "1"), ("NULL", "0"), ("x'61'", "'a'"), ("''", "NULL")]
)
def test_rows_are_equal_only_when_they_are_exactly_equal(con: sqlite3.Connection, one: str, other: str) -> None:
    con.execute("CREATE TABLE t(v COLLATE NOCASE)")
    con.execute("CREATE TABLE u(v COLLATE NOCASE)")
    con.execute(f"INSERT INTO t VALUES ({one})")
    con.execute(f"INSERT INTO u VALUES ({other}), ({one})")
    assert con.execute(f"SELECT count(*) FROM t, u WHERE {equal_rows('t', 'u', ['v'])}").fetchone() == (1,)
