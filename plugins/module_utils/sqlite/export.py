# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of a query as a file that others can keep: CSV or Parquet, complete and checkable.

Beside `<file>` lie `<file>.json` (rows, SHA-256, query, month, what was read when) and `<file>.sha256`, for `sha256sum
-c`. All three are written under other names and brought to the disk before the first gets its name. Then the old digest
goes, the file comes, the record takes the old one's place, the digest comes. So a kill leaves the old file or the new
one, whole, never a digest that is not its own, and always its record, if only under its other name. What has no digest
beside it is not finished: the next run into the directory finishes it before it does anything else.

The query can only read, and reads one state of the database. In WAL mode that is a transaction on the live database,
for which no writer waits. In rollback-journal mode it would keep writers from committing, so a private hot snapshot is
taken, read and removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..core.clock import Clock, utc_text
from ..core.errors import InputError, LeaseError, PreconditionError
from ..core.fsio import json_bytes, open_regular
from ..core.period import Period, zone
from ..core.version import VERSION
from . import connect, fingerprint, hot_backup
from .connect import Deadline
from .export_csv import BLOBS, Csv, Rows
from .export_parquet import Kinds, Parquet, require
from .row_time import read_time

FORMATS = ("csv", "parquet")
LIVE, SNAPSHOT = "live", "snapshot"
SOURCES = ("auto", SNAPSHOT)

_SUFFIX = ".fluxmaint-export"
_RECORD, _DIGEST = ".json", ".sha256"
_PATIENCE_S = 5.0
_BATCH_ROWS = 2000
_BATCH_BYTES = 1 << 20
_CHUNK = 1 << 20
# What a record says of the run rather than of the file: no reason to write the file again.
_OF_THE_RUN = frozenset({"cut_off", "engine_version", "read"})


@dataclass(frozen=True)
class Export:
    """What to export, and where to.

    Attributes:
        source: the database.
        sql: one SELECT. With a period it uses `:begin` and `:end` (UTC, `2026-10-01T04:00:00`) or `:begin_unix` and
            `:end_unix` (seconds), all of the half-open interval.
        destination: the file; its directory exists.
        name: of the query, for the record.
        format: `csv` or `parquet`.
        blobs: how CSV, and Parquet's mixed columns, write them: `hex` or `base64`.
        spreadsheet: CSV that a spreadsheet takes for no formula.
        local_times: columns whose times are written in `time_zone`; those that name no zone are UTC.
        require_rows: no row at all is a failure.
        accept_fewer: replace an export of the same finished month that had more rows.
        mode: of the new files; they belong to the owner and the group of their directory.
    """

    source: Path
    sql: str
    destination: Path
    name: str = ""
    format: str = "csv"
    period: Period | None = None
    blobs: str = "hex"
    spreadsheet: bool = False
    local_times: Sequence[str] = ()
    time_zone: str = "UTC"
    require_rows: bool = False
    accept_fewer: bool = False
    mode: int = 0o640


@dataclass(frozen=True)
class Compiled:
    """A query that compiles and can only read: the parameters that it uses."""

    parameters: frozenset[str]


Step = Callable[[str, dict[str, Any]], None]
# Gives a connection that can only read, and how it reads; see `archive_query.opened`.
Reader = Callable[[Deadline], contextlib.AbstractContextManager[tuple[sqlite3.Connection, dict[str, Any]]]]


