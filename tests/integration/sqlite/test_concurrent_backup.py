"""Snapshots while other processes write: always a prefix of the commits, and the writers never fail."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fluxmaint.core import syscalls
from fluxmaint.core.errors import TimeoutExceeded
from fluxmaint.sqlite import hot_backup, mirror
from sqlite_lab import PAGE_SIZES, elsewhere, leave_hot_journal, make, require_prefix, writing

MODES = ["delete", "truncate", "persist", "wal"]


def _method(mode: str) -> tuple[str, str]:
    return ("wal-copy" if mode == "wal" else "pre-copy", "reflink")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sync", ["FULL", "OFF"])
def test_every_snapshot_under_a_writer_without_pause_is_a_prefix(tmp_path: Path, mode: str, sync: str) -> None:
    source = make(tmp_path / "live.db", mode=mode)
    lasts = []
    with writing(source, 0, 5.0, "--sync", sync) as writer:
        for number in range(8):
            taken = hot_backup.backup(source, tmp_path / f"copy{number}.db", timeout_s=30)
            assert taken.method in _method(mode)
            assert (taken.lock_held_s == 0) == (mode == "wal")
            lasts.append(require_prefix(Path(taken.path)))
    assert writer.report["failures"] == []
    assert lasts == sorted(lasts)
    assert 0 < lasts[0] < lasts[-1] <= writer.report["last"]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_all_page_sizes_encodings_and_auto_vacuum_modes_give_prefixes(
    tmp_path: Path, mode: str, page_size: int
) -> None:
    index = PAGE_SIZES.index(page_size)
    encoding = ["'UTF-8'", "'UTF-16le'", "'UTF-16be'"][index % 3]
    vacuum = ["NONE", "FULL", "INCREMENTAL"][index // 2 % 3]
    source = make(tmp_path / "live.db", mode=mode, page_size=page_size, encoding=encoding, auto_vacuum=vacuum)
    with writing(source, 0, 5.0, "--sync", "OFF") as writer:
        for number in range(3):
            taken = hot_backup.backup(source, tmp_path / f"copy{number}.db", timeout_s=30)
            assert taken.page_size == page_size
            assert taken.bytes == page_size * taken.page_count
            require_prefix(Path(taken.path))
    assert writer.report["failures"] == []


def test_several_unlocked_passes_on_a_larger_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "live.db", pad=40_000)
    monkeypatch.setattr(hot_backup.Mirror, "clone", lambda self: False)
    with writing(source, 200, 5.0, "--sync", "OFF") as writer:
        once = hot_backup.backup(source, tmp_path / "once.db", timeout_s=60)
        monkeypatch.setattr(mirror, "_WORTH_A_PASS", 0)
        monkeypatch.setattr(hot_backup.Mirror, "estimate", lambda self: 1)
        often = hot_backup.backup(source, tmp_path / "often.db", timeout_s=60)
    assert once.bytes > 64 << 20
    assert once.passes == 2, "the little that differs is left to the pass under the lock"
    assert 3 <= often.passes <= 9
    assert 0 < require_prefix(tmp_path / "once.db") < require_prefix(tmp_path / "often.db")
    assert writer.report["failures"] == []


def test_a_writer_that_changes_every_page_with_each_commit(tmp_path: Path) -> None:
    """Unlocked passes never get near it: their number is bounded, and the pass under the lock writes everything."""
    source = tmp_path / "live.db"
    con = sqlite3.connect(source, isolation_level=None)
    con.execute("CREATE TABLE t(k INTEGER, pad TEXT)")
    con.execute(
        "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 6000)"
        " INSERT INTO t SELECT 0, hex(randomblob(1900)) FROM r"
    )
    code = (
        "import sqlite3, sys\n"
        "con = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)\n"
        "con.execute('PRAGMA synchronous=OFF')\n"
        "while True:\n"
        "    con.execute('UPDATE t SET k = k + 1')\n"
        "    print(flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(source)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        passes = [hot_backup.backup(source, tmp_path / f"copy{n}.db", timeout_s=60).passes for n in range(3)]
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.communicate(timeout=60)
        con.close()
    assert max(passes) <= 9
    states = []
    for number in range(3):
        copy = sqlite3.connect(tmp_path / f"copy{number}.db")
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        states.append(copy.execute("SELECT min(k), max(k), count(*) FROM t").fetchone())
        copy.close()
    assert all(first == last and count == 6000 for first, last, count in states), states
    assert [first for first, _last, _count in states] == sorted(first for first, _last, _count in states)


@pytest.mark.parametrize("missing", ["_fallocate", "_sync_file_range"])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_without_the_calls_that_make_it_fast(
    tmp_path: Path, mode: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "live.db", mode=mode, pad=10_000)
    monkeypatch.setattr(syscalls, missing, None)
    with writing(source, 200, 5.0, "--sync", "OFF"):
        hot_backup.backup(source, tmp_path / "copy.db", timeout_s=30)
    require_prefix(tmp_path / "copy.db")


@pytest.mark.parametrize("transient", [False, True])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_only_a_transient_snapshot_is_not_brought_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, transient: bool
) -> None:
    source = make(tmp_path / "live.db", mode=mode)
    synced: list[int] = []

    def note(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "fdatasync", note)
    truncate = os.ftruncate

    def note_emptied(descriptor: int, size: int) -> None:
        if size == 0:  # ext4 brings such a file to the disk when it is closed
            synced.append(os.fstat(descriptor).st_ino)
        truncate(descriptor, size)

    monkeypatch.setattr(os, "ftruncate", note_emptied)
    take = hot_backup.transient if transient else hot_backup.backup
    taken = take(source, tmp_path / "copy.db", timeout_s=30)
    assert (Path(taken.path).stat().st_ino in synced) is not transient
    require_prefix(Path(taken.path))


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_source_is_being_vacuumed(tmp_path: Path, mode: str) -> None:
    source = make(tmp_path / "live.db", mode=mode, pad=2000)
    with writing(source, 0, 5.0, "--sync", "OFF", "--vacuum") as writer:
        for number in range(5):
            require_prefix(Path(hot_backup.backup(source, tmp_path / f"copy{number}.db", timeout_s=30).path))
    assert writer.report["failures"] == []


def test_a_writer_with_a_short_busy_timeout_survives(tmp_path: Path) -> None:
    source = make(tmp_path / "live.db", pad=10_000)
    with writing(source, 100, 1.0, "--sync", "OFF") as writer:
        for number in range(5):
            hot_backup.backup(source, tmp_path / f"copy{number}.db", timeout_s=30)
    assert writer.report["failures"] == []


# In WAL mode an exclusive transaction does not keep readers out, an exclusive connection does.
_MODE = ("PRAGMA locking_mode=EXCLUSIVE", "BEGIN EXCLUSIVE", "COMMIT")


@pytest.mark.parametrize(
    ("mode", "statements"),
    [("delete", _MODE), ("wal", _MODE), ("delete", ("BEGIN EXCLUSIVE",))],
    ids=["locking_mode", "locking_mode in WAL", "transaction"],
)
def test_an_exclusive_lock_is_a_timeout_that_names_its_holder(
    tmp_path: Path, mode: str, statements: tuple[str, ...]
) -> None:
    source = make(tmp_path / "live.db", mode=mode)
    with elsewhere(source, *statements) as pid:
        started = time.monotonic()
        with pytest.raises(TimeoutExceeded) as caught:
            hot_backup.backup(source, tmp_path / "copy.db", timeout_s=1.0)
        assert time.monotonic() - started < 3
        assert f"process {pid} (python" in str(caught.value)
        assert caught.value.subject == str(source)
    assert [p.name for p in tmp_path.iterdir() if "copy" in p.name] == []


def test_a_reserved_lock_with_a_journal_in_use_does_not_delay(tmp_path: Path) -> None:
    source = make(tmp_path / "live.db")
    with elsewhere(source, "BEGIN IMMEDIATE", "UPDATE board SET k = -1"):
        assert (tmp_path / "live.db-journal").stat().st_size > 0
        taken = hot_backup.backup(source, tmp_path / "copy.db", timeout_s=5)
    assert taken.notes == []
    assert require_prefix(tmp_path / "copy.db") == 0


def test_the_lock_is_released_before_the_copy_is_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer with no patience commits while the snapshot is being proven and hashed."""
    source = make(tmp_path / "live.db")
    original = hot_backup._prove

    def write_then_prove(*arguments: object) -> dict[str, int]:
        con = sqlite3.connect(source, timeout=0)
        con.execute("INSERT INTO move VALUES (0, 0)")
        con.commit()
        con.close()
        return original(*arguments)

    monkeypatch.setattr(hot_backup, "_prove", write_then_prove)
    hot_backup.backup(source, tmp_path / "copy.db")
    assert require_prefix(tmp_path / "copy.db") == 0


