"""Journals are told apart: in use, wiped, left by a crash of this database, or of another one."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from fluxmaint.sqlite import rollback_journal


def _make(path: Path, commits: int = 3, rows: int = 300, page_size: int = 4096) -> Path:
    con = sqlite3.connect(path, isolation_level=None)
    con.execute(f"PRAGMA page_size={page_size}")
    con.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)")
    con.executemany("INSERT INTO t(a) VALUES (?)", [("x" * 300,)] * 3)
    for _unused in range(commits):
        con.execute("BEGIN")
        con.executemany("INSERT INTO t(a) VALUES (?)", [("x" * 300,)] * (rows // commits))
        con.execute("COMMIT")
    con.close()
    return path


def _crash(path: Path, into: Path, statement: str, cache: int = 1) -> Path:
    """The files as a crash inside a transaction leaves them."""
    con = sqlite3.connect(path, isolation_level=None)
    con.execute(f"PRAGMA cache_size={cache}")
    con.execute("BEGIN")
    con.execute(statement)
    into.mkdir()
    for suffix in ("", "-journal"):
        shutil.copy(f"{path}{suffix}", into / f"db{suffix}")
    con.close()
    return into / "db"


def _kind(path: Path) -> str:
    return rollback_journal.inspect(path, path.read_bytes()[:100]).kind


def test_no_journal(tmp_path: Path) -> None:
    assert _kind(_make(tmp_path / "a.db")) == "none"


@pytest.mark.parametrize("mode", ["persist", "truncate"])
def test_wiped_journals_are_idle(tmp_path: Path, mode: str) -> None:
    path = _make(tmp_path / "a.db")
    con = sqlite3.connect(path)
    con.execute(f"PRAGMA journal_mode={mode}")
    con.execute("UPDATE t SET a = 'y'")
    con.commit()
    con.close()
    assert (tmp_path / "a.db-journal").exists()
    assert _kind(path) == "idle"


@pytest.mark.parametrize("statement", ["UPDATE t SET a = a || a", "DELETE FROM t", "CREATE TABLE u AS SELECT * FROM t"])
@pytest.mark.parametrize("page_size", [512, 4096])
def test_the_journal_of_a_crash_fits(tmp_path: Path, statement: str, page_size: int) -> None:
    path = _make(tmp_path / "a.db", page_size=page_size)
    crashed = _crash(path, tmp_path / "crash", statement)
    assert _kind(crashed) == "fitting"


def test_the_journal_of_a_crash_during_the_commit_fits(tmp_path: Path) -> None:
    """The file is one change ahead of its journal: all pages are written, the journal is not yet deleted."""
    path = _make(tmp_path / "a.db")
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("BEGIN")
    con.execute("UPDATE t SET a = 'z'")
    con.execute("PRAGMA cache_spill=0")
    shutil.copy(f"{path}-journal", tmp_path / "early")
    con.execute("COMMIT")
    con.close()
    journal = bytearray((tmp_path / "early").read_bytes())
    before = tmp_path / "before"
    before.mkdir()
    assert journal[:8] in (bytes.fromhex("d9d505f920a163d7"), bytes(8))
    # A journal whose page 1 was saved at change n, beside a file at change n + 1.
    content = path.read_bytes()
    counter = int.from_bytes(content[24:28], "big")
    page_one = bytearray(content[:4096])
    page_one[24:28] = page_one[92:96] = (counter - 1).to_bytes(4, "big")
    _write_journal(path, bytes(page_one), pages=len(content) // 4096)
    assert _kind(path) == "fitting"
    page_one[24:28] = page_one[92:96] = (counter - 2).to_bytes(4, "big")
    _write_journal(path, bytes(page_one), pages=len(content) // 4096)
    assert _kind(path) == "foreign"


def _write_journal(path: Path, page_one: bytes, pages: int, page_size: int = 4096) -> None:
    numbers = (1, 7, pages, 512, page_size)
    header = bytes.fromhex("d9d505f920a163d7") + b"".join(number.to_bytes(4, "big") for number in numbers)
    record = (1).to_bytes(4, "big") + page_one + (0).to_bytes(4, "big")
    Path(f"{path}-journal").write_bytes(header.ljust(512, b"\x00") + record)


def test_a_journal_of_another_database_is_foreign(tmp_path: Path) -> None:
    crashed = _crash(_make(tmp_path / "a.db"), tmp_path / "crash", "UPDATE t SET a = a || a")
    other = _make(tmp_path / "b.db", commits=9, rows=900)
    shutil.copy(f"{crashed}-journal", tmp_path / "b.db-journal")
    judged = rollback_journal.inspect(other, other.read_bytes()[:100])
    assert judged.kind == "foreign"
    assert judged.reason


def test_a_journal_of_an_older_state_of_the_same_database_is_foreign(tmp_path: Path) -> None:
    path = _make(tmp_path / "a.db")
    crashed = _crash(path, tmp_path / "crash", "DELETE FROM t")
    con = sqlite3.connect(path)
    for _unused in range(3):
        con.execute("INSERT INTO t(a) SELECT a FROM t LIMIT 100")
        con.commit()
    con.close()
    shutil.copy(f"{crashed}-journal", tmp_path / "a.db-journal")
    assert _kind(path) == "foreign"


def test_a_journal_of_another_page_size_is_foreign(tmp_path: Path) -> None:
    crashed = _crash(_make(tmp_path / "a.db", page_size=1024), tmp_path / "crash", "DELETE FROM t")
    other = _make(tmp_path / "b.db", page_size=4096)
    shutil.copy(f"{crashed}-journal", tmp_path / "b.db-journal")
    judged = rollback_journal.inspect(other, other.read_bytes()[:100])
    assert judged.kind == "foreign"
    assert "page size" in judged.reason


@pytest.mark.parametrize("length", [0, 7, 27])
def test_a_short_journal_is_idle(tmp_path: Path, length: int) -> None:
    path = _make(tmp_path / "a.db")
    (tmp_path / "a.db-journal").write_bytes(bytes.fromhex("d9d505f920a163d7").ljust(27, b"\x01")[:length])
    assert _kind(path) == "idle"
