"""What a check reports, and that it changes nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from fluxmaint.core.clock import Clock
from fluxmaint.core.errors import EngineError, InputError, IntegrityError, TimeoutExceeded
from fluxmaint.sqlite import connect, integrity


def _make(path: Path, script: str = "", mode: str = "delete", **pragmas: str) -> Path:
    con = sqlite3.connect(path)
    for name, value in pragmas.items():
        con.execute(f"PRAGMA {name}={value}")
    con.execute(f"PRAGMA journal_mode={mode}")
    con.executescript(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT); CREATE INDEX t_a ON t(a);"
        "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM r WHERE i<500)"
        " INSERT INTO t SELECT i, 'text number ' || i FROM r;" + script
    )
    con.commit()
    con.close()
    path.chmod(0o600)
    return path


def _listing(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in directory.iterdir()}


@pytest.mark.parametrize("level", ["quick", "full"])
def test_a_sound_database(tmp_path: Path, level: str) -> None:
    path = _make(
        tmp_path / "a.db",
        "PRAGMA user_version=7; PRAGMA application_id=99; CREATE TABLE gone(x); INSERT INTO gone VALUES"
        " (zeroblob(20000)); DROP TABLE gone;",
        page_size="1024",
        encoding="'UTF-16le'",
    )
    report = integrity.check(path, level)
    assert report.ok
    assert report.messages == []
    assert report.tables["t"]["rows"] == 500
    assert report.tables["t"]["bytes"] in (None, (report.page_count - report.freelist_count - 1) * 1024)
    assert (report.page_size, report.user_version, report.application_id) == (1024, 7, 99)
    assert report.encoding == "UTF-16le"
    assert report.bytes == path.stat().st_size == report.page_count * 1024
    assert report.freelist_count >= 19
    assert report.free_ratio == pytest.approx(report.freelist_count / report.page_count, abs=1e-6)
    assert report.journal_mode == "delete"
    assert [h for h in report.hazards if not h.startswith("no-dbstat")] == []


def test_d24_a_count_is_no_proof_a_damaged_index_is_found_by_full_only(tmp_path: Path) -> None:
    path = _make(tmp_path / "a.db")
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("PRAGMA writable_schema=ON")
    con.execute("UPDATE sqlite_master SET sql = 'CREATE INDEX t_a ON t(id)' WHERE name = 't_a'")
    con.close()
    assert integrity.check(path, "quick").ok
    report = integrity.check(path, "full")
    assert not report.ok
    assert "t_a" in report.messages[0]
    assert len(report.messages) <= 100
    assert report.tables["t"]["rows"] == 500


def test_d24_broken_foreign_keys_are_found(tmp_path: Path) -> None:
    path = _make(
        tmp_path / "a.db", "CREATE TABLE c(id INTEGER PRIMARY KEY, t REFERENCES t(id)); INSERT INTO c VALUES (3, 1000);"
    )
    report = integrity.check(path)
    assert not report.ok
    assert report.messages == []
    assert report.foreign_key_violations == [{"table": "c", "rowid": 3, "parent": "t", "constraint": 0}]


def test_d29_a_missing_file_is_an_error_and_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        integrity.check(tmp_path / "missing.db")
    with pytest.raises(InputError, match="does not exist"):
        connect.open_ro(tmp_path / "missing.db")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_database_is_never_sound(tmp_path: Path) -> None:
    """A backup killed half-way opens as an empty database whose integrity_check says ok."""
    con = sqlite3.connect(tmp_path / "a.db")
    con.executescript("CREATE TABLE t(x); DROP TABLE t;")
    con.close()
    report = integrity.check(tmp_path / "a.db")
    assert not report.ok
    assert "no table" in report.messages[0]


def test_a_damaged_page_is_a_finding_not_an_exception(tmp_path: Path) -> None:
    path = _make(tmp_path / "a.db")
    with open(path, "r+b") as stream:
        stream.seek(4096 * 2)
        stream.write(b"\xee" * 4096)
    for level in integrity.LEVELS:
        report = integrity.check(path, level)
        assert not report.ok
        assert report.messages


def test_what_cannot_be_read_at_all_is_an_integrity_error(tmp_path: Path) -> None:
    path = _make(tmp_path / "a.db")
    with open(path, "r+b") as stream:
        stream.seek(100)
        stream.write(b"\xee" * 3000)
    with pytest.raises(IntegrityError, match=r"a\.db"):
        integrity.check(path)
    path = _make(tmp_path / "b.db")
    os.truncate(path, 8192)
    with pytest.raises(IntegrityError, match=r"b\.db"):
        integrity.check(path)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_check_leaves_no_trace(tmp_path: Path, mode: str) -> None:
    path = _make(tmp_path / "a.db", mode=mode)
    before = _listing(tmp_path)
    assert integrity.check(path).journal_mode == mode
    assert _listing(tmp_path) == before
    assert integrity.check(path, immutable=True).ok
    assert _listing(tmp_path) == before


def test_a_check_does_not_checkpoint_the_log(tmp_path: Path) -> None:
    path = _make(tmp_path / "a.db", mode="wal")
    con = sqlite3.connect(path)
    con.execute("INSERT INTO t(a) VALUES ('new')")
    con.commit()
    log = (tmp_path / "a.db-wal").read_bytes()
    assert log
    assert integrity.check(path).tables["t"]["rows"] == 501
    assert (tmp_path / "a.db-wal").read_bytes() == log
    con.close()


def test_the_connection_cannot_write(tmp_path: Path) -> None:
    for mode in ("delete", "wal"):
        con = connect.open_ro(_make(tmp_path / f"{mode}.db", mode=mode))
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            con.execute("INSERT INTO t(a) VALUES ('x')")
        con.close()


def test_hazards_of_the_file(tmp_path: Path) -> None:
    path = _make(tmp_path / "a.db", "CREATE TABLE bare(x); CREATE TABLE other(x);", mode="wal")
    os.link(path, tmp_path / "b.db")
    path.chmod(0o644)
    hazards = {text.split(":")[0]: text for text in integrity.check(path).hazards}
    assert {"hard-link", "mode", "no-primary-key"} <= set(hazards)
    assert "bare, other" in hazards["no-primary-key"]
    assert ("wal-reset-bug" in hazards) == (sqlite3.sqlite_version_info <= (3, 51, 2))
    private = integrity.check(path, immutable=True).hazards
    assert not any(text.startswith(("hard-link", "mode")) for text in private)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a file away")
def test_a_side_file_of_another_owner_is_a_hazard(tmp_path: Path) -> None:
    path = _make(tmp_path / "a.db")
    (tmp_path / "a.db-journal").touch()
    os.chown(tmp_path / "a.db-journal", 12345, 12345)
    assert any(text.startswith("owner: a.db-journal") for text in integrity.check(path).hazards)


def test_a_long_check_of_a_live_rollback_database_is_a_hazard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _make(tmp_path / "a.db")
    monkeypatch.setattr(integrity, "_CHECK_SPEED", {"quick": 1.0, "full": 1.0})
    assert any(text.startswith("check-blocks-writers") for text in integrity.check(path).hazards)
    assert not any(text.startswith("check-blocks-writers") for text in integrity.check(path, immutable=True).hazards)
    wal = _make(tmp_path / "b.db", mode="wal")
    assert not any(text.startswith("check-blocks-writers") for text in integrity.check(wal).hazards)


def test_a_check_ends_with_its_deadline(tmp_path: Path) -> None:
    path = _make(
        tmp_path / "a.db",
        "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM r WHERE i<300000) INSERT INTO t SELECT i+1000,"
        " 'more ' || i FROM r;",
    )
    with pytest.raises(TimeoutExceeded):
        integrity.check(path, timeout_s=0.01)


def test_a_hot_journal_is_reported_and_left_alone(tmp_path: Path) -> None:
    live = _make(tmp_path / "live.db")
    con = sqlite3.connect(live, isolation_level=None)
    con.execute("PRAGMA cache_size=1")
    con.execute("BEGIN")
    con.execute("UPDATE t SET a = a || a || a")
    (tmp_path / "crash").mkdir()
    for name in ("live.db", "live.db-journal"):
        shutil.copy(tmp_path / name, tmp_path / "crash" / name)
    con.close()
    before = _listing(tmp_path / "crash")
    with pytest.raises(EngineError, match="journal") as caught:
        integrity.check(tmp_path / "crash" / "live.db")
    assert caught.value.remedy
    assert _listing(tmp_path / "crash") == before


def test_an_unknown_level_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="level"):
        integrity.check(_make(tmp_path / "a.db"), "deep")


def test_paths_with_special_characters(tmp_path: Path) -> None:
    path = _make(tmp_path / "a b%20?mode=rwc#ü.db")
    assert integrity.check(path).ok
    assert connect.is_sqlite(path)
    assert not connect.is_sqlite(tmp_path)
    assert not connect.is_sqlite(tmp_path / "missing")


def _three_tables(path: Path) -> Path:
    con = sqlite3.connect(path)
    con.executescript(
        "CREATE TABLE plain(a INTEGER PRIMARY KEY, b TEXT);"
        "CREATE TABLE one(a INTEGER PRIMARY KEY, b TEXT); CREATE INDEX one_b ON one(b);"
        "CREATE TABLE two(k TEXT PRIMARY KEY, b TEXT) WITHOUT ROWID; CREATE INDEX two_b ON two(b);"
        "CREATE TABLE gone(a); "
    )
    for table in ("plain", "one", "two"):
        con.executemany(f"INSERT INTO {table} VALUES (?, ?)", [(n, f"{n * 7919 % 1000:04d}" * 9) for n in range(3000)])
    con.executemany("INSERT INTO gone VALUES (?)", [("x" * 500,)] * 500)
    con.execute("DROP TABLE gone")
    con.commit()
    con.close()
    return path


def _break_index(path: Path, index: str) -> None:
    """Give the index of a table the definition of another column's, so that its content no longer agrees."""
    con = sqlite3.connect(path)
    con.execute("PRAGMA writable_schema = ON")
    con.execute("UPDATE sqlite_master SET sql = replace(sql, '(b)', '(b DESC)') WHERE name = ?", (index,))
    con.commit()
    con.close()


