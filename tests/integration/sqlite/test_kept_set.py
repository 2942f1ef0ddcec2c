# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The damaged set is copied as one, also under a writer; what lies beside it is worked into the copy alone."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.core.clock import Clock
from fluxmaint.core.errors import InputError, PreconditionError
from fluxmaint.core.fsio import sha256_file
from fluxmaint.sqlite import kept_set
from fluxmaint.sqlite.connect import Deadline
from sqlite_lab import elsewhere, make, require_prefix, writing

# More than fits into memory, so that it goes into the file before it is committed.
HALF = ("PRAGMA cache_size = 5", "PRAGMA cache_spill = 5", "BEGIN IMMEDIATE", "UPDATE t SET b = 'half'")


@contextlib.contextmanager
def changing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose changes are committed at the end."""
    con = sqlite3.connect(path)
    try:
        with con:
            yield con
    finally:
        con.close()


def deadline() -> Deadline:
    return Deadline(Clock(), 60, "test")


def state_of(database: Path) -> dict[str, tuple[str, int, int]]:
    return {
        path.name: (sha256_file(path), path.stat().st_ino, path.stat().st_mtime_ns)
        for path in kept_set.members(database)
    }


def crashed(source: Path, to: Path) -> Path:
    """The set as a killed writer leaves it."""
    to.mkdir()
    for path in source.parent.glob(source.name + "*"):
        shutil.copyfile(path, to / path.name)
    return to / source.name


def kept_and_settled(database: Path, directory: Path) -> tuple[Path, list[str]]:
    directory.mkdir()
    kept = kept_set.keep(database, directory, deadline=deadline())
    work = directory / "work"
    work.mkdir()
    for path in kept_set.members(kept.database):
        shutil.copyfile(path, work / path.name)
    return work / database.name, kept_set.settle(work / database.name)


def rows(path: Path, question: str = "SELECT count(*) FROM t") -> Any:
    with contextlib.closing(sqlite3.connect(path)) as con:
        return con.execute(question).fetchone()[0]


def table(path: Path, mode: str) -> Path:
    with contextlib.closing(sqlite3.connect(path)) as con:
        con.execute(f"PRAGMA journal_mode = {mode}")
        con.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
        con.executemany("INSERT INTO t(b) VALUES (?)", [("x" * 500,)] * 100)
        con.commit()
    return path


def test_what_stands_in_the_log_alone_is_in_the_copy_and_the_original_set_stays(tmp_path: Path) -> None:
    live = table(tmp_path / "live.db", "wal")
    with elsewhere(live, "PRAGMA wal_autocheckpoint = 0", "INSERT INTO t(b) VALUES ('new')"):
        database = crashed(live, tmp_path / "crashed")
    before = state_of(database)
    assert set(before) == {"live.db", "live.db-wal", "live.db-shm"}
    settled, notes = kept_and_settled(database, tmp_path / "kept")
    assert notes == [] and rows(settled) == 101
    assert state_of(database) == before
    assert {path.name for path in kept_set.members(tmp_path / "kept" / "live.db")} == set(before)


def test_half_a_transaction_is_rolled_back_in_the_copy_alone(tmp_path: Path) -> None:
    live = table(tmp_path / "live.db", "delete")
    with elsewhere(live, *HALF):
        database = crashed(live, tmp_path / "crashed")
    before = state_of(database)
    assert set(before) == {"live.db", "live.db-journal"}
    settled, notes = kept_and_settled(database, tmp_path / "kept")
    assert notes == [] and rows(settled, "SELECT count(*) FROM t WHERE b = 'half'") == 0 and rows(settled) == 100
    assert state_of(database) == before


def test_a_journal_of_another_database_is_kept_and_not_played(tmp_path: Path) -> None:
    live = table(tmp_path / "live.db", "delete")
    with elsewhere(live, *HALF):
        database = crashed(live, tmp_path / "crashed")
    with changing(live) as con:
        con.executemany("INSERT INTO t(b) VALUES (?)", [("later" * 100,)] * 50)
    shutil.copyfile(live, database)
    settled, notes = kept_and_settled(database, tmp_path / "kept")
    assert "does not belong to this database" in notes[0]
    assert rows(settled) == rows(live)
    assert (tmp_path / "kept" / "live.db-journal").exists()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_copy_under_a_writer_is_one_moment_of_it(tmp_path: Path, mode: str) -> None:
    live = make(tmp_path / "live.db", mode=mode)
    with writing(live, 200):
        for number in range(5):
            settled, notes = kept_and_settled(live, tmp_path / f"kept-{number}")
            assert notes == []
            assert require_prefix(settled) > 0


def test_a_process_that_holds_the_database_is_not_waited_for_without_end(tmp_path: Path) -> None:
    live = table(tmp_path / "live.db", "delete")
    (tmp_path / "kept").mkdir()
    with elsewhere(live, "BEGIN EXCLUSIVE"), pytest.raises(PreconditionError, match="a process has held it for"):
        kept_set.keep(live, tmp_path / "kept", deadline=deadline(), wait_s=0.1)


def test_sectors_that_cannot_be_read_become_zeros_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No disk fails on request: the calls that read are made to refuse some blocks of the file."""
    live = table(tmp_path / "live.db", "delete")
    (tmp_path / "kept").mkdir()
    inode = live.stat().st_ino
    read = os.pread

    def failing(descriptor: int, count: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino == inode and offset < 12288 and offset + count > 8192:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, count, offset)

    def refused(*_arguments: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", failing)
    monkeypatch.setattr(kept_set.Mirror, "clone", lambda _self: False)
    monkeypatch.setattr(kept_set.Mirror, "precopy", refused)
    kept = kept_set.keep(live, tmp_path / "kept", deadline=deadline())
    monkeypatch.undo()
    assert kept.unreadable_bytes == 4096
    original, copy = live.read_bytes(), kept.database.read_bytes()
    assert copy[8192:12288] == bytes(4096) != original[8192:12288]
    assert copy[:8192] + copy[12288:] == original[:8192] + original[12288:]


def test_only_an_existing_file_is_a_database(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.db", tmp_path):
        with pytest.raises(InputError):
            kept_set.require_set(path)
    assert list(tmp_path.iterdir()) == []