def run(
    wanted: Export,
    *,
    timeout_s: float = 600.0,
    source: str = "auto",
    reader: Reader | None = None,
    work_dir: Path | None = None,
    max_wait_s: float = 5.0,
    dry_run: bool = False,
    clock: Clock | None = None,
    step: Step | None = None,
) -> dict[str, Any]:
    """Export a query's result.

    Args:
        timeout_s: for everything; when it is over nothing has changed.
        source: `auto`, or `snapshot` to read from a snapshot in WAL mode too.
        reader: what to read from instead: a snapshot of the database that shows more rows than it has.
        work_dir: an existing directory for the snapshot, as private as the database; that of the destination if None.
        max_wait_s: refuse to take a snapshot for which writers may wait longer than this.
        dry_run: do everything but leave a file behind.
        step: told of each step.

    Returns:
        `changed`, `path`, the record's keys, `read` (from what, and how long writers may have waited), `notes` that an
        operator should know, and `before` and `after` for a diff: the records of the old and the new file.

    Raises:
        InputError: the query, a name or a value is not what it should be.
        PreconditionError: no rows, fewer than before, pyarrow missing, no space.
        LeaseError: another export into this directory runs.
        TimeoutExceeded: the time was over.
    """
    clock = clock or Clock()
    _check(wanted, source)
    deadline = Deadline(clock, timeout_s, str(wanted.source))
    note = step or _silent
    if wanted.format == "parquet":
        require()
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(_Place.locked(wanted.destination, wanted.mode))
        try:
            finished = not dry_run and wanted.destination.name in place.sweep()
            con, read, cut_off = stack.enter_context(
                _reading(wanted, source, reader, work_dir or place.path, max_wait_s, deadline)
            )
            note("query", {"path": str(wanted.destination), **read})
            written = stack.enter_context(place.file("", discard=dry_run))
            made = _Rows(con, wanted, deadline).write(written)
            record = _record(wanted, made, written, read, cut_off)
            return _publish(wanted, place, record, made.notes, dry_run, finished, note)
        except OSError as error:
            raise PreconditionError(
                f"the export failed: {error.strerror}",
                subject=str(wanted.destination),
                untouched="the database, and whatever had the name of the export",
                errno=error.errno,
            ) from error


def compile_query(con: sqlite3.Connection, sql: str, subject: str, *, name: str = "") -> Compiled:
    """Compile a query against a live schema without running it, on a connection that from then on can only read.

    Raises InputError when it is not one statement, or one that does more than reading.
    """
    asked = _Asked()
    fingerprint.only_reading(con)
    called = f"the query {name}" if name else f"the query {sql!r:.200}"
    try:
        steps = con.execute(f"EXPLAIN {sql}", asked).fetchall()
        if not any(step[1] == "ResultRow" for step in steps):  # such as VACUUM, which asks for nothing until it runs
            raise sqlite3.DatabaseError("it gives no rows")
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise InputError(
            f"{called} is not one SELECT that fits this database: {error}", subject=subject, untouched="everything"
        ) from None
    return Compiled(frozenset(asked.names))


def require_period(compiled: Compiled, period: Period | None, subject: str) -> None:
    """Raise InputError unless a query asks for a period exactly when there is one.

    A file that is named after a month must not hold something else.
    """
    known = frozenset({"begin", "end", "begin_unix", "end_unix"})
    unknown = compiled.parameters - known
    if unknown:
        raise InputError(f"the query asks for :{min(unknown)}; there is {_listed(known)}", subject=subject)
    if period is None and compiled.parameters:
        raise InputError(f"the query asks for {_listed(compiled.parameters)}, so it needs a month", subject=subject)
    if period is not None:
        sides = {name.partition("_")[0] for name in compiled.parameters}
        lacking = {"begin", "end"} - sides
        if lacking:
            raise InputError(
                f"the query does not use {_listed(lacking)}, so its result would not be that of {period.month}",
                subject=subject,
                remedy="compare its time column with both, as in: at >= :begin AND at < :end",
            )


def _listed(names: Iterable[str]) -> str:
    return " and ".join(f":{name}" for name in sorted(names))


def read_sql(path: Path) -> str:
    """The text of a file with a query. Raises InputError naming it."""
    with open_regular(path) as stream:
        try:
            return stream.read(_CHUNK).decode()
        except UnicodeDecodeError:
            raise InputError("is not UTF-8, so not a query", subject=str(path)) from None


