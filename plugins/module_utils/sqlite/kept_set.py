# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a damaged database as it is: itself and what lies beside it, as one set, on the disk, with digests.

SQLite never opens the original: the first reader would roll a journal back into it, and the last one to close would
write its log into it. The set is copied while the locks that SQLite itself takes for reading keep writers out, after
most of it has been copied without; so a service that still writes waits for a moment.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ..core.errors import InputError, PreconditionError
from ..core.fsio import fsync_dir, private_opener, sha256_file
from . import connect, rollback_journal
from .connect import HEADER_BYTES, SIDE_FILES, Deadline
from .mirror import Mirror

# What SQLite locks (os_unix.c): the shared bytes of the file, and of -shm the writer, the checkpoint and the recovery.
_SHARED_START, _SHARED_LENGTH = 0x40000002, 510
_SHM_START, _SHM_LENGTH = 120, 3
_BLOCK = 4096
_RETRY_S = 0.02


@dataclass(frozen=True)
class Kept:
    """The copied set.

    Attributes:
        database: the copy of the database file.
        files: of each file of the original its path, size, digest, inode and time of change in nanoseconds.
        unreadable_bytes: what the disk refused to read; zeros stand there.
    """

    database: Path
    files: list[dict[str, Any]] = field(default_factory=list)
    unreadable_bytes: int = 0


def members(database: Path) -> list[Path]:
    """The files of the set that exist, the database itself first."""
    return [path for path in (database, *(Path(f"{database}{suffix}") for suffix in SIDE_FILES)) if path.is_file()]


def require_set(database: Path) -> Path:
    """The real path of a database that exists; damaged it may be, and empty. Raises InputError."""
    try:
        real = database.resolve(strict=True)
    except (OSError, RuntimeError):
        raise InputError("does not exist", subject=str(database), remedy="check the path") from None
    if not real.is_file():
        raise InputError("is not a regular file, so not a database", subject=str(database))
    return real


def fingerprint(database: Path) -> dict[str, str]:
    """The digests of the set by name, without `-shm`, which readers change."""
    return {path.name: sha256_file(path) for path in members(database) if not path.name.endswith("-shm")}


def keep(database: Path, directory: Path, *, deadline: Deadline, wait_s: float = 5.0) -> Kept:
    """Copy the set of `database` into `directory`, which exists, and bring it to the disk.

    Args:
        wait_s: how long to wait for a writer to end its transaction, in seconds.

    Raises:
        PreconditionError: a process holds the database for longer than that, or it was replaced meanwhile.
    """
    with contextlib.ExitStack() as stack:
        # Closing any descriptor of a file drops all locks on it, so these two are opened once.
        source = stack.enter_context(open(database, "rb", buffering=0))
        shm = _open_shared_memory(database, stack)
        copy = stack.enter_context(_new(directory / database.name))
        mirror = Mirror(source.fileno(), copy.fileno(), deadline)
        readable = _readable(mirror)
        with _still(source.fileno(), shm, database, deadline, wait_s):
            if not os.path.samestat(database.stat(), os.fstat(source.fileno())):
                raise PreconditionError("was replaced while it was copied", subject=str(database), untouched="it")
            refused = _repair(mirror, source.fileno(), copy.fileno(), deadline, readable=readable)
            facts = [_facts(database, source.fileno())]
            for path in members(database)[1:]:
                with contextlib.suppress(FileNotFoundError):  # a journal lives as long as its transaction
                    fact, lost = _copy_beside(path, shm, directory, deadline)
                    facts.append(fact)
                    refused += lost
        os.fsync(copy.fileno())
    fsync_dir(directory)
    for fact in facts:
        fact["sha256"] = sha256_file(directory / Path(fact["path"]).name)
    return Kept(directory / database.name, facts, refused)


def _open_shared_memory(database: Path, stack: contextlib.ExitStack) -> int:
    try:
        return stack.enter_context(open(f"{database}-shm", "rb", buffering=0)).fileno()
    except FileNotFoundError:
        return -1


def _new(path: Path) -> IO[bytes]:
    return open(path, "x+b", buffering=0, opener=private_opener)


def _copy_beside(path: Path, shm: int, directory: Path, deadline: Deadline) -> tuple[dict[str, Any], int]:
    """Copy a file that lies beside the database; the shared memory by the descriptor that holds its locks."""
    with contextlib.ExitStack() as stack:
        own = path.name.endswith("-shm") and shm >= 0
        source = shm if own else stack.enter_context(open(path, "rb", buffering=0)).fileno()
        copy = stack.enter_context(_new(directory / path.name))
        refused = _salvage_blocks(source, copy.fileno(), deadline)
        os.fsync(copy.fileno())
        return _facts(path, source), refused


