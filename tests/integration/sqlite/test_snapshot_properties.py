"""Random schemas and contents: a snapshot equals its source, whatever the page size, encoding or features."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
import sqlite_writer
from fluxmaint.sqlite import fingerprint, hot_backup, integrity
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sqlite_lab import PAGE_SIZES, require_prefix, writing

NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x00"), min_size=1, max_size=12
).filter(lambda name: not name.lower().startswith("sqlite_"))
VALUES = st.one_of(
    st.none(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.binary(max_size=60),
    st.binary(min_size=3000, max_size=9000),
)
TYPES = st.sampled_from(["", "INTEGER", "REAL", "TEXT", "BLOB", "NUMERIC", "VARCHAR(20)"])
SHAPES = st.sampled_from(["rowid", "integer key", "autoincrement", "text key", "without rowid", "generated", "fts5"])
PRAGMAS = st.fixed_dictionaries(
    {
        "page_size": st.sampled_from([str(size) for size in PAGE_SIZES]),
        "encoding": st.sampled_from(["'UTF-8'", "'UTF-16le'", "'UTF-16be'"]),
        "auto_vacuum": st.sampled_from(["NONE", "FULL", "INCREMENTAL"]),
        "journal_mode": st.sampled_from(["DELETE", "TRUNCATE", "PERSIST", "WAL"]),
    }
)
TABLES = st.lists(
    st.tuples(
        SHAPES,
        NAMES,
        st.lists(TYPES, min_size=1, max_size=4),
        st.lists(st.lists(VALUES, min_size=4, max_size=4), max_size=20),
    ),
    min_size=1,
    max_size=4,
)

Table = tuple[str, str, list[str], list[list[Any]]]


def _create(con: sqlite3.Connection, table: Table) -> None:
    shape, name, types, rows = table
    quoted = fingerprint.quoted(name)
    columns = [f"c{number} {kind}" for number, kind in enumerate(types)]
    insert = f"INSERT INTO {quoted}({', '.join(f'c{n}' for n in range(len(types)))}) VALUES"
    marks = ", ".join("?" * len(types))
    if shape == "fts5":
        con.execute(f"CREATE VIRTUAL TABLE {quoted} USING fts5({', '.join(f'c{n}' for n in range(len(types)))})")
        con.executemany(f"{insert} ({marks})", [[str(value) for value in row[: len(types)]] for row in rows])
        return
    suffix = ""
    if shape in ("integer key", "autoincrement"):
        columns.insert(0, "id INTEGER PRIMARY KEY" + (" AUTOINCREMENT" if shape == "autoincrement" else ""))
    elif shape == "text key":
        columns.insert(0, "id TEXT PRIMARY KEY DEFAULT (hex(randomblob(8)))")
    elif shape == "without rowid":
        columns.insert(0, "id TEXT PRIMARY KEY DEFAULT (hex(randomblob(8)))")
        suffix = "WITHOUT ROWID"
    elif shape == "generated":
        columns += ["v AS (typeof(c0)) VIRTUAL", "s AS (length(c0)) STORED"]
    con.execute(f"CREATE TABLE {quoted}({', '.join(columns)}) {suffix}")
    con.executemany(f"{insert} ({marks})", [row[: len(types)] for row in rows])
    con.execute(f"CREATE INDEX {fingerprint.quoted('i' + name)} ON {quoted}(c0)")
    con.execute(f"DELETE FROM {quoted} WHERE c0 IS NULL")


def _database(path: Path, pragmas: dict[str, str], tables: list[Table]) -> sqlite3.Connection:
    con = sqlite3.connect(path)
    for name in ("page_size", "encoding", "auto_vacuum", "journal_mode"):
        con.execute(f"PRAGMA {name}={pragmas[name]}")
    for table in tables:
        try:
            _create(con, table)
        except sqlite3.OperationalError as error:
            # Two names that SQLite takes for one, or one that a shadow table has.
            assume("already" not in str(error) and "another table" not in str(error))
            raise
    con.commit()
    return con


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(pragmas=PRAGMAS, tables=TABLES)
def test_a_snapshot_equals_its_source_and_every_other_kind_of_copy(
    pragmas: dict[str, str], tables: list[Table]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, directory = Path(folder) / "source.db", Path(folder)
        con = _database(source, pragmas, tables)
        try:
            taken = hot_backup.backup(source, directory / "copy.db", verify="full", timeout_s=60)
            con.execute("VACUUM INTO ?", (str(directory / "vacuumed.db"),))
        finally:
            con.close()
        expected = fingerprint.content_digests(source)
        assert expected
        assert fingerprint.content_digests(directory / "copy.db", immutable=True) == expected
        assert fingerprint.content_digests(directory / "vacuumed.db") == expected
        assert taken.rows == {name: digest["rows"] for name, digest in expected.items()}
        assert taken.page_size == int(pragmas["page_size"])
        assert taken.journal_mode == ("wal" if pragmas["journal_mode"] == "WAL" else "delete")
        report = integrity.check(directory / "copy.db", immutable=True)
        assert report.ok
        assert report.encoding == pragmas["encoding"].strip("'")
        assert report.auto_vacuum == pragmas["auto_vacuum"].lower()
        assert report.schema_digest == taken.schema_digest


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(pragmas=PRAGMAS, tables=TABLES)
def test_a_snapshot_under_a_writer_is_a_prefix_beside_any_schema(pragmas: dict[str, str], tables: list[Table]) -> None:
    assume(all(name.lower() not in ("seq", "item", "board", "move", "tally", "filler") for _s, name, _t, _r in tables))
    with tempfile.TemporaryDirectory() as folder:
        source, directory = Path(folder) / "source.db", Path(folder)
        con = _database(source, pragmas, tables)
        sqlite_writer.prepare(con)
        con.close()
        quiet = [table[1] for table in tables]
        expected = fingerprint.content_digests(source, quiet)
        with writing(source, 0, 5.0, "--sync", "OFF") as writer:
            for number in range(2):
                hot_backup.backup(source, directory / f"copy{number}.db", timeout_s=60)
        assert writer.report["failures"] == []
        for number in range(2):
            assert require_prefix(directory / f"copy{number}.db") <= writer.report["last"]
            assert fingerprint.content_digests(directory / f"copy{number}.db", quiet, immutable=True) == expected


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_lock_page_of_a_database_above_one_gigabyte_is_copied(tmp_path: Path, mode: str) -> None:
    """SQLite's lock bytes lie at 1 GiB; with sparse pages the test needs little space."""
    source = tmp_path / "large.db"
    con = sqlite3.connect(source)
    con.execute("PRAGMA page_size=65536")
    con.execute(f"PRAGMA journal_mode={mode}")
    con.execute("PRAGMA synchronous=OFF")
    con.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a BLOB)")
    for _unused in range(11):
        con.execute("INSERT INTO t(a) VALUES (zeroblob(100000000))")
        con.commit()
    con.execute("INSERT INTO t(a) VALUES ('the last one')")
    con.commit()
    con.close()
    assert source.stat().st_size > (1 << 30) + 65536
    taken = hot_backup.backup(source, tmp_path / "copy.db", digest=False)
    assert taken.rows == {"t": 12}
    assert (
        fingerprint.query_value(tmp_path / "copy.db", "SELECT a FROM t WHERE id = 12", immutable=True) == "the last one"
    )
