# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A consistent snapshot of a database while its service writes.

**Rollback journal** (`pre-copy`): copy the file without a lock, which gives a torn copy; compare it with
the source and repair what differs, still without a lock, while that pays; then take a SHARED lock, repair
one last time and let go. Writers wait for one comparison at memory speed. (SQLite's own backup starts again
with each commit, or holds the lock while it copies everything.)

**WAL** (`wal-copy`): inside one read transaction nobody can restart the write-ahead log or check-point
beyond what this reader sees. So the file, torn as its copy may be, and the log copied after it contain every
committed page: a page that changed meanwhile is in the log, and the copy of the log overrides the copy of the
file. The log is then folded into the copy, by SQLite. Writers do not wait.

**Reflink**: where the file system can share blocks, a clone under the same lock replaces the copying.

The snapshot stays in the journal mode of its source, stands alone (no `-wal`), is private (0600), on the disk
(fsync, unless it is a `transient` one) and proven before it gets its name. Journal modes, page sizes and encodings
are all the same to it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import os
import re
import secrets
import sqlite3
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.clock import Clock
from ..core.errors import EngineError, InputError, IntegrityError, PreconditionError, TimeoutExceeded
from ..core.fsio import free_bytes, replace
from . import connect, rollback_journal
from .connect import HEADER_BYTES, SIDE_FILES, Deadline
from .fingerprint import count_rows, schema_digest
from .integrity import damage
from .mirror import Mirror

VERIFY_LEVELS = ("open", "quick", "full")

_SPARE_BYTES = 1 << 20
# Lock held by a snapshot of a rollback-journal database, per byte, on a two-core machine with a slow disk.
_WAIT_S_PER_BYTE = 0.35 / 1e9
_ATTEMPTS = 5
# SQLite's lock bytes (os_unix.c): PENDING, RESERVED and the 510 SHARED bytes lie side by side.
_LOCK_START, _LOCK_LENGTH = 0x40000000, 512
_FLOCK = "hhqqi4x"