def parse_mode(text: str) -> int:
    """Permissions in octal, such as `0640`. Raises InputError."""
    if not re.fullmatch("0?[0-7]{3}", text, re.ASCII):
        raise InputError(f"{text!r} is not a mode like 0640")
    return int(text, 8)


class _Asked(dict[str, Any]):
    """Stands for the values of parameters and notes which ones are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __missing__(self, name: str) -> None:
        self.names.add(name)


def _check(wanted: Export, source: str) -> None:
    for what, value, choices in (
        ("format", wanted.format, FORMATS),
        ("blobs", wanted.blobs, BLOBS),
        ("source", source, SOURCES),
    ):
        if value not in choices:
            raise InputError(f"{what} is one of {', '.join(choices)}, not {value!r}", subject=str(wanted.destination))
    if wanted.spreadsheet and wanted.format != "csv":
        raise InputError("only CSV can be made safe for spreadsheets", subject=str(wanted.destination))
    if not wanted.destination.name or not wanted.destination.name.isprintable() or "\\" in wanted.destination.name:
        raise InputError("is not a name that sha256sum could list", subject=str(wanted.destination))
    zone(wanted.time_zone)
    real = Path(os.path.realpath(wanted.destination))
    source_files = [Path(f"{os.path.realpath(wanted.source)}{suffix}") for suffix in ("", *connect.SIDE_FILES)]
    if real in source_files or connect.is_sqlite(wanted.destination):
        raise InputError("is a database, and an export would replace it", subject=str(wanted.destination))


def _silent(_step: str, _facts: dict[str, Any]) -> None:
    return


# ---------------------------------------------------------------------------------------- what is read


@contextlib.contextmanager
def _reading(
    wanted: Export, source: str, reader: Reader | None, work_dir: Path, max_wait_s: float, deadline: Deadline
) -> Iterator[tuple[sqlite3.Connection, dict[str, Any], datetime]]:
    """A connection inside one read transaction that can only read, how it reads, and the cut-off.

    What was committed before the cut-off is there.
    """
    patience_s = min(_PATIENCE_S, deadline.left_s)
    with connect.reading(wanted.source, busy_timeout_s=patience_s) as con:
        # A wrong query is refused before anything is copied.
        compiled = compile_query(con, wanted.sql, str(wanted.source), name=wanted.name)
    require_period(compiled, wanted.period, str(wanted.source))
    real, header = connect.require_database(wanted.source)
    cut_off = deadline.clock.now()
    if header.wal and source == "auto" and reader is None:
        with connect.reading(real, busy_timeout_s=patience_s) as con:
            deadline.bind(con)
            con.execute("BEGIN")
            con.execute("SELECT count(*) FROM sqlite_master").fetchone()
            fingerprint.only_reading(con)
            yield con, {"from": LIVE, "journal_mode": "wal", "lock_held_s": 0.0}, cut_off
        return
    size = real.stat().st_size
    wait_s = 0.0 if header.wal else hot_backup.predicted_wait_s(size)
    if wait_s > max_wait_s:
        raise PreconditionError(
            f"writers may have to wait {wait_s:.1f} s for the snapshot of {size} bytes, longer than {max_wait_s:g} s",
            subject=str(wanted.source),
            untouched="everything",
            remedy="switch the database to WAL mode, or raise the service's busy timeout and this limit",
        )
    if reader is not None:
        with reader(deadline) as (con, how), connect.sqlite_errors(wanted.source):
            yield con, how, cut_off
        return
    tag = hashlib.sha256(os.fsencode(wanted.destination)).hexdigest()[:16]
    copy = work_dir / f".snapshot-{tag}{_SUFFIX}"
    try:
        taken = hot_backup.transient(real, copy, timeout_s=deadline.left_s, overwrite=True, clock=deadline.clock)
        with connect.reading(copy, immutable=True) as con, connect.sqlite_errors(wanted.source):
            deadline.bind(con)
            fingerprint.only_reading(con)
            how = {"from": SNAPSHOT, "journal_mode": taken.journal_mode, "lock_held_s": taken.lock_held_s}
            yield con, how, cut_off
    finally:
        copy.unlink(missing_ok=True)


def sweep_snapshots(work_dir: Path) -> None:
    """Remove the snapshots that killed exports left in a directory. The caller lets no export run meanwhile."""
    for path in work_dir.glob(f".*{_SUFFIX}*"):
        path.unlink(missing_ok=True)


class _Rows:
    """The result of a query on its way into a file."""

    def __init__(self, con: sqlite3.Connection, wanted: Export, deadline: Deadline) -> None:
        self._con = con
        self._wanted = wanted
        self._deadline = deadline
        self._parameters: Mapping[str, Any] = wanted.period.parameters() if wanted.period else {}
        self._odd_times = 0
        self.rows = 0
        self.columns: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def write(self, stream: io.BufferedIOBase) -> _Rows:
        """Write everything."""
        undecodable = self._parquet(stream) if self._wanted.format == "parquet" else self._csv(stream)
        if undecodable:
            self.notes.append(f"{undecodable} cells hold text that is not UTF-8; what is not became U+FFFD")
        if self._odd_times:
            columns = ", ".join(self._wanted.local_times)
            self.notes.append(f"{self._odd_times} cells of {columns} are no times; they are left as stored")
        return self

    def _csv(self, stream: io.BufferedIOBase) -> int:
        lines = Csv(blobs=self._wanted.blobs, spreadsheet=self._wanted.spreadsheet)
        names, batches = self._query()
        kinds = Kinds(len(names))
        stream.write(lines.header(names))
        for batch in batches:
            kinds.add(batch)
            stream.write(lines.lines(batch))
            self.rows += len(batch)
        self.columns = [{"name": name, "sqlite_types": found} for name, found in zip(names, kinds.sqlite_types())]
        return lines.undecodable

    def _parquet(self, stream: io.BufferedIOBase) -> int:
        names, batches = self._query()
        kinds = Kinds(len(names))
        for batch in batches:  # the types must be known before the first row is written
            kinds.add(batch)
        metadata = {"query": self._wanted.name, "query_sha256": _sha256(self._wanted.sql)}
        if self._wanted.period:
            metadata.update(self._wanted.period.as_dict())
        self._odd_times = 0
        table = Parquet(stream, names, kinds, blobs=self._wanted.blobs, metadata=metadata)
        for batch in self._query()[1]:
            table.write(batch)
            self.rows += len(batch)
        table.close()
        self.columns = [
            {"name": name, "sqlite_types": found, "type": kind}
            for name, found, kind in zip(names, kinds.sqlite_types(), kinds.parquet_types())
        ]
        mixed = [column["name"] for column in self.columns if len(column["sqlite_types"]) > 1]
        if mixed:
            self.notes.append(f"columns with values of several types: {', '.join(mixed)}")
        return table.undecodable

    def _query(self) -> tuple[list[str], Iterator[Rows]]:
        self._con.text_factory = bytearray
        try:
            cursor = self._con.execute(self._wanted.sql, self._parameters)
        except sqlite3.ProgrammingError as error:
            raise InputError(f"the query is not one SELECT: {error}", subject=str(self._wanted.source)) from None
        stored = [str(column[0]) for column in cursor.description]
        local = self._local(stored)
        return _unique(stored, self.notes), self._batches(cursor, local)

    def _batches(self, cursor: sqlite3.Cursor, local: Sequence[int]) -> Iterator[Rows]:
        place = zone(self._wanted.time_zone)
        batch: list[Sequence[Any]] = []
        size = 0
        for stored in cursor:
            values = list(stored)
            for index in local:
                values[index] = self._local_time(values[index], place)
            batch.append(values)
            size += sum(len(value) for value in values if type(value) in (bytearray, bytes))
            if len(batch) == _BATCH_ROWS or size > _BATCH_BYTES:
                yield batch
                self._deadline.check("exporting rows")
                batch, size = [], 0
        if batch:
            yield batch

    def _local(self, names: Sequence[str]) -> list[int]:
        """Where the columns are whose times are written in a time zone."""
        for name in self._wanted.local_times:
            if name not in names:
                raise InputError(f"the result has no column {name}", subject=str(self._wanted.source))
        return [index for index, name in enumerate(names) if name in self._wanted.local_times]

    def _local_time(self, value: Any, place: Any) -> Any:
        if value is None:
            return None
        moment = read_time(value.decode("utf-8", "replace") if isinstance(value, bytearray) else value)
        if moment is None:
            self._odd_times += 1
            return value
        digits = "microseconds" if moment.microsecond % 1000 else "milliseconds" if moment.microsecond else "seconds"
        return bytearray(moment.astimezone(place).isoformat(timespec=digits).encode())


def _unique(names: Sequence[str], notes: list[str]) -> list[str]:
    """Names of columns of which no two are equal, whatever their case: `id`, `id_2`."""
    taken = {name.casefold() for name in names}
    seen: set[str] = set()
    found = []
    for name in names:
        chosen, number = name, 2
        while chosen.casefold() in seen or (chosen != name and chosen.casefold() in taken):
            chosen, number = f"{name}_{number}", number + 1
        if chosen != name:
            notes.append(f"a second column {name} is called {chosen}")
        seen.add(chosen.casefold())
        found.append(chosen)
    return found


# ------------------------------------------------------------------------------------- what is written


class _Hashed(io.BufferedIOBase):
    """A file that is written once; tells its digest and its size. Without a descriptor nothing is kept."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._digest = hashlib.sha256()
        self.bytes = 0

    @property
    def sha256(self) -> str:
        """Of all that was written."""
        return self._digest.hexdigest()

    def writable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """How much was written."""
        return self.bytes

    def write(self, data: Any) -> int:
        """Write all of it."""
        view = memoryview(data).cast("B")
        self._digest.update(view)
        self.bytes += len(view)
        left = view
        while self._descriptor is not None and left:
            left = left[os.write(self._descriptor, left) :]
        return len(view)


