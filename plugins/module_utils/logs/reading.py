# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what is new in the service's logs: files through rotation and compression, and systemd's journal.

Each step is one transaction: what was counted, and up to where. A process that dies in between has counted nothing
twice and lost nothing: the next one goes on where the last step ended.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ..core.clock import Clock
from ..core.config import Config, Logs
from ..core.errors import ConfigError, EngineError
from ..core.journal import Journal
from ..core.lease import Lease
from ..core.progress import BYTES, Report
from ..sqlite.connect import reading
from . import files, journald
from .counting import Counting, Rules
from .database import GapFound, LogDatabase, Stream, open_database
from .files import DAMAGED, HEAD_BYTES, TAIL_BYTES, Content, LogPiece, digest
from .forms import MOST_LINE
from .redaction import shown
from .times import zone_of

DATABASE = "logs.db"
_LOCK = "logs.lock"
# So much stays in the processor's cache while it is counted.
_CHUNK = 256 << 10
# What glibc has been given back once at this size it keeps from then on, instead of fetching each block's pages anew.
_KEPT = 16 << 20
# An event that is larger is cut where the reading happens to be.
_MOST_HELD_BYTES = 4 << 20
# What is read between two transactions.
_STEP_BYTES = 64 << 20
_STEP_SIZE = 20_000
_STEP_ENTRIES = 50_000
# Lines that may be one event. Beyond that an event is cut where the reading happens to be.
_MOST_HELD_LINES = 3000
# A file that was not written for so long ends with a whole event; a rotated one, for so long, with a whole line.
_QUIET_S = 1.0
_SETTLED_S = 60.0
# The last bytes that were read, in which the time of the newest line is looked for.
_REMEMBERED = 20_000
_JOURNAL_TIMEOUT_S = 3600.0


@dataclass
class SourceResult:
    """What one source brought in this run."""

    name: str
    kind: str
    bytes: int = 0
    events: int = 0
    unparsed: int = 0
    doubles_dropped: int = 0
    gaps: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def database_file(config: Config) -> Path:
    """Where the totals of this host are."""
    return config.state_dir / DATABASE


def read(
    config: Config,
    *,
    clock: Clock | None = None,
    journal: Journal | None = None,
    progress: Report | None = None,
) -> dict[str, Any]:
    """Read what is new in every log of the service, and add it to the totals.

    Returns the facts of the run: `result` is `degraded` when a source could not be read. Raises ConfigError when the
    contract names no logs, LeaseError while another process reads them.
    """
    if config.logs is None:
        raise ConfigError("the configuration has no section logs", remedy="set service_logs_dir for this host")
    clock = clock or Clock()
    journal = journal or Journal(config.journal_file, clock)
    with Lease(config.state_dir / _LOCK, purpose="logs read", clock=clock):
        with journal.operation("logs_read") as operation:
            with open_database(database_file(config), most_messages=config.logs.most_messages) as database:
                _note_release(config, database)
                results = _Run(config, config.logs, database, clock, progress).all()
                database.forget(int(clock.now().timestamp()), config.logs.keep_days, config.logs.hourly_days)
            found = [asdict(result) for result in results]
            operation.result = "degraded" if any(result.errors for result in results) else "ok"
            operation.evidence.update(sources=found)
    return {
        "result": operation.result,
        "changed": any(result.bytes or result.gaps for result in results),
        "bytes": sum(result.bytes for result in results),
        "events": sum(result.events for result in results),
        "sources": found,
    }


def unread(config: Config) -> list[dict[str, Any]]:
    """The files that hold something new, without reading or changing it: name, path, and bytes as far as known.

    Of a compressed file its own size is told. What is new in systemd's journal is not looked at.
    """
    if config.logs is None:
        raise ConfigError("the configuration has no section logs", remedy="set service_logs_dir for this host")
    path = database_file(config)
    with contextlib.ExitStack() as stack:
        con = stack.enter_context(reading(path)) if path.exists() else None
        found = []
        for live in live_files(config.logs):
            name = name_of(config.logs, live)
            known = [] if con is None else LogDatabase(path, con, 0).streams_of("file", name)
            for piece in files.pieces(live):
                new = _new_bytes(piece, known)
                if new:
                    found.append({"name": name, "path": shown(str(piece.path)), "bytes": new})
    return found