def test_the_shared_lock_is_real_during_the_last_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing another descriptor, or a BEGIN that reads nothing, would let a writer through here."""
    source = make(tmp_path / "live.db")
    outcomes = []
    original = hot_backup.Mirror.repair

    def repair(self: hot_backup.Mirror) -> int:
        code = (
            "import sqlite3, sys\n"
            "con = sqlite3.connect(sys.argv[1], timeout=0)\n"
            "con.execute('INSERT INTO move VALUES (0, 0)')\n"
            "con.commit()\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(source)], capture_output=True, text=True, check=False)
        outcomes.append(done.stderr.strip().splitlines()[-1:] or ["committed"])
        return original(self)

    monkeypatch.setattr(hot_backup.Mirror, "repair", repair)
    monkeypatch.setattr(hot_backup.Mirror, "clone", lambda self: False)
    hot_backup.backup(source, tmp_path / "copy.db")
    assert outcomes == [["sqlite3.OperationalError: database is locked"]]


def test_a_hot_journal_is_rolled_back_and_the_copy_is_right(tmp_path: Path) -> None:
    source = make(tmp_path / "live.db", pad=1000)
    before = source.read_bytes()
    leave_hot_journal(source)
    assert source.read_bytes() != before
    taken = hot_backup.backup(source, tmp_path / "copy.db")
    assert require_prefix(tmp_path / "copy.db") == 0
    assert any("rolled it back" in note for note in taken.notes)
    assert not (tmp_path / "live.db-journal").exists()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_killed_writers_leave_sources_that_back_up_as_prefixes(tmp_path: Path, mode: str) -> None:
    source = make(tmp_path / "live.db", mode=mode)
    for number in range(6):
        with writing(source, 0, 5.0, "--sync", "OFF") as writer:
            time.sleep(0.05 + 0.01 * number)
            writer.kill()
            writer.stop = lambda: None  # type: ignore[method-assign]
        beside = {path.name for path in tmp_path.iterdir() if path.name.startswith("live.db-")}
        hot_backup.backup(source, tmp_path / f"copy{number}.db")
        require_prefix(tmp_path / f"copy{number}.db")
        if mode == "wal":
            assert "live.db-wal" in beside, "the writer left its log"
            assert (tmp_path / "live.db-wal").stat().st_size > 0, "the live log was checkpointed"


def test_the_log_starts_anew_while_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the log has been checkpointed, so a writer may restart it: old frames must not override the file."""
    import sqlite_writer

    source = make(tmp_path / "live.db", mode="wal")
    con = sqlite3.connect(source, isolation_level=None)
    con.execute("PRAGMA wal_autocheckpoint=0")
    import random

    pick = random.Random(2)
    for k in range(1, 40):
        sqlite_writer.transaction(con, k, pick)
    con.execute("PRAGMA wal_checkpoint(PASSIVE)")
    original = hot_backup.Mirror.copy
    calls: list[int] = []

    def copy(self: hot_backup.Mirror) -> None:
        calls.append(self._source)
        if len(calls) == 2:
            # Copy the beginning of the old log, then let the writer begin it anew, then go on.
            head = 32 + 30 * (4096 + 24)
            import os

            os.pwrite(self._copy, os.pread(self._source, head, 0), 0)
            for k in range(40, 45):
                sqlite_writer.transaction(con, k, pick)
            os.pwrite(self._copy, os.pread(self._source, 1 << 30, head), head)
            return
        original(self)

    monkeypatch.setattr(hot_backup.Mirror, "copy", copy)
    monkeypatch.setattr(hot_backup.Mirror, "clone", lambda self: False)
    hot_backup.backup(source, tmp_path / "copy.db")
    con.close()
    assert len(calls) == 3, "the log was copied again"
    assert require_prefix(tmp_path / "copy.db") >= 39