class _Place:
    """The directory of an export, held by its descriptor, so that nobody can put another in its place meanwhile.

    Attributes:
        publishing: what was written stays, whatever happens: it may be all that tells of the file that is there.
    """

    def __init__(self, destination: Path, descriptor: int, mode: int) -> None:
        self.path = destination.parent
        self._name = destination.name
        self._descriptor = descriptor
        self._mode = mode
        self.publishing = False

    @classmethod
    @contextlib.contextmanager
    def locked(cls, destination: Path, mode: int) -> Iterator[_Place]:
        """The directory, with the right to export into it. The kernel takes the right from a dead process."""
        try:
            descriptor = os.open(destination.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(
                f"is no directory to export into: {error.strerror}", subject=str(destination.parent)
            ) from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LeaseError(
                    "another export into this directory runs",
                    subject=str(destination.parent),
                    untouched="everything",
                    remedy="wait until it has ended",
                ) from None
            yield cls(destination, descriptor, mode)
        finally:
            os.close(descriptor)

    def sweep(self) -> set[str]:
        """Finish what killed exports began to publish, then remove what they left: nobody else exports into here.

        Returns the names of those that were finished.
        """
        left = [name for name in os.listdir(self._descriptor) if name.startswith(".") and _SUFFIX in name]
        begun = {
            name[1 : -len(beside + _SUFFIX)]
            for beside in (_RECORD, _DIGEST)
            for name in left
            if name.endswith(beside + _SUFFIX)
        }
        finished = {name for name in begun if name and _Place(self.path / name, self._descriptor, self._mode).finish()}
        for name in left:
            self.remove(name)
        return finished

    def finish(self) -> bool:
        """Give the file that is there its record and its digest, where a killed export had no time for that."""
        try:
            sha256 = self.sha256()
        except InputError:  # whoever exports to this name is told
            return False
        record, pending = self.record(sha256)
        if sha256 is None or record.get("sha256") != sha256 or record.get("file") != self._name:
            return False
        digest = self.digest(sha256)
        if pending:
            self.put(_RECORD)
            self.sync()
        elif self.read(_DIGEST) == digest:
            return False
        if self._read(self._partial(_DIGEST)) == digest:
            self.put(_DIGEST)
        else:  # the new file did not come; its record is there until this is done, so that a kill here is noticed too
            self.remove(self._partial(_DIGEST))
            with self.file(_DIGEST) as stream:
                stream.write(digest)
                self.settle(_DIGEST)
                self.put(_DIGEST)
        self.sync()
        return True

    def record(self, sha256: str | None) -> tuple[dict[str, Any], bool]:
        """The record of the file with this digest, and whether a killed export left it under its other name.

        Where there is none of that file: what lies in its place.
        """
        stands = _parsed(self.read(_RECORD))
        if sha256 is None or stands.get("sha256") == sha256:
            return stands, False
        left = _parsed(self._read(self._partial(_RECORD)))
        return (left, True) if left.get("sha256") == sha256 else (stands, False)

    def digest(self, sha256: str) -> bytes:
        """The line for `sha256sum -c`."""
        return f"{sha256}  {self._name}\n".encode()

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    @contextlib.contextmanager
    def file(self, suffix: str, *, discard: bool = False) -> Iterator[_Hashed]:
        """A new file under another name, which is removed at the end unless it is put in place, or about to be."""
        if discard:
            yield _Hashed(None)
            return
        name = self._partial(suffix)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(name, flags, 0o600, dir_fd=self._descriptor)
        try:
            yield _Hashed(descriptor)
        finally:
            os.close(descriptor)
            if not self.publishing:
                self.remove(name)

    def settle(self, suffix: str) -> None:
        """Give a complete file its owner and mode, and bring it to the disk."""
        descriptor = os.open(self._partial(suffix), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._descriptor)
        try:
            if os.geteuid() == 0:
                owner = os.fstat(self._descriptor)
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            os.fchmod(descriptor, self._mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def put(self, suffix: str) -> None:
        """Let a complete file have its name."""
        directory = self._descriptor
        os.replace(self._partial(suffix), self._name + suffix, src_dir_fd=directory, dst_dir_fd=directory)

    def sync(self) -> None:
        """Bring the directory's entries to the disk."""
        os.fsync(self._descriptor)

    def read(self, suffix: str) -> bytes | None:
        """A small file beside the export; None when there is none, or something else."""
        return self._read(self._name + suffix)

    def _read(self, name: str) -> bytes | None:
        with self._open(name) as descriptor:
            return None if descriptor is None else os.read(descriptor, _CHUNK)

    def sha256(self) -> str | None:
        """The digest of the export that is there; None when there is none."""
        with self._open(self._name, required=True) as descriptor:
            if descriptor is None:
                return None
            digest = hashlib.sha256()
            while chunk := os.read(descriptor, _CHUNK):
                digest.update(chunk)
            return digest.hexdigest()

    def _partial(self, suffix: str) -> str:
        return f".{self._name}{suffix}{_SUFFIX}"

    @contextlib.contextmanager
    def _open(self, name: str, *, required: bool = False) -> Iterator[int | None]:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = None
        with contextlib.suppress(FileNotFoundError):
            try:
                descriptor = os.open(name, flags, dir_fd=self._descriptor)
            except OSError as error:
                if required and not isinstance(error, FileNotFoundError):
                    raise InputError(
                        f"is there already and is no export: {error.strerror}", subject=str(self.path / self._name)
                    ) from None
        try:
            if descriptor is not None and not stat.S_ISREG(os.fstat(descriptor).st_mode):
                if required:
                    raise InputError("is there already and is not a regular file", subject=str(self.path / self._name))
                yield None
            else:
                yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _record(
    wanted: Export, made: _Rows, written: _Hashed, read: Mapping[str, Any], cut_off: datetime
) -> dict[str, Any]:
    period = wanted.period
    return {
        "file": wanted.destination.name,
        "format": wanted.format,
        "rows": made.rows,
        "bytes": written.bytes,
        "sha256": written.sha256,
        "columns": made.columns,
        "query": wanted.name,
        "query_sha256": _sha256(wanted.sql),
        "database": str(wanted.source),
        "period": period.as_dict() if period else None,
        "complete": period.end <= cut_off if period else None,
        "time_zone": period.time_zone if period else wanted.time_zone,
        "local_times": list(wanted.local_times),
        "blobs": wanted.blobs,
        "spreadsheet": wanted.spreadsheet,
        "cut_off": utc_text(cut_off),
        "read": dict(read),
        "notes": made.notes,
        "engine_version": VERSION,
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _publish(
    wanted: Export,
    place: _Place,
    record: dict[str, Any],
    notes: list[str],
    dry_run: bool,
    finished: bool,
    note: Step,
) -> dict[str, Any]:
    if wanted.require_rows and not record["rows"]:
        raise PreconditionError(
            "the query gives no row",
            subject=str(wanted.destination),
            untouched="whatever had the name of the export",
            remedy="look whether the query's time column is written as its parameters are",
        )
    sha256 = place.sha256()
    beside = place.read(_RECORD)
    before, pending = place.record(sha256)
    if sha256 is None and beside is not None and before.get("file") != wanted.destination.name:
        raise InputError(
            "is no record of an export, and would be replaced", subject=f"{wanted.destination}{_RECORD}", untouched="it"
        )
    digest = place.digest(record["sha256"])
    same = sha256 == record["sha256"]
    stale = not same or pending or place.read(_DIGEST) != digest or _of_the_file(before) != _of_the_file(record)
    if not same:
        _refuse_fewer(wanted, before, record, sha256)
    result = {
        "changed": stale or finished,
        "path": str(wanted.destination),
        **record,
        "before": before if sha256 is not None else {},
        "after": record if stale else before,
        "notes": [*notes, "finished what a killed export had left undone"] if finished else notes,
    }
    if not stale or dry_run:
        return result
    with contextlib.ExitStack() as stack:
        for suffix, data in ((_RECORD, json_bytes(record)), (_DIGEST, digest)):
            stack.enter_context(place.file(suffix)).write(data)
        for suffix in ("", _RECORD, _DIGEST):
            place.settle(suffix)
        note("replace", {"path": str(wanted.destination), "rows": record["rows"], "sha256": record["sha256"]})
        place.publishing = True
        place.remove(wanted.destination.name + _DIGEST)
        place.sync()
        place.put("")
        place.sync()
        place.put(_RECORD)
        place.sync()
        place.put(_DIGEST)
        place.sync()
        place.publishing = False
    return result


def _refuse_fewer(wanted: Export, before: Mapping[str, Any], record: Mapping[str, Any], sha256: str | None) -> None:
    """A finished month does not lose rows; when it does, the old export may be all that is left of them."""
    old, new = before.get("rows"), int(record["rows"])
    known = sha256 is not None and before.get("sha256") == sha256 and isinstance(old, int)
    if wanted.period is None or wanted.accept_fewer or not known or new >= int(before["rows"]):
        return
    if before.get("complete") and before.get("period") == record["period"]:
        raise PreconditionError(
            f"the export of {wanted.period.month} has {old} rows, the database now gives {new}",
            subject=str(wanted.destination),
            untouched=str(wanted.destination),
            remedy="find out where the rows are; keep the old file elsewhere, or accept that there are fewer",
            rows_before=old,
            rows=new,
        )


def _of_the_file(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in _OF_THE_RUN}


def _parsed(data: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