def _new_bytes(piece: LogPiece, known: Sequence[Stream]) -> int:
    if _unchanged(piece, known):
        return 0
    stream, copy_of = _identify(piece, known)
    if copy_of is not None or (stream is not None and stream.complete and piece.compressed):
        return 0
    return piece.size - (stream.offset if stream is not None and not piece.compressed else 0)


def _unchanged(piece: LogPiece, known: Sequence[Stream]) -> list[Stream]:
    """The streams that were read to their ends from this file, which has not changed since."""
    return [
        stream
        for stream in known
        if stream.complete and (stream.device, stream.inode) == (piece.device, piece.inode)
        if (stream.size, stream.modified_ns) == (piece.size, piece.modified_ns)
    ]


def _note_release(config: Config, database: LogDatabase) -> None:
    """Note what runs now, from the link to the deployed release."""
    link = config.system.release_link if config.system else None
    if link is not None and link.is_symlink():
        database.note_release(link.readlink().name, int(link.lstat().st_mtime))


def live_files(logs: Logs) -> list[Path]:
    """The files that are written, by the contract's patterns; what rotation has left of one of them is none."""
    found = {path for pattern in logs.patterns for path in logs.directory.glob(pattern)}
    regular = sorted(path for path in found if path.is_file() and not path.is_symlink())
    names: dict[Path, set[str]] = {}
    for path in regular:
        names.setdefault(path.parent, set()).add(path.name)
    return [path for path in regular if not files.is_rotated(path, names[path.parent])]


def _unlisted(logs: Logs) -> str:
    """Why nobody can say which logs there are; empty when the directory can be listed. Patterns then find no file."""
    try:
        with os.scandir(logs.directory):
            return ""
    except OSError as error:
        return f"cannot be listed: {error.strerror}" if logs.patterns else ""


def _identify(piece: LogPiece, known: Sequence[Stream]) -> tuple[Stream | None, Stream | None]:
    """Which stream is in a file, to go on with; or of which one it is a copy that ends before what was read."""
    same_file = [stream for stream in known if (stream.device, stream.inode) == (piece.device, piece.inode)]
    # By content alone only with lines that have a time, or many: every start of a service may write the same banner.
    others = [
        stream
        for stream in reversed(known)
        if stream not in same_file and (stream.first_time is not None or stream.offset > HEAD_BYTES + TAIL_BYTES)
    ]
    copy_of = None
    for stream in [*same_file, *others]:
        with files.opened(piece) as content:
            begins = files.begins_as(content.head, stream.head_bytes, stream.head)
            if begins and content.skip_to(stream.offset) == stream.tail:
                return stream, None
            if not piece.live and copy_of is None and content.shorter and files.is_part(content.head, stream.head):
                copy_of = stream
    return None, copy_of


def name_of(logs: Logs, live: Path) -> str:
    """The name of a log: its path below the log directory."""
    return shown(live.relative_to(logs.directory).as_posix())


