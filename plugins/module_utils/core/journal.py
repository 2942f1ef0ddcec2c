# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maintenance journal: one JSON line per event, each bound to the one before by its hash.

Reports, metrics and the maintenance log are derived from it. A line that was cut off by a crash is
kept and skipped: the next entry starts on a line of its own and says so.

A journal that has grown large hands its oldest lines over to compressed files beside it, `journal-0001.jsonl.gz` and so
on. They stay parts of the chain, and of what is read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from .clock import Clock, utc_text
from .errors import EngineError, IntegrityError, PreconditionError
from .fsio import atomic_write, fsync_dir

GENESIS = "0" * 64
# A busy host writes some 10 MB in a year.
LARGE_BYTES = 8 << 20
KEEP_DAYS = 90


class Operation:
    """One operation in progress: collect its evidence, note its steps."""

    def __init__(self, journal: Journal, name: str, identity: str) -> None:
        self._journal = journal
        self.name = name
        self.id = identity
        self.result = "ok"
        self.evidence: dict[str, Any] = {}

    def step(self, step: str, **evidence: Any) -> None:
        """Record that `step` has been reached."""
        self._journal.append(self.name, "step", operation_id=self.id, step=step, **evidence)


class Journal:
    """Append-only journal file.

    Args:
        path: made with mode 0640 when it does not exist; its directory must exist.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self.path = Path(path)
        self._clock = clock or Clock()

    def append(self, operation: str, event: str, result: str = "", **evidence: Any) -> dict[str, Any]:
        """Add one entry, durably, and return it.

        Args:
            operation: name of the operation, such as `backup`.
            event: `start`, `step` or `end`.
            result: of an `end`: `ok`, `degraded` or `failed`.
            evidence: JSON-serialisable facts; never a secret.
        """
        entry: dict[str, Any] = {"time": utc_text(self._clock.now()), "operation": operation, "event": event}
        if result:
            entry["result"] = result
        entry.update(evidence)
        try:
            self._write(entry)
        except OSError as error:
            raise PreconditionError(
                f"the journal cannot be written: {error.strerror}", subject=str(self.path), errno=error.errno
            ) from None
        return entry

    def _write(self, entry: dict[str, Any]) -> None:
        created = not self.path.exists()
        descriptor = self._locked()
        try:
            tail = _tail(descriptor)
            whole = tail.endswith(b"\n") or not tail
            entry["previous"] = _line_hash(tail.rstrip(b"\n").rpartition(b"\n")[2]) if tail else GENESIS
            text = json.dumps(entry, sort_keys=True, ensure_ascii=False, default=str)
            # Names of files need not be valid text; what is not becomes the escape that JSON has for it.
            line = text.encode("utf-8", "backslashreplace") + b"\n"
            data = line if whole else b"\n" + line
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, data) < len(data):  # the disk is full: half an entry would be none
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if created:
            fsync_dir(self.path.parent)

    def _locked(self) -> int:
        """A descriptor of the journal that no other process writes to; not of a file that was replaced meanwhile."""
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                    return descriptor
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def rotate(self, *, larger_than: int = LARGE_BYTES, keep_days: int = KEEP_DAYS) -> Path | None:
        """Hand what is older than `keep_days` over to a compressed file, when the journal is larger than that.

        Nothing is lost and nothing is read twice when it is killed: until the journal is replaced, the new file's lines
        are in both, and count once.

        Returns the new file, or None when there was nothing to do.
        """
        if not self.path.exists() or self.path.stat().st_size <= larger_than:
            return None
        descriptor = self._locked()
        try:
            data = self.path.read_bytes()
            cut = _cut(data, utc_text(self._clock.now() - timedelta(days=keep_days)))
            if cut == 0:
                return None
            # The file of a rotation that was cut off is none of these, and is written anew. Older ones may be gone.
            numbers = [int(path.name[-len(f"0000{self.path.suffix}.gz") :][:4]) for path, _lines in self._files()[:-1]]
            archive = self.path.with_name(f"{self.path.stem}-{max(numbers, default=0) + 1:04}{self.path.suffix}.gz")
            status = os.fstat(descriptor)
            owner = (status.st_uid, status.st_gid)
            atomic_write(archive, gzip.compress(data[:cut], mtime=0), 0o640, owner)
            atomic_write(self.path, data[cut:], status.st_mode & 0o777, owner)
            return archive
        finally:
            os.close(descriptor)

    def archives(self) -> list[Path]:
        """Files that hold the journal's older lines, the oldest first."""
        return sorted(self.path.parent.glob(f"{self.path.stem}-[0-9][0-9][0-9][0-9]{self.path.suffix}.gz"))

    @contextlib.contextmanager
    def operation(self, name: str, **evidence: Any) -> Iterator[Operation]:
        """Record the start and the end of an operation, its duration, and the error that ended it."""
        operation = Operation(self, name, uuid.uuid4().hex[:12])
        started = self._clock.monotonic()
        self.append(name, "start", operation_id=operation.id, **evidence)
        try:
            yield operation
        except BaseException as error:
            unexpected = {"message": f"{type(error).__name__}: {error}"}
            described = error.as_dict() if isinstance(error, EngineError) else unexpected
            self.append(
                name,
                "end",
                "failed",
                operation_id=operation.id,
                duration_s=round(self._clock.monotonic() - started, 3),
                **{**operation.evidence, "error": described},
            )
            raise
        self.append(
            name,
            "end",
            operation.result,
            operation_id=operation.id,
            duration_s=round(self._clock.monotonic() - started, 3),
            **operation.evidence,
        )

    def read(self, operation: str | None = None, limit: int | None = None) -> list[dict[str, Any]]:
        """Entries in order, those of one operation's name if given, the last `limit` of them if given.

        An older part that cannot be read hinders nobody who needs the rest; `verify` names it.
        """
        entries = [
            entry
            for line in self._lines()
            if (entry := _parse(line)) is not None
            and all(isinstance(entry.get(key), str) for key in ("time", "operation", "event"))
            and operation in (None, entry["operation"])
        ]
        return entries if limit is None else entries[max(len(entries) - limit, 0) :]

    def verify(self) -> int:
        """Check the hash chain, over the archives too, and return the number of entries.

        Raises IntegrityError naming the first line that does not follow from the one before it.
        """
        expected = GENESIS
        count = 0
        for path, lines in self._files(strict=True):
            for number, line in enumerate(lines, start=1):
                entry = _parse(line)
                if entry is not None:
                    if entry.get("previous") != expected:
                        raise IntegrityError(
                            f"line {number} does not follow from the line before it", subject=str(path), line=number
                        )
                    count += 1
                expected = _line_hash(line)
        return count

    def _lines(self) -> list[bytes]:
        return [line for _path, lines in self._files() for line in lines]

    def _files(self, *, strict: bool = False) -> list[tuple[Path, list[bytes]]]:
        """Each file with its lines. The journal itself is read first: lines only ever leave it.

        Args:
            strict: raise IntegrityError when an archive cannot be read, instead of taking it for an empty one.
        """
        try:
            lines = _split(self.path.read_bytes())
        except FileNotFoundError:
            lines = []
        files = [(archive, _split(_decompressed(archive, strict))) for archive in self.archives()]
        # What a rotation that was cut off has left is in the journal, too: no two lines of a chain are the same.
        return [
            *((archive, older) for archive, older in files if older[:1] != lines[:1] or not lines),
            (self.path, lines),
        ]


def _split(data: bytes) -> list[bytes]:
    return [line for line in data.split(b"\n") if line]


def _decompressed(archive: Path, strict: bool) -> bytes:
    try:
        return gzip.decompress(archive.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        if not strict:
            return b""
        raise IntegrityError(f"an older part of the journal cannot be read: {error}", subject=str(archive)) from None


def _cut(data: bytes, before: str) -> int:
    """Where the first line that is not older than `before` begins; the last line always stays."""
    cut = position = 0
    for line in data.splitlines(keepends=True)[:-1]:
        entry = _parse(line)
        if entry is not None and str(entry.get("time", "")) >= before:
            break
        position += len(line)
        cut = position
    return cut


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _line_hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _tail(descriptor: int) -> bytes:
    """The end of the file, long enough to hold its whole last line."""
    size = os.fstat(descriptor).st_size
    length = 4096
    while True:
        start = max(size - length, 0)
        data = os.pread(descriptor, size - start, start)
        if start == 0 or b"\n" in data.rstrip(b"\n"):
            return data
        length *= 4