@pytest.mark.parametrize("broken", ["", "one_b", "two_b", "freelist", "page"])
def test_two_processors_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    path = _three_tables(tmp_path / "a.db")
    if broken.endswith("_b"):
        _break_index(path, broken)
    elif broken == "freelist":
        with open(path, "r+b") as stream:
            stream.seek(36)
            free = int.from_bytes(stream.read(4), "big")
            assert free > 0
            stream.seek(36)
            stream.write((free - 1).to_bytes(4, "big"))
    elif broken == "page":
        con = sqlite3.connect(path)
        root = con.execute("SELECT rootpage FROM sqlite_master WHERE name = 'plain'").fetchone()[0]
        con.close()
        with open(path, "r+b") as stream:
            stream.seek((root - 1) * 4096 + 3)
            stream.write(b"\x00\x01")
    alone = integrity.check(path, immutable=True)
    asked: list[str] = []
    complaints = integrity._complaints
    monkeypatch.setattr(integrity, "_complaints", lambda con, pragma: asked.append(pragma) or complaints(con, pragma))
    monkeypatch.setattr(integrity, "_WORTH_DIVIDING", 0)
    together = integrity.check(path, immutable=True, workers=2)
    assert len(asked) == 3  # the whole, and the two tables with indexes
    assert together.ok is alone.ok is (broken == "")
    assert set(alone.messages[:50]) <= set(together.messages)


def test_virtual_tables_and_small_files_are_checked_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "_damage_in_parallel", lambda *_: pytest.fail("divided"))
    assert integrity.check(_three_tables(tmp_path / "small.db"), immutable=True, workers=2).ok
    monkeypatch.setattr(integrity, "_WORTH_DIVIDING", 0)
    con = sqlite3.connect(tmp_path / "virtual.db")
    con.executescript("CREATE TABLE t(a); CREATE VIRTUAL TABLE f USING fts5(b);")
    con.close()
    assert integrity.check(tmp_path / "virtual.db", immutable=True, workers=2).ok


def test_a_deadline_of_somebody_else_ends_a_check(tmp_path: Path) -> None:
    deadline = connect.Deadline(Clock(), 60, "x")
    deadline.cancel()
    for workers in (1, 2):
        path = _three_tables(tmp_path / f"{workers}.db")
        with pytest.raises(TimeoutExceeded):
            integrity.check(path, immutable=True, workers=workers, deadline=deadline)