def _repair(mirror: Mirror, source: int, copy: int, deadline: Deadline, *, readable: bool) -> int:
    """Make the copy equal; returns how many bytes the disk refuses to read."""
    if readable:
        try:
            mirror.repair()
            return 0
        except OSError as error:
            if error.errno != errno.EIO:
                raise
    return _salvage_blocks(source, copy, deadline)


def _readable(mirror: Mirror) -> bool:
    try:
        if not mirror.clone():
            mirror.precopy()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False
    return True


@contextlib.contextmanager
def _still(database: int, shm: int, path: Path, deadline: Deadline, wait_s: float) -> Iterator[None]:
    """Keep writers out of the file, and in WAL mode out of the log, as a reader of SQLite does."""
    held = Deadline(deadline.clock, wait_s, str(path), deadline)
    places = [(database, _SHARED_START, _SHARED_LENGTH)] + ([(shm, _SHM_START, _SHM_LENGTH)] if shm >= 0 else [])
    for descriptor, start, length in places:
        while True:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)
                break
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise
            if held.left_s < 0:
                raise PreconditionError(
                    f"a process has held it for {wait_s:g} s, so that no copy can be taken",
                    subject=str(path),
                    untouched="everything",
                    remedy="stop the units of the service and run this again",
                )
            deadline.clock.sleep(_RETRY_S)
    try:
        yield
    finally:
        for descriptor, start, length in places:
            fcntl.lockf(descriptor, fcntl.LOCK_UN, length, start)


def _facts(path: Path, descriptor: int) -> dict[str, Any]:
    status = os.fstat(descriptor)
    return {"path": str(path), "bytes": status.st_size, "inode": status.st_ino, "mtime_ns": status.st_mtime_ns}


def _salvage_blocks(source: int, copy: int, deadline: Deadline) -> int:
    """Copy block by block; where the disk refuses, zeros. Returns how many bytes it has refused."""
    refused = 0
    size = os.fstat(source).st_size
    os.ftruncate(copy, 0)
    os.ftruncate(copy, size)
    for start in range(0, size, _BLOCK * 256):
        deadline.check("copying")
        end = min(start + _BLOCK * 256, size)
        try:
            os.pwrite(copy, os.pread(source, end - start, start), start)
            continue
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        for offset in range(start, end, _BLOCK):
            try:
                os.pwrite(copy, os.pread(source, min(_BLOCK, end - offset), offset), offset)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                refused += min(_BLOCK, end - offset)
    return refused


def settle(copy: Path) -> list[str]:
    """Let SQLite work what lies beside a private copy into it; returns what could not be.

    Committed transactions may stand in the log alone, and half of one that was not committed in the file. A journal
    that belongs to another database is left out: it would destroy this one.
    """
    notes: list[str] = []
    with open(copy, "rb") as stream:
        beginning = stream.read(HEADER_BYTES)
    journal, log, shm = (Path(f"{copy}{suffix}") for suffix in ("-journal", "-wal", "-shm"))
    judged = rollback_journal.inspect(copy, beginning)
    if judged.kind == "foreign":
        notes.append(f"{journal.name} does not belong to this database ({judged.reason}); it is left out")
        journal.unlink()
    shm.unlink(missing_ok=True)  # SQLite makes it anew from the log
    if log.exists() and log.stat().st_size == 0:
        log.unlink()
    if journal.exists() or log.exists():
        try:
            with contextlib.closing(connect.connect(copy, timeout_s=0, mode="rw")) as con:
                con.execute("PRAGMA writable_schema = ON")  # a damaged schema is no reason to stop
                con.execute("PRAGMA synchronous = OFF")
                with contextlib.suppress(sqlite3.DatabaseError):
                    con.execute("SELECT count(*) FROM sqlite_master").fetchone()
                busy = con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                if busy:
                    notes.append("the write-ahead log could not be worked in")
        except sqlite3.Error as error:
            notes.append(f"what lies beside the database cannot be worked in: {error}")
    for path in (journal, log, shm):
        if path.exists():
            # A journal that is not complete yet belongs to a transaction that has not changed the file.
            if path == log or (path == journal and judged.kind == "fitting"):
                notes.append(f"{path.name} is not worked in: what it alone holds is not in the result")
            path.unlink()
    return notes