def test_a_source_replaced_during_the_copy_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "live.db")
    other = make(tmp_path / "other.db", page_size=8192)
    original = hot_backup.Mirror.precopy

    def precopy(self: hot_backup.Mirror) -> None:
        original(self)
        if other.exists():
            other.replace(source)

    monkeypatch.setattr(hot_backup.Mirror, "clone", lambda self: False)
    monkeypatch.setattr(hot_backup.Mirror, "precopy", precopy)
    assert hot_backup.backup(source, tmp_path / "copy.db").page_size == 8192
    assert (tmp_path / "copy.db").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("first", ["delete", "wal"])
def test_a_change_of_the_journal_mode_during_the_copy_is_noticed(
    tmp_path: Path, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = "wal" if first == "delete" else "delete"
    source = make(tmp_path / "live.db", mode=first)
    original = hot_backup._begin
    changed = []

    def begin(*arguments: object) -> object:
        if not changed:
            con = sqlite3.connect(source)
            changed.append(con.execute(f"PRAGMA journal_mode={second}").fetchone()[0])
            con.close()
        return original(*arguments)

    monkeypatch.setattr(hot_backup, "_begin", begin)
    taken = hot_backup.backup(source, tmp_path / "copy.db")
    assert changed == [second]
    assert taken.journal_mode == second
    require_prefix(tmp_path / "copy.db")