@dataclass(frozen=True)
class Snapshot:
    """A finished snapshot.

    Attributes:
        path: the snapshot.
        method: `pre-copy`, `wal-copy` or `reflink`.
        passes: how often the source was read.
        duration_s: from the call to the durable file.
        lock_held_s: how long writers could not commit; 0 in WAL mode.
        journal_mode: `wal`, or `delete` for every kind of rollback journal; the same as the source's.
        sha256: of the file; empty when it was not asked for.
        schema_digest: see `fingerprint`; equal to the source's.
        rows: per table; empty when it was not asked for.
        verified: `open` (opens, page count, size, schema as the source's), `quick` or `full` (and SQLite's check).
        notes: what an operator should know.
    """

    path: str
    method: str
    passes: int
    duration_s: float
    lock_held_s: float
    bytes: int
    page_size: int
    page_count: int
    journal_mode: str
    sha256: str
    schema_digest: str
    sqlite_version: str
    application_id: int
    user_version: int
    rows: dict[str, int]
    verified: str
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The snapshot as JSON-serialisable data."""
        return dataclasses.asdict(self)


def backup(
    src: Path,
    dest: Path,
    *,
    timeout_s: float = 600.0,
    overwrite: bool = False,
    verify: str = "open",
    digest: bool = True,
    rows: bool = True,
    durable: bool = True,
    clock: Clock | None = None,
) -> Snapshot:
    """Take a snapshot of a database that others may be writing to.

    The caller must not be inside a transaction on `src` in this process (see `connect`). Nothing appears under
    the name `dest` unless all went well. A killed run leaves `.<name>.partial-*` beside it, which the next
    run for the same `dest` removes.

    Args:
        src: an existing database; symbolic links are followed.
        dest: the new file, in an existing directory.
        timeout_s: when it is over the backup fails; only a running fsync is waited for.
        overwrite: replace an existing `dest`.
        verify: `open`, or also SQLite's `quick` or `full` check, of the snapshot.
        digest: compute its SHA-256.
        rows: count the rows of each table of the snapshot.
        durable: bring it to the disk. Without it a power cut may leave any content under the name `dest`: for
            snapshots that are read and removed at once, which then need hardly reach the disk at all.

    Raises:
        InputError: `src` is not a database, or `dest` cannot be one.
        IntegrityError: the source, and so its copy, is damaged.
        PreconditionError: no space, a journal that does not belong to the source, no permission.
        TimeoutExceeded: a process held its lock, or the copying took, for longer than `timeout_s`.
    """
    clock = clock or Clock()
    started = clock.monotonic()
    if verify not in VERIFY_LEVELS:
        raise InputError(f"verify is one of {', '.join(VERIFY_LEVELS)}, not {verify!r}", subject=str(src))
    deadline = Deadline(clock, timeout_s, str(src))
    source, target, notes = inspect(src, dest, overwrite=overwrite)
    try:
        with _partial(target) as partial:
            taken = _take(source, partial, deadline, durable)
            notes += taken.notes
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                synced = pool.submit(os.fsync, partial.descriptor) if durable else None
                hashed = pool.submit(_sha256, partial.path, deadline) if digest else None
                counted = _prove(source, partial, taken, verify, rows, deadline)
                if synced:
                    synced.result()
                sha256 = hashed.result() if hashed else ""
            deadline.check("bringing the snapshot to the disk")
            size = os.fstat(partial.descriptor).st_size
            _refuse_side_files(target)
            if not overwrite:
                _refuse_existing(target)
            replace(partial.path, target)
    except OSError as error:
        raise PreconditionError(
            f"the backup failed: {error.strerror}",
            subject=str(error.filename or target),
            untouched=f"{source}, and whatever had the name {target}",
        ) from error
    return Snapshot(
        path=str(target),
        method=taken.method,
        passes=taken.passes,
        duration_s=round(clock.monotonic() - started, 6),
        lock_held_s=round(taken.lock_held_s, 6),
        bytes=size,
        page_size=taken.facts.page_size,
        page_count=taken.facts.page_count,
        journal_mode=taken.journal_mode,
        sha256=sha256,
        schema_digest=taken.facts.schema_digest,
        sqlite_version=sqlite3.sqlite_version,
        application_id=taken.facts.application_id,
        user_version=taken.facts.user_version,
        rows=counted,
        verified=verify,
        notes=notes,
    )


def transient(
    src: Path,
    dest: Path,
    *,
    timeout_s: float,
    overwrite: bool = False,
    verify: str = "open",
    clock: Clock | None = None,
) -> Snapshot:
    """`backup` of a database to be read and removed by the caller: not brought to the disk, no digest, no rows."""
    return backup(
        src,
        dest,
        timeout_s=timeout_s,
        overwrite=overwrite,
        verify=verify,
        digest=False,
        rows=False,
        durable=False,
        clock=clock,
    )


def predicted_wait_s(size: int) -> float:
    """How long writers may have to wait for a snapshot of a rollback-journal database of `size` bytes, in seconds."""
    return size * _WAIT_S_PER_BYTE


def inspect(src: Path, dest: Path, *, overwrite: bool = False) -> tuple[Path, Path, list[str]]:
    """Check everything that can be checked before the first byte is written.

    Returns the real source, the real destination and notes. Raises as `backup`. Changes nothing.
    """
    source, _header = connect.require_database(src)
    dest = Path(dest)
    try:
        parent = dest.parent.resolve(strict=True)
    except FileNotFoundError:
        raise InputError("the directory of the destination does not exist", subject=str(dest.parent)) from None
    target = parent / dest.name
    if not parent.is_dir() or not dest.name:
        raise InputError("the destination is not a file name in a directory", subject=str(dest))
    if target.is_symlink() or (target.exists() and not target.is_file()):
        raise InputError("the destination exists and is not a regular file", subject=str(target))
    names = {f"{source}{suffix}" for suffix in ("", *SIDE_FILES)}
    if str(target) in names or (target.exists() and target.samefile(source)):
        raise InputError("the destination is the source, or belongs to it", subject=str(target))
    _refuse_side_files(target)
    if not overwrite:
        _refuse_existing(target)
    notes = []
    links = source.stat().st_nlink
    if links > 1:
        notes.append(f"{source} has {links} names (hard links); journals go by name, this backup used this one")
    _require_space(source, parent)
    return source, target, notes


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise PreconditionError(
            "the destination exists already",
            subject=str(target),
            untouched=str(target),
            remedy="choose another name, or allow it to be replaced",
        )


def _refuse_side_files(target: Path) -> None:
    for suffix in SIDE_FILES:
        if os.path.lexists(f"{target}{suffix}"):
            raise PreconditionError(
                "lies beside the destination; SQLite would apply it to the snapshot and destroy it",
                subject=f"{target}{suffix}",
                untouched=str(target),
                remedy="move it away, or choose another destination",
            )


def _require_space(source: Path, directory: Path) -> None:
    needed = source.stat().st_size + _SPARE_BYTES
    with contextlib.suppress(FileNotFoundError):
        needed += os.stat(f"{source}-wal").st_size
    free = free_bytes(directory)
    if free < needed:
        raise PreconditionError(
            f"not enough space: {needed} bytes are needed, {free} are free",
            subject=str(directory),
            needed_bytes=needed,
            free_bytes=free,
        )


# ---------------------------------------------------------------- the file that is not a snapshot yet


@dataclass(frozen=True)
class _Partial:
    path: Path
    descriptor: int


@contextlib.contextmanager
def _partial(target: Path) -> Iterator[_Partial]:
    """A new private file beside `target`, removed at the end unless it was renamed.

    Its creator holds a `flock` on it, so that a later run tells a dead one from a working one.
    """
    _sweep(target)
    while True:
        path = target.parent / f".{target.name}.partial-{secrets.token_hex(6)}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.fchmod(descriptor, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        # A run that swept between the two calls took it for a dead one.
        os.close(descriptor)
    try:
        yield _Partial(path, descriptor)
    finally:
        for suffix in ("", *SIDE_FILES):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{path}{suffix}")
        os.close(descriptor)


def _sweep(target: Path) -> None:
    """Remove what killed runs for this destination left."""
    pattern = re.compile(re.escape(f".{target.name}.partial-") + r"[0-9a-f]{12}")
    for entry in sorted(os.listdir(target.parent)):
        if not pattern.fullmatch(entry):
            continue
        path = target.parent / entry
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                for suffix in (*SIDE_FILES, ""):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(f"{path}{suffix}")
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        finally:
            os.close(descriptor)


# ------------------------------------------------------------------------------ taking the snapshot


@dataclass(frozen=True)
class _Facts:
    page_size: int
    page_count: int
    schema_digest: str
    application_id: int
    user_version: int

    @classmethod
    def read(cls, con: sqlite3.Connection) -> _Facts:
        def ask(pragma: str) -> int:
            return int(con.execute(f"PRAGMA {pragma}").fetchone()[0])

        return cls(ask("page_size"), ask("page_count"), schema_digest(con), ask("application_id"), ask("user_version"))


@dataclass(frozen=True)
class _Taken:
    method: str
    passes: int
    lock_held_s: float
    journal_mode: str
    facts: _Facts
    notes: list[str]


def _empty(descriptor: int) -> None:
    """Make a file empty; one that is so already is left alone: ext4 writes a truncated file out when it is closed."""
    if os.fstat(descriptor).st_size:
        os.ftruncate(descriptor, 0)


class _Again(Exception):
    """The source is not what it was when this attempt began (replaced, other journal mode, other schema)."""


def _take(source: Path, partial: _Partial, deadline: Deadline, durable: bool) -> _Taken:
    for _attempt in range(_ATTEMPTS):
        # Opened before SQLite's connection and closed after it, because closing any descriptor of the
        # database would drop this process's locks on it.
        raw = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _empty(partial.descriptor)
            header = connect.parse_header(os.pread(raw, HEADER_BYTES, 0))
            if header is None:
                raise InputError("is not a SQLite database", subject=str(source))
            with connect.sqlite_errors(source):
                mirror = Mirror(raw, partial.descriptor, deadline, durable=durable)
                if header.wal:
                    return _from_wal(source, raw, partial, deadline, mirror)
                return _from_rollback(source, raw, partial, deadline, mirror)
        except _Again:
            deadline.check("starting again, because the database was replaced or changed its journal mode")
        finally:
            os.close(raw)
    raise PreconditionError(
        f"was replaced, or changed its journal mode or schema, during each of {_ATTEMPTS} attempts",
        subject=str(source),
    )


def _from_rollback(source: Path, raw: int, partial: _Partial, deadline: Deadline, mirror: Mirror) -> _Taken:
    clock = deadline.clock
    cloned = mirror.clone()
    if not cloned:
        mirror.precopy()
    con, notes = _begin(source, raw, deadline)
    try:
        locked_at = clock.monotonic()
        _require_same(source, raw)
        if _journal_mode(con) == "wal":
            raise _Again
        facts = _Facts.read(con)
        if cloned:
            mirror.clone()
        else:
            mirror.repair()
        _require_complete(source, raw, facts)
        con.execute("ROLLBACK")
        held = clock.monotonic() - locked_at
    finally:
        con.close()
    # A file may be longer than its database, never shorter.
    os.ftruncate(partial.descriptor, facts.page_size * facts.page_count)
    return _Taken("reflink" if cloned else "pre-copy", mirror.passes, held, "delete", facts, notes)


def _from_wal(source: Path, raw: int, partial: _Partial, deadline: Deadline, mirror: Mirror) -> _Taken:
    con, notes = _begin(source, raw, deadline)
    try:
        _require_same(source, raw)
        if _journal_mode(con) != "wal":
            raise _Again
        before = _Facts.read(con)
        cloned = mirror.clone()
        if not cloned:
            mirror.copy()
        has_log = _copy_log(source, partial, deadline)
        con.execute("ROLLBACK")
        # The log may have gone on since the transaction began, so the copy is of a moment between the two.
        after = _Facts.read(con)
    finally:
        con.close()
    if has_log:
        _fold_log(partial, deadline)
    facts = _facts_of(partial)
    if facts.schema_digest not in (before.schema_digest, after.schema_digest):
        raise _Again
    return _Taken("reflink" if cloned else "wal-copy", mirror.passes, 0.0, "wal", facts, notes)


def _begin(source: Path, raw: int, deadline: Deadline) -> tuple[sqlite3.Connection, list[str]]:
    """A connection inside a read transaction, which has really read: BEGIN alone takes no lock."""
    header = connect.parse_header(os.pread(raw, HEADER_BYTES, 0))
    if header is None:
        raise InputError("is not a SQLite database", subject=str(source))
    parameters = connect.reading_parameters(source, header)
    notes: list[str] = []
    con = connect.connect(source, timeout_s=0, **parameters)
    try:
        while True:
            try:
                con.execute("BEGIN")
                con.execute("SELECT count(*) FROM sqlite_master").fetchone()
                return con, notes
            except sqlite3.OperationalError as error:
                if con.in_transaction:
                    con.execute("ROLLBACK")
                if connect.is_locked(error):
                    _wait_for_lock(source, raw, deadline)
                elif connect.is_readonly(error) and parameters["mode"] == "ro":
                    _require_own_journal(source, raw)
                    con.close()
                    parameters = {"mode": "rw"}
                    con = connect.connect(source, timeout_s=0, **parameters)
                    notes.append("a crash had left a journal beside the database; SQLite rolled it back first")
                else:
                    raise
    except BaseException:
        con.close()
        raise


def _require_own_journal(source: Path, raw: int) -> None:
    """Refuse to let SQLite roll a journal back that belongs to another database."""
    journal = rollback_journal.inspect(source, os.pread(raw, HEADER_BYTES, 0))
    if journal.kind == "foreign":
        raise PreconditionError(
            f"the journal beside the database does not belong to it: {journal.reason}",
            subject=f"{source}-journal",
            untouched=str(source),
            remedy="move the journal away, with the service stopped; rolling it back would destroy the database",
        )


def _wait_for_lock(source: Path, raw: int, deadline: Deadline) -> None:
    if deadline.left_s <= 0:
        raise TimeoutExceeded(
            f"no lock within {deadline.timeout_s:g} s: {_lock_holder(raw)} kept writing or holds it exclusively",
            subject=str(source),
            untouched=str(source),
            remedy="look at that process; locking_mode=EXCLUSIVE makes backups impossible",
        )
    # Waiting longer between tries would lose against a writer that never pauses.
    deadline.clock.sleep(min(0.001, max(0.0, deadline.left_s)))


def _lock_holder(raw: int) -> str:
    """Who holds a lock that denies reading, as far as the kernel tells."""
    question = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, _LOCK_START, _LOCK_LENGTH, 0)
    kind, _whence, _start, _length, pid = struct.unpack(_FLOCK, fcntl.fcntl(raw, fcntl.F_GETLK, question))
    if kind == fcntl.F_UNLCK or pid <= 0:
        return "another process"
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return f"process {pid}"
    return f"process {pid} ({name})"


def _require_same(source: Path, raw: int) -> None:
    """The file copied so far is the one that SQLite has locked. Asks by name: no descriptor is opened."""
    locked, copied = os.stat(source), os.fstat(raw)
    if (locked.st_dev, locked.st_ino) != (copied.st_dev, copied.st_ino):
        raise _Again


def _require_complete(source: Path, raw: int, facts: _Facts) -> None:
    size = os.fstat(raw).st_size
    if size < facts.page_size * facts.page_count:
        raise IntegrityError(
            f"is truncated: {size} bytes instead of {facts.page_size * facts.page_count}", subject=str(source)
        )


def _journal_mode(con: sqlite3.Connection) -> str:
    return str(con.execute("PRAGMA journal_mode").fetchone()[0])


def _copy_log(source: Path, partial: _Partial, deadline: Deadline) -> bool:
    """Copy the write-ahead log beside the partial copy; False when there is none.

    A writer may begin the log anew, once, when all of it has been moved into the file already: then a copy with
    the old beginning and newer frames would be wrong, and the log is copied again. While the beginning
    stays, the log only grows.
    """
    try:
        log = os.open(f"{source}-wal", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        copy = os.open(f"{partial.path}-wal", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            while True:
                beginning = os.pread(log, 32, 0)
                _empty(copy)
                Mirror(log, copy, deadline, durable=False).copy()
                if os.pread(log, 32, 0) == beginning:
                    return True
                deadline.check("copying the write-ahead log")
        finally:
            os.close(copy)
    finally:
        os.close(log)


def _fold_log(partial: _Partial, deadline: Deadline) -> None:
    """Move the copied log into the copied file, so that the snapshot stands alone."""
    # On NFS a flock is a record lock and would keep SQLite out.
    fcntl.flock(partial.descriptor, fcntl.LOCK_UN)
    con = connect.connect(partial.path, timeout_s=1.0, mode="rw")
    try:
        deadline.bind(con)
        # Before the first read: the index of the log then lives in memory, not in a -shm file.
        con.execute("PRAGMA locking_mode=EXCLUSIVE")
        con.execute("PRAGMA synchronous=OFF")
        busy, frames, moved = con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        con.close()
    fcntl.flock(partial.descriptor, fcntl.LOCK_EX)
    if busy or frames != moved:
        raise IntegrityError(
            f"the copied write-ahead log could not be applied: {moved} of {frames} frames", subject=str(partial.path)
        )


def _facts_of(partial: _Partial) -> _Facts:
    con = connect.connect(partial.path, timeout_s=0, mode="ro", immutable="1")
    try:
        return _Facts.read(con)
    finally:
        con.close()


# ------------------------------------------------------------------------------ proving it


def _prove(
    source: Path, partial: _Partial, taken: _Taken, verify: str, rows: bool, deadline: Deadline
) -> dict[str, int]:
    """Open the copy read-only and compare it with what the source said under the lock; rows per table."""
    for suffix in SIDE_FILES:
        if os.path.lexists(f"{partial.path}{suffix}"):
            raise IntegrityError("a journal was left beside the snapshot", subject=f"{partial.path}{suffix}")
    size = os.fstat(partial.descriptor).st_size
    header = connect.parse_header(os.pread(partial.descriptor, HEADER_BYTES, 0))
    pages = size // taken.facts.page_size
    if header is None or size % taken.facts.page_size or header.page_count not in (0, pages):
        raise _damaged(source, f"{size} bytes do not agree with its header")
    try:
        with connect.reading(partial.path, immutable=True) as con:
            deadline.bind(con)
            if _Facts.read(con) != taken.facts:
                raise _damaged(source, "page count, schema or version differ from the source's")
            if verify != "open":
                messages, violations = damage(con, verify)
                messages += [f"broken foreign key: {row}" for row in violations[:5]]
                if messages:
                    raise _damaged(source, f"the {verify} check says: {'; '.join(messages[:5])}")
            return count_rows(con) if rows else {}
    except IntegrityError as error:
        if error.subject == str(source):
            raise
        raise _damaged(source, error.message) from error
    except TimeoutExceeded:
        deadline.check("proving the snapshot")
        raise


def _damaged(source: Path, why: str) -> EngineError:
    return IntegrityError(
        f"its snapshot is not sound, so the database is probably damaged: {why}",
        subject=str(source),
        untouched="the source; no snapshot was stored",
        remedy="check the database, and keep the last good backup",
    )


def _sha256(path: Path, deadline: Deadline) -> str:
    digest, buffer = hashlib.sha256(), bytearray(1 << 20)
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            digest.update(view[:count])
            deadline.check("computing the digest of the snapshot")
    return digest.hexdigest()