class _Run:
    """One run over all sources."""

    def __init__(
        self, config: Config, logs: Logs, database: LogDatabase, clock: Clock, progress: Report | None
    ) -> None:
        self._config = config
        self._logs = logs
        self._database = database
        self._clock = clock
        self._progress = progress
        bytes(_KEPT)
        zone = zone_of(logs.time_zone)
        self._counting = Counting(Rules(logs.failed_trade, logs.api_error, logs.restart, zone))

    def all(self) -> list[SourceResult]:
        """Every source; one that cannot be read does not stop the others."""
        results = []
        unlisted = _unlisted(self._logs)
        if unlisted:
            results.append(SourceResult(str(self._logs.directory), "file", errors=[unlisted]))
        known = {name_of(self._logs, path): path for path in live_files(self._logs)}
        for name in self._database.names("file"):
            known.setdefault(name, self._logs.directory / name)
        for name, path in sorted(known.items()):
            results.append(result := SourceResult(name, "file"))
            self._one(result, path)
        for unit in self._logs.journal_units:
            results.append(result := SourceResult(unit, "journal"))
            self._one(result, None)
        return results

    def _one(self, result: SourceResult, path: Path | None) -> None:
        """Read one source: the log with that path, or without one a unit's journal."""
        if self._progress is not None:
            self._progress("read", {"part": result.name})
        source = self._database.source(result.kind, result.name)
        try:
            if path is not None:
                self._files(source, result, path)
            else:
                self._unit(source, result)
        except EngineError as error:
            result.errors.append(str(error))
        except OSError as error:
            result.errors.append(f"{error.filename or result.name}: {error.strerror}")

    # Files

    def _files(self, source: int, result: SourceResult, live: Path) -> None:
        """Every file of one log, the oldest first; then what is gone."""
        seen: set[int] = set()
        readable = True
        for piece in files.pieces(live):
            try:
                seen.update(self._piece(source, result, piece))
            except (EngineError, *DAMAGED) as error:
                readable = False
                result.errors.append(f"{piece.path}: {error}" if not isinstance(error, EngineError) else str(error))
        # While something cannot be read, it may be what seems to be gone.
        if readable:
            self._gone(source, result, seen)

    def _piece(self, source: int, result: SourceResult, piece: LogPiece) -> list[int]:
        """Read what is new in one file; which streams are in it."""
        known = self._database.streams(source)
        unchanged = _unchanged(piece, known)
        if unchanged:
            return [stream.id for stream in unchanged]
        stream, copy_of = _identify(piece, known)
        if copy_of is not None:
            return [copy_of.id]
        with files.opened(piece) as content:
            if stream is None:
                stream = Stream(source, shown(str(piece.path)))
            content.skip_to(stream.offset)
            return [_Reading(self, result, piece, content, stream).to_the_end().id]

    def _gone(self, source: int, result: SourceResult, seen: set[int]) -> None:
        """Note the streams that are not there any more, and what was not read of them."""
        known = self._database.streams(source)
        for stream in known:
            if stream.gone or stream.id in seen:
                continue
            gaps = []
            if not stream.complete:
                later = [other.first_time for other in known if other.id > stream.id and other.first_time is not None]
                reason = (
                    f"it was removed or emptied after {stream.offset} bytes of it had been read, and no copy is left"
                )
                gaps.append(GapFound(stream.path, reason, stream.last_time, min(later, default=None)))
            with self._database.transaction():
                self._database.save(replace(stream, gone=True))
                for gap in gaps:
                    self._database.add_gap(source, gap, int(self._clock.now().timestamp()))
            result.gaps.extend(f"{gap.file}: {gap.reason}" for gap in gaps)

    def store(self, result: SourceResult, stream: Stream, size: int, gaps: Iterable[GapFound] = ()) -> Stream:
        """Add what has been counted, and up to where, to the totals."""
        tally = self._counting.take()
        gaps = list(gaps)
        with self._database.transaction():
            self._database.add(stream.source, tally)
            stream = self._database.save(stream)
            for gap in gaps:
                self._database.add_gap(stream.source, gap, int(self._clock.now().timestamp()))
        for (_hour, name), count in tally.facts.items():
            if name in ("events", "unparsed", "doubles_dropped"):
                setattr(result, name, getattr(result, name) + count)
        result.bytes += size
        result.gaps.extend(f"{gap.file}: {gap.reason}" for gap in gaps)
        return stream

    # The journal

    def _unit(self, source: int, result: SourceResult) -> None:
        """What is new in the journal of one unit."""
        known = self._database.streams(source)
        stream = known[0] if known else Stream(source, result.name)
        since = int(self._clock.now().timestamp()) - self._logs.keep_days * 86400
        counting = self._counting
        counting.begin(0, stream.last_hour, begun=bool(stream.cursor))
        with journald.read_unit(result.name, stream.cursor, since_s=since, timeout_s=_JOURNAL_TIMEOUT_S) as found:
            gaps: list[GapFound] = []
            first = next(found, None) if stream.cursor else None
            known_one = first is not None and first.cursor == stream.cursor
            if stream.cursor and not known_one:
                before = first.time_us // 1_000_000 if first else None
                gaps.append(GapFound(result.name, "the journal has dropped entries", stream.last_time, before))
            unread = chain([first] if first is not None and not known_one else [], found)
            held: list[journald.Entry] = []
            while batch := [*held, *islice(unread, _STEP_ENTRIES)]:
                at_end = len(batch) < len(held) + _STEP_ENTRIES
                whole = len(batch) if at_end and self._quiet_since(batch[-1].time_us) else self._separable(batch)
                held = batch[whole:]
                if whole:
                    text = b"".join(line + b"\n" for entry in batch[:whole] for line in entry.lines)
                    counting.block(text)
                    first_us, last_us = batch[0].time_us, batch[whole - 1].time_us
                    stream = replace(
                        stream,
                        cursor=batch[whole - 1].cursor,
                        last_hour=counting.last_hour,
                        first_time=first_us // 1_000_000 if stream.first_time is None else stream.first_time,
                        last_time=last_us // 1_000_000,
                        offset=stream.offset + len(text),
                    )
                    stream = self.store(result, stream, len(text), gaps)
                    gaps = []
                if at_end:
                    break
            if gaps:
                self.store(result, replace(stream, cursor=""), 0, gaps)

    def _quiet_since(self, time_us: int) -> bool:
        age = self._clock.now().timestamp() - time_us / 1e6
        if 0 <= age < _QUIET_S:
            self._clock.sleep(_QUIET_S - age)
        return True

    def _separable(self, batch: Sequence[journald.Entry]) -> int:
        """How many entries from the beginning can be counted without those that follow."""
        for index in range(len(batch) - 1, max(0, len(batch) - _MOST_HELD_LINES), -1):
            if self._counting.separable(batch[index - 1].lines[-1], batch[index].lines[0]):
                return index
        return len(batch)

    @property
    def counting(self) -> Counting:
        """What counts."""
        return self._counting

    @property
    def clock(self) -> Clock:
        """What tells the time."""
        return self._clock

    def report(self, done: int) -> None:
        """Tell how many bytes of a file have been read."""
        if self._progress is not None:
            self._progress(BYTES, {"done": done, "total": None})


