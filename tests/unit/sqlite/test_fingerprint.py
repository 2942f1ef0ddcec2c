"""Content digests: equal for equal content in any layout, different for any difference of content."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from fluxmaint.core.errors import InputError, TimeoutExceeded
from fluxmaint.sqlite import fingerprint
from fluxmaint.sqlite.hot_backup import backup

SCHEMA = """
CREATE TABLE plain(id INTEGER PRIMARY KEY, a, b TEXT, c REAL, d BLOB);
CREATE TABLE named(name TEXT PRIMARY KEY, v);
CREATE TABLE keyless(a, b);
CREATE TABLE clustered(x TEXT, y INTEGER, PRIMARY KEY(x, y)) WITHOUT ROWID;
CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
CREATE TABLE computed(a INTEGER, doubled INTEGER AS (a * 2) STORED, text TEXT AS ('n' || a) VIRTUAL);
CREATE TABLE "odd ""name"" ü"("a b" TEXT, "ß" BLOB);
CREATE INDEX plain_a ON plain(a);
CREATE VIEW seen AS SELECT a FROM plain;
CREATE VIRTUAL TABLE texts USING fts5(title, body);
INSERT INTO plain VALUES (1, 1, 'one', 1.0, x'00ff'), (2, 2.5, '', -0.0, x''), (9, NULL, 'é\u4e16', 9e999, NULL);
INSERT INTO named VALUES ('b', 1), (NULL, 2), (NULL, 2), ('a', x'61');
INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (2, 'y');
INSERT INTO clustered VALUES ('b', 1), ('a', 2), ('a', 1);
INSERT INTO counted(v) VALUES ('x'), ('y');
DELETE FROM counted WHERE id = 2;
INSERT INTO computed(a) VALUES (1), (2);
INSERT INTO "odd ""name"" ü" VALUES ('x', 'y');
INSERT INTO texts VALUES ('first', 'some words'), ('second', 'other words');
DELETE FROM keyless WHERE a = 2;
ANALYZE;
"""


def _make(path: Path, script: str = SCHEMA, **pragmas: str) -> Path:
    con = sqlite3.connect(path)
    for name, value in pragmas.items():
        con.execute(f"PRAGMA {name}={value}")
    con.executescript(script)
    con.commit()
    con.close()
    return path


def _vacuum_into(source: Path, copy: Path) -> None:
    con = sqlite3.connect(source)
    con.execute("VACUUM INTO ?", (str(copy),))
    con.close()


def _api(source: Path, copy: Path) -> None:
    con, other = sqlite3.connect(source), sqlite3.connect(copy)
    con.backup(other)
    con.close()
    other.close()


def _dump(source: Path, copy: Path) -> None:
    """SQL text and back: other pages, other row numbers."""
    con, other = sqlite3.connect(source), sqlite3.connect(copy)
    other.execute("PRAGMA page_size=1024")
    other.executescript("\n".join(con.iterdump()))
    con.close()
    other.close()


def _hot(source: Path, copy: Path) -> None:
    backup(source, copy)


@pytest.mark.parametrize("method", [_vacuum_into, _api, _hot])
@pytest.mark.parametrize("encoding", ["'UTF-8'", "'UTF-16le'", "'UTF-16be'"])
def test_digests_are_equal_in_every_copy(tmp_path: Path, method: Callable[[Path, Path], None], encoding: str) -> None:
    source = _make(tmp_path / "source.db", encoding=encoding)
    method(source, tmp_path / "copy.db")
    digests = fingerprint.content_digests(source)
    assert digests == fingerprint.content_digests(tmp_path / "copy.db")
    assert digests["keyless"]["rows"] == 2
    assert "sqlite_sequence" in digests
    assert "sqlite_stat1" not in digests
    assert "texts" not in digests
    assert "texts_content" in digests
    with sqlite3.connect(source) as con, sqlite3.connect(tmp_path / "copy.db") as other:
        assert fingerprint.schema_digest(con) == fingerprint.schema_digest(other)


def test_digests_do_not_depend_on_encoding_page_size_or_the_way_through_sql(tmp_path: Path) -> None:
    # Python's dump knows neither virtual tables nor generated columns nor infinity.
    script = SCHEMA.replace("CREATE VIRTUAL TABLE texts USING fts5(title, body);", "CREATE TABLE texts(title, body);")
    script = script.replace("AS (a * 2) STORED", "").replace("AS ('n' || a) VIRTUAL", "").replace("9e999", "4.5e300")
    expected = fingerprint.content_digests(_make(tmp_path / "utf8.db", script))
    other = _make(tmp_path / "utf16.db", script, encoding="'UTF-16le'", page_size="512")
    assert fingerprint.content_digests(other) == expected
    _dump(tmp_path / "utf8.db", tmp_path / "dump.db")
    computed = fingerprint.content_digests(tmp_path / "dump.db")
    assert computed == expected


def test_digests_do_not_depend_on_row_numbers_and_order(tmp_path: Path) -> None:
    one = _make(tmp_path / "one.db", "CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 'x'), (2, 'y'), (2, 'y');")
    two = _make(
        tmp_path / "two.db",
        "CREATE TABLE t(a, b); INSERT INTO t(rowid, a, b) VALUES (70, 2, 'y'), (80, 1, 'x'), (5, 2, 'y');",
    )
    assert fingerprint.content_digests(one) == fingerprint.content_digests(two)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE t SET v = 1.0 WHERE k = 1",
        "UPDATE t SET v = '1' WHERE k = 1",
        "UPDATE t SET v = x'31' WHERE k = 1",
        "UPDATE t SET v = NULL WHERE k = 1",
        "UPDATE t SET v = x'' WHERE k = 1",
        "UPDATE t SET v = '' WHERE k = 1",
        "UPDATE t SET v = 2 WHERE k = 1",
        "UPDATE t SET v = -1 WHERE k = 1",
        "DELETE FROM t WHERE k = 2",
        "INSERT INTO t VALUES (3, 3)",
        "UPDATE t SET v = 3 - v",
        "UPDATE t SET v = 'T1:' WHERE k = 1",
    ],
)
@pytest.mark.parametrize("declaration", ["k INTEGER PRIMARY KEY, v", "k, v", "k INT PRIMARY KEY, v"])
def test_every_kind_of_change_changes_the_digest(tmp_path: Path, change: str, declaration: str) -> None:
    script = f"CREATE TABLE t({declaration}); INSERT INTO t VALUES (1, 1), (2, 2);"
    seen = {fingerprint.content_digests(_make(tmp_path / "a.db", script))["t"]["sha256"]}
    changed = fingerprint.content_digests(_make(tmp_path / "b.db", script + change))["t"]["sha256"]
    assert changed not in seen


def test_all_values_of_different_types_have_different_digests(tmp_path: Path) -> None:
    values = ["NULL", "0", "0.5", "''", "x''", "'0'", "x'30'", "'N'", "1", "-1", "9223372036854775807", "'1;'", "9e999"]
    path = _make(
        tmp_path / "a.db",
        "".join(f"CREATE TABLE t{n}(v); INSERT INTO t{n} VALUES ({v});" for n, v in enumerate(values)),
    )
    digests = fingerprint.content_digests(path)
    assert len({found["sha256"] for found in digests.values()}) == len(values)


def test_equal_rows_count_as_often_as_they_occur(tmp_path: Path) -> None:
    twice = _make(tmp_path / "a.db", "CREATE TABLE t(a); INSERT INTO t VALUES (1), (1), (2);")
    other = _make(tmp_path / "b.db", "CREATE TABLE t(a); INSERT INTO t VALUES (1), (2), (2);")
    none = _make(tmp_path / "c.db", "CREATE TABLE t(a); INSERT INTO t VALUES (2);")
    digests = [fingerprint.content_digests(path)["t"]["sha256"] for path in (twice, other, none)]
    assert len(set(digests)) == 3


def test_values_cannot_move_between_columns_or_rows(tmp_path: Path) -> None:
    one = _make(tmp_path / "a.db", "CREATE TABLE t(a, b); INSERT INTO t VALUES ('ab', 'c'), ('d', 'e');")
    two = _make(tmp_path / "b.db", "CREATE TABLE t(a, b); INSERT INTO t VALUES ('a', 'bc'), ('d', 'e');")
    three = _make(tmp_path / "c.db", "CREATE TABLE t(a, b); INSERT INTO t VALUES ('ab', 'e'), ('d', 'c');")
    assert len({fingerprint.content_digests(path)["t"]["sha256"] for path in (one, two, three)}) == 3


def test_minus_zero_is_zero(tmp_path: Path) -> None:
    one = _make(tmp_path / "a.db", "CREATE TABLE t(a REAL); INSERT INTO t VALUES (0.0);")
    con = sqlite3.connect(_make(tmp_path / "b.db", "CREATE TABLE t(a REAL);"))
    con.execute("INSERT INTO t VALUES (?)", (-0.0,))
    con.commit()
    con.close()
    assert fingerprint.content_digests(one) == fingerprint.content_digests(tmp_path / "b.db")


def test_text_that_is_not_utf8_has_a_digest(tmp_path: Path) -> None:
    one = _make(tmp_path / "a.db", "CREATE TABLE t(a); INSERT INTO t VALUES (CAST(x'ff00fe' AS TEXT));")
    two = _make(tmp_path / "b.db", "CREATE TABLE t(a); INSERT INTO t VALUES (CAST(x'ff00ff' AS TEXT));")
    assert fingerprint.content_digests(one) != fingerprint.content_digests(two)
    blob = _make(tmp_path / "c.db", "CREATE TABLE t(a); INSERT INTO t VALUES (x'ff00fe');")
    assert fingerprint.content_digests(one) != fingerprint.content_digests(blob)


@pytest.mark.parametrize("key", ["INTEGER PRIMARY KEY DESC", "integer primary key", "INT PRIMARY KEY"])
def test_keys_that_look_like_row_numbers(tmp_path: Path, key: str) -> None:
    """Only a true INTEGER PRIMARY KEY is unique and never null."""
    script = f"CREATE TABLE t(k {key}, v); INSERT INTO t VALUES (2, 'b'), (1, 'a');"
    reverse = f"CREATE TABLE t(k {key}, v); INSERT INTO t VALUES (1, 'a'), (2, 'b');"
    one, two = _make(tmp_path / "a.db", script), _make(tmp_path / "b.db", reverse)
    assert fingerprint.content_digests(one) == fingerprint.content_digests(two)


def test_a_virtual_table_is_read_through_its_module_when_named(tmp_path: Path) -> None:
    path = _make(tmp_path / "a.db")
    assert fingerprint.content_digests(path, ["texts"])["texts"]["rows"] == 2


def test_a_table_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no table nothing"):
        fingerprint.content_digests(_make(tmp_path / "a.db"), ["plain", "nothing"])


def test_the_schema_digest_notices_every_part_of_the_schema(tmp_path: Path) -> None:
    changes = ["", "DROP VIEW seen;", "DROP INDEX plain_a;", "ALTER TABLE keyless ADD COLUMN c;", "DROP TABLE named;"]
    seen = set()
    for number, change in enumerate(changes):
        con = sqlite3.connect(_make(tmp_path / f"{number}.db", SCHEMA + change))
        seen.add(fingerprint.schema_digest(con))
        con.close()
    assert len(seen) == len(changes)


def test_queries_return_rows_and_values(tmp_path: Path) -> None:
    path = _make(tmp_path / "a.db")
    assert fingerprint.run_query(path, "SELECT id FROM plain WHERE id > ? ORDER BY id", [1]) == [(2,), (9,)]
    assert fingerprint.query_value(path, "SELECT max(id) FROM plain") == 9
    assert (
        fingerprint.query_value(
            path, "WITH RECURSIVE r(i) AS (SELECT 1 UNION SELECT i+1 FROM r WHERE i<5) SELECT sum(i) FROM r"
        )
        == 15
    )


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO plain(a) VALUES (1)",
        "DELETE FROM plain",
        "CREATE TABLE more(a)",
        "ATTACH 'other.db' AS other",
        "PRAGMA journal_mode=WAL",
        "PRAGMA query_only=OFF",
        "VACUUM",
        "VACUUM INTO 'other.db'",
        "BEGIN EXCLUSIVE",
        "SELECT 1; SELECT 2",
        "SELECT nothing FROM plain",
    ],
)
def test_d44_queries_cannot_write_attach_or_configure(
    tmp_path: Path, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _make(tmp_path / "a.db")
    monkeypatch.chdir(tmp_path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"a\.db"):
        fingerprint.run_query(path, sql)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.db"]


def test_d44_a_query_that_does_not_end_is_interrupted(tmp_path: Path) -> None:
    endless = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM r) SELECT count(*) FROM r"
    with pytest.raises(TimeoutExceeded):
        fingerprint.run_query(_make(tmp_path / "a.db"), endless, timeout_s=0.2)


@pytest.mark.parametrize("sql", ["SELECT id FROM plain", "SELECT 1, 2", "SELECT 1 WHERE 0"])
def test_no_row_or_many_are_not_a_value(tmp_path: Path, sql: str) -> None:
    with pytest.raises(InputError, match="exactly one value"):
        fingerprint.query_value(_make(tmp_path / "a.db"), sql)


def test_more_rows_than_expected_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than 2 rows"):
        fingerprint.run_query(_make(tmp_path / "a.db"), "SELECT id FROM plain", max_rows=2)