class _Reading:
    """Reads one file from where it was left."""

    def __init__(self, run: _Run, result: SourceResult, piece: LogPiece, content: Content, stream: Stream) -> None:
        self._run = run
        self._counting = run.counting
        self._result = result
        self._piece = piece
        self._content = content
        self._stream = stream
        self._position = stream.offset
        self._recent = content.before
        self._newest = b""
        self._gaps: list[GapFound] = []
        self._growing = False
        self._skipping = stream.skipping
        self._first = stream.first_time
        self._counting.begin(int(piece.modified) // 3600, stream.last_hour, begun=stream.offset > 0)

    def to_the_end(self) -> Stream:
        """Read everything that is whole; returns the stream as it was stored."""
        pending = b""
        waited = False
        while True:
            data = self._data()
            if data:
                pending = self._take(pending + data)
                if self._position - self._stream.offset >= _STEP_BYTES or self._counting.size > _STEP_SIZE:
                    self._store(complete=False)
                self._run.report(self._position)
                continue
            age = self._run.clock.now().timestamp() - self._modified()
            if pending and not waited and 0 <= age < _QUIET_S and not self._piece.compressed:
                self._run.clock.sleep(_QUIET_S - age)
                waited = True
                continue
            break
        return self._end(pending)

    def _data(self) -> bytes:
        """The next bytes; damaged compressed data ends there, which is a gap unless it is still being written."""
        try:
            return self._content.read(_CHUNK)
        except DAMAGED as error:
            if not self._piece.compressed:
                raise
            if self._run.clock.now().timestamp() - self._piece.modified >= _SETTLED_S:
                reason = f"it is cut off or damaged behind {self._content.position} bytes: {error}"
                self._gaps.append(GapFound(shown(str(self._piece.path)), reason, self._stream.last_time, None))
            else:
                self._growing = True
            return b""

    def _end(self, pending: bytes) -> Stream:
        """Count the last event, if it is whole."""
        age = self._run.clock.now().timestamp() - self._modified()
        settled = not self._growing and (self._piece.compressed or (not self._piece.live and age >= _SETTLED_S))
        if settled and pending:
            self._count(pending)
            pending = b""
        elif pending and age >= _QUIET_S:
            whole = pending.rfind(b"\n") + 1
            if whole:
                self._count(pending[:whole])
            pending = pending[whole:]
        return self._store(complete=settled)

    def _modified(self) -> float:
        try:
            return self._piece.path.stat().st_mtime
        except OSError:
            return self._piece.modified

    def _take(self, block: bytes) -> bytes:
        """Count the whole events of a block; returns what has to wait for more."""
        if self._skipping:
            end = block.find(b"\n") + 1
            self._pass(block[:end] if end else block)
            if not end:
                return b""
            self._skipping = False
            block = block[end:]
        end = block.rfind(b"\n") + 1
        if len(block) - end > MOST_LINE:  # a line that is too long to wait for its end
            if end:
                self._count(block[:end])
            self._counting.too_long(block[end : end + 1000])
            self._pass(block[end:])
            self._skipping = True
            return b""
        whole = self._separable(block, end) if end else 0
        if whole:
            self._count(block[:whole])
        return block[whole:]

    def _separable(self, block: bytes, size: int) -> int:
        """Where, in the first `size` bytes, the last event begins that may not be complete."""
        end = size - 1
        begin = block.rfind(b"\n", 0, end) + 1
        for _unused in range(_MOST_HELD_LINES):
            if begin == 0:
                return 0 if size < _MOST_HELD_BYTES else size
            before = block.rfind(b"\n", 0, begin - 1) + 1
            if self._counting.separable(block[before : begin - 1], block[begin:end]):
                return begin
            begin, end = before, begin - 1
        return size

    def _count(self, block: bytes) -> None:
        """Count lines, with their ends."""
        if self._first is None:
            self._first = self._time_in(block[:20_000].split(b"\n"))
        self._counting.block(block)
        self._pass(block)

    def _pass(self, block: bytes) -> None:
        """Leave bytes behind that are not counted, or have been."""
        self._position += len(block)
        self._remember(block[-_REMEMBERED:])

    def _remember(self, newest: bytes) -> None:
        self._recent = (self._recent + newest)[-TAIL_BYTES:]
        self._newest = newest or self._newest

    def _time_in(self, lines: Iterable[bytes]) -> int | None:
        """The time of the first of some lines that has one."""
        return next((seconds for line in lines if (seconds := self._counting.seconds(line)) is not None), None)

    def _store(self, *, complete: bool) -> Stream:
        before, piece, head = self._stream, self._piece, self._content.head[: self._position]
        if self._position == 0 and not complete:  # nothing by which it could be found again
            return before
        last = self._time_in(reversed(self._newest.split(b"\n")))
        stream = replace(
            before,
            path=shown(str(piece.path)),
            device=piece.device,
            inode=piece.inode,
            size=piece.size,
            modified_ns=piece.modified_ns,
            offset=self._position,
            head_bytes=len(head),
            head=files.head_digests(head),
            tail=digest(self._recent),
            last_hour=self._counting.last_hour,
            first_time=self._first,
            last_time=before.last_time if last is None else last,
            skipping=self._skipping,
            complete=complete,
            gone=False,
        )
        if stream != before:
            stream = self._run.store(self._result, stream, self._position - before.offset, self._gaps)
        self._gaps = []
        self._stream = stream
        return stream
