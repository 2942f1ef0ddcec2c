# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a database small and fast: decide from facts what is due, predict what it costs, do it, prove it.

Three things can be due. **analyze** makes the statistics of the query planner, and **incremental_vacuum** gives free
pages back, in transactions so short that a service that writes does not notice. **vacuum** writes the whole database
anew. That is done in one of two ways:

- `waiting`: in place, under one exclusive lock that is held from before the pre-image is taken until the result is
  proven. Writers wait, so it is for small databases; not in WAL mode, where the lock cannot be had beside a service
  that runs.
- `stopped`: while nobody has it open, into a new file that is proven and then renamed over the old one. The old file is
  the pre-image, under a second name.

In both, content digests from before and after must be equal. This module knows nothing of units: who stops them calls
the functions one by one, see `service.upkeep_job`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ..core.clock import Clock
from ..core.config import Upkeep, Window
from ..core.errors import IntegrityError, PreconditionError, TimeoutExceeded
from ..core.fsio import fsync_dir, fsync_file, private_opener, replace
from ..core.human import duration_text, size_text
from . import fingerprint, integrity, rollback_journal
from .connect import HEADER_BYTES, SIDE_FILES, Deadline, connect, is_locked, reading, require_database, sqlite_errors
from .size import Sizes

ANALYZE = "analyze"
INCREMENTAL = "incremental_vacuum"
VACUUM = "vacuum"
WAITING = "waiting"
STOPPED = "stopped"

# Bytes per second at the least, for predictions; what was measured on the host itself takes their place.
_COPY_SPEED, _VACUUM_SPEED, _DIGEST_SPEED, _CHECK_SPEED = 300e6, 80e6, 30e6, 50e6
_STEPS_BETWEEN_LOOKS = 1000
_FEWEST_ROWS = 100  # statistics of smaller tables change no plan
_LONGEST_STEP_S = 0.05
_LOOK_S = 0.001
_SPARE_BYTES = 4 << 20
_WORSE = 0.1  # by how much more than after the last vacuum pages must be scattered or empty
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Memory:
    """What earlier upkeep of a database has noted.

    Attributes:
        rows: of each table when its statistics were made.
        fragmentation: after the last vacuum, as `fill`: what a vacuum cannot make better is no reason for the next one.
        seconds_per_byte: what the last vacuum took, by its way, for the bytes that were in use.
    """

    rows: Mapping[str, int] = dataclasses.field(default_factory=dict)
    fragmentation: float | None = None
    fill: float | None = None
    seconds_per_byte: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Due:
    """Something that is due, and why. `tables` are those that `analyze` is for."""

    kind: str
    why: str
    tables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Action:
    """Something that will be done.

    Attributes:
        way: of a vacuum, `waiting` or `stopped`; else `waiting`.
        wait_s: the longest that a writer is predicted to wait, in seconds; while the units are stopped, how long.
        space_bytes: needed meanwhile on the file system of the database.
        frees_bytes: given back to the file system, about.
    """

    kind: str
    why: str
    way: str
    wait_s: float
    duration_s: float
    space_bytes: int
    frees_bytes: int
    tables: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The action as JSON-serialisable data."""
        return {**dataclasses.asdict(self), "tables": list(self.tables)}


@dataclass(frozen=True)
class Left:
    """Something that is due, or would be, and is not done.

    Attributes:
        state: `waits` (for the maintenance window), `refused` (a person has to decide or to make room) or `futile`.
    """

    kind: str
    state: str
    why: str

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-serialisable data."""
        return dataclasses.asdict(self)


# ------------------------------------------------------------------------------------------- what is due


def statistics(path: Path) -> dict[str, int] | None:
    """Rows of each table according to the query planner's statistics; None when there are none at all."""
    with reading(path) as con:
        if con.execute("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_stat1'").fetchone()[0] == 0:
            return None
        found: dict[str, int] = {}
        for table, stat in con.execute("SELECT tbl, stat FROM sqlite_stat1"):
            first = str(stat).partition(" ")[0]
            if isinstance(table, str) and first.isdigit():
                found[table] = max(found.get(table, 0), int(first))
        return found


def decide(
    sizes: Sizes, known: Mapping[str, int] | None, limits: Upkeep, memory: Memory, growth: float | None
) -> tuple[list[Due], list[Left]]:
    """What is due, from facts alone, and what only seems so.

    Args:
        known: what `statistics` has found.
        growth: of the bytes in use, per day; None when it is unknown.
    """
    due = [*_statistics_due(sizes, known, limits, memory)]
    left: list[Left] = []
    scattered = _scattered(sizes, limits, memory)
    empty = ""
    if sizes.free_ratio >= limits.free_ratio and sizes.free_page_bytes >= limits.free_bytes:
        empty = f"{sizes.free_ratio:.0%} of the pages are free ({size_text(sizes.free_page_bytes)})".replace("%", " %")
        if growth is not None and growth > 0 and sizes.free_page_bytes / growth <= limits.refill_days:
            days = sizes.free_page_bytes / growth
            left.append(Left(VACUUM, "futile", f"{empty}, but growth uses them up again in {days:.0f} days"))
            empty = ""
    if empty and sizes.auto_vacuum == "incremental" and not scattered:
        due.append(Due(INCREMENTAL, empty))
    elif empty or scattered:
        due.append(Due(VACUUM, "; ".join(filter(None, (empty, scattered)))))
    return due, left


def _statistics_due(sizes: Sizes, known: Mapping[str, int] | None, limits: Upkeep, memory: Memory) -> list[Due]:
    rows = {name: count for name, count in sizes.rows().items() if not name.startswith("sqlite_")}
    missing = sorted(name for name, count in rows.items() if count >= _FEWEST_ROWS and name not in (known or {}))
    changed = []
    for name, then in (known or {}).items():
        # The planner's own count may be an estimate; what was counted when it was made is better.
        base = memory.rows.get(name, then)
        now = rows.get(name, base)
        if max(now, base) >= _FEWEST_ROWS and abs(now - base) > limits.stale_ratio * max(base, 1):
            changed.append(f"{name} had {base} rows and has {now}")
    if not missing and not changed:
        return []
    why = [f"no statistics of {', '.join(missing)}"] if missing else []
    # Of all tables, as each takes little: those that are still small would be due soon.
    return [Due(ANALYZE, "; ".join([*why, *changed]), tuple(sorted(name for name, count in rows.items() if count)))]


def _scattered(sizes: Sizes, limits: Upkeep, memory: Memory) -> str:
    """Why the pages themselves are a reason to write the database anew; empty when they are none."""
    if sizes.fragmentation is None or sizes.fill is None or sizes.used_bytes < limits.free_bytes:
        return ""
    reasons = []
    before, full = memory.fragmentation, memory.fill
    if sizes.fragmentation >= limits.fragmentation and (before is None or sizes.fragmentation > before + _WORSE):
        reasons.append(f"{sizes.fragmentation:.0%} of the pages do not follow the one before")
    if sizes.fill < limits.fill and (full is None or sizes.fill < full - _WORSE):
        reasons.append(f"pages are {sizes.fill:.0%} full")
    return "; ".join(reasons).replace("%", " %")


# ----------------------------------------------------------------------------------- what it costs, and whether


def window_left_s(window: Window, now: datetime) -> float:
    """Seconds that are left of the maintenance window; 0 outside of it. `now` is in the zone of the window."""
    hour, minute = (int(part) for part in window.start.split(":"))
    for days_ago in (0, 1):
        begins = (now - timedelta(days=days_ago)).replace(hour=hour, minute=minute, second=0, microsecond=0)
        left = (begins - now).total_seconds() + window.duration_s
        if _DAYS[begins.weekday()] in window.days and 0 < left <= window.duration_s:
            return left
    return 0.0


def window_text(window: Window) -> str:
    """Such as `Sun 03:00 for 2 h`."""
    return f"{', '.join(window.days)} {window.start} for {duration_text(window.duration_s)}" if window.days else "never"


def choose(
    due: Due,
    sizes: Sizes,
    limits: Upkeep,
    memory: Memory,
    *,
    busy_timeout_s: float,
    window_s: float,
    can_stop: bool,
    names: int = 1,
) -> Action | Left:
    """How a thing that is due will be done, with its predicted cost, or why it will not.

    Args:
        busy_timeout_s: how long the service waits for a lock.
        window_s: what is left of the maintenance window.
        can_stop: the operator allows that the units are stopped, and there are units.
        names: how many the file has (hard links).
    """
    if due.kind == ANALYZE:
        wait = _LONGEST_STEP_S
        return Action(ANALYZE, due.why, WAITING, wait, wait * len(due.tables), 0, 0, due.tables)
    if due.kind == INCREMENTAL:
        steps = sizes.freelist_count / limits.step_pages + 1
        seconds = round(steps * (_LONGEST_STEP_S + limits.pause_s), 1)
        return Action(INCREMENTAL, due.why, WAITING, _LONGEST_STEP_S, seconds, 0, sizes.free_page_bytes)
    allowed = limits.wait_fraction * busy_timeout_s
    wait = predict(WAITING, sizes, memory)
    way = WAITING if wait <= allowed and sizes.journal_mode != "wal" else STOPPED
    if way == STOPPED and not can_stop:
        because = "in WAL mode it cannot be proven beside a service that writes"
        if sizes.journal_mode != "wal":
            because = (
                f"writers, who wait {busy_timeout_s:g} s, may wait {allowed:.1f} s and would have to for {wait:.1f} s"
            )
        return Left(VACUUM, "refused", f"{due.why}; {because}, and the units must not be stopped for it")
    if way == STOPPED and names > 1:
        return Left(VACUUM, "refused", f"{due.why}; the file has {names} names, and a new one would have one of them")
    if not window_s:
        return Left(VACUUM, "waits", f"{due.why}; outside of the maintenance window ({window_text(limits.window)})")
    seconds = predict(way, sizes, memory)
    if seconds > window_s:
        return Left(VACUUM, "waits", f"{due.why}; it takes {seconds:.0f} s, and the window ends in {window_s:.0f} s")
    # The copy that is checked first; in place the pre-image and the journal of the transaction, else the new file.
    space = sizes.bytes + (2 * sizes.bytes if way == WAITING else sizes.used_bytes) + _SPARE_BYTES
    if space > sizes.disk_free_bytes:
        short = f"{size_text(space)} are needed and {size_text(sizes.disk_free_bytes)} are free"
        return Left(VACUUM, "refused", f"{due.why}; {short}")
    return Action(VACUUM, due.why, way, seconds, seconds, space, sizes.free_page_bytes)


def predict(way: str, sizes: Sizes, memory: Memory) -> float:
    """How long writers wait, or the units are stopped, for a vacuum, in seconds."""
    used = sizes.used_bytes
    measured = memory.seconds_per_byte.get(way)
    if measured is not None:
        return round(used * measured * 1.2, 3)
    seconds = used * (1 / _VACUUM_SPEED + 2 / _DIGEST_SPEED + 1 / _CHECK_SPEED)
    return round(seconds + (sizes.bytes / _COPY_SPEED if way == WAITING else used / _CHECK_SPEED), 3)


# ------------------------------------------------------------------------- beside a service that writes


def analyze(
    path: Path, tables: tuple[str, ...], limits: Upkeep, *, busy_timeout_s: float, clock: Clock | None = None
) -> dict[str, Any]:
    """Make the statistics of some tables, each in a transaction of its own that looks at few rows.

    Returns `longest_s`, how long the longest of them took. A table that has gone meanwhile is left out.
    """
    clock = clock or Clock()
    longest = 0.0
    with _writing(path, 0) as con:
        con.execute(f"PRAGMA analysis_limit = {limits.analysis_limit}")
        for table in tables:
            with _transaction(con, path, busy_timeout_s, clock):
                started = clock.monotonic()
                try:
                    con.execute(f"ANALYZE main.{fingerprint.quoted(table)}")
                except sqlite3.OperationalError as error:
                    if "no such table" not in str(error):
                        raise
            longest = max(longest, clock.monotonic() - started)
        with _transaction(con, path, busy_timeout_s, clock):
            con.execute("PRAGMA optimize").fetchall()
    return {"longest_s": round(longest, 6)}


def give_back(path: Path, limits: Upkeep, deadline: Deadline, *, busy_timeout_s: float) -> dict[str, Any]:
    """Give free pages back to the file system, few in each transaction, with pauses, until none is left.

    Returns how many were given back, in how many `steps`, and `longest_s`. Ends early with the deadline: the rest is
    for the next run.
    """
    clock, given, steps, longest = deadline.clock, 0, 0, 0.0
    pages = limits.step_pages
    with _writing(path, 0) as con:
        while deadline.left_s > 0:
            with _transaction(con, path, busy_timeout_s, clock):
                started = clock.monotonic()
                free = int(con.execute("PRAGMA freelist_count").fetchone()[0])
                con.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
                left = int(con.execute("PRAGMA freelist_count").fetchone()[0])
            took = clock.monotonic() - started
            longest, steps, given = max(longest, took), steps + 1, given + max(free - left, 0)
            if not left or left >= free:
                break
            if took > _LONGEST_STEP_S:
                pages = max(pages // 2, 1)
            clock.sleep(limits.pause_s)
    return {"pages": given, "steps": steps, "longest_s": round(longest, 6)}


@dataclass(frozen=True)
class Content:
    """What must be the same before and after: see `fingerprint`, and the settings that the file carries."""

    digests: Mapping[str, Any]
    schema: str
    settings: Mapping[str, Any]

    def differences(self, other: Content) -> list[str]:
        """In which tables or settings another one differs."""
        names = sorted({*self.digests, *other.digests})
        wrong = [f"table {name}" for name in names if self.digests.get(name) != other.digests.get(name)]
        if self.schema != other.schema:
            wrong.append("the schema")
        return wrong + [name for name in self.settings if self.settings[name] != other.settings.get(name)]

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return dataclasses.asdict(self)


def content(con: sqlite3.Connection) -> Content:
    """The content of a database, read through a connection that keeps others from changing it."""
    settings = {
        name: con.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_size", "encoding", "auto_vacuum", "user_version", "application_id")
    }
    return Content(fingerprint.digests(con), fingerprint.schema_digest(con), settings)


def vacuum_waiting(
    path: Path,
    preimage: Path,
    *,
    limit_s: float,
    busy_timeout_s: float,
    not_proven: Callable[[], None],
    tell: Tell = lambda step: None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Write a database anew in place, under one exclusive lock, while the service waits.

    A process that is killed meanwhile leaves a transaction that SQLite undoes, and the pre-image.

    Args:
        preimage: a new file in the same directory, removed again unless this process is killed.
        limit_s: the longest that the lock may be held; VACUUM is undone when it would take longer.
        not_proven: called with the lock held when the result is not what was there before: has to make sure that nobody
            has the database open, or opens it. Then the pre-image is put back.
        tell: told each step.

    Raises:
        TimeoutExceeded: the lock was not to be had, or would have been held for too long; nothing has changed.
        IntegrityError: the result could not be proven, and the pre-image is in place again.
    """
    clock = clock or Clock()
    real, _header = require_database(path)
    with _writing(real, 0) as con:
        con.execute("PRAGMA temp_store = MEMORY")
        _lock(con, "EXCLUSIVE", Deadline(clock, max(busy_timeout_s, _LOOK_S), str(path)))
        held = clock.monotonic()
        # Not before there is the lock: in this mode an attempt that fails would keep what it has got, and block others.
        con.execute("PRAGMA locking_mode = EXCLUSIVE")
        con.execute("COMMIT")  # the lock stays: nobody can come between this and the end
        if con.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            raise PreconditionError(
                "is in WAL mode, where it can only be written anew while nobody has it open", subject=str(path)
            )
        tell("locked")
        deadline = Deadline(clock, limit_s, str(path))
        before = content(con)
        digested = clock.monotonic() - held
        try:
            _keep(con, preimage)
            tell("preimage")
            # The time that the proof takes is known from the first half of it.
            _vacuum(con, path, Deadline(clock, max(deadline.left_s - 2 * digested, 0.001), str(path)))
        except BaseException:
            remove(preimage)  # VACUUM is one transaction: it has not taken place
            raise
        tell("vacuumed")
        con.execute("PRAGMA shrink_memory")  # the proof reads the file, not what this process remembers of it
        wrong = before.differences(content(con))
        damaged, broken = integrity.damage(con, "full")
        wrong += damaged + [f"foreign key of {item['table']}" for item in broken[:1]]
        if wrong:
            not_proven()
        else:
            tell("proven")
    held = clock.monotonic() - held
    if wrong:
        put_back(real, preimage)
        raise IntegrityError(
            f"was not the same after VACUUM: {'; '.join(wrong[:5])}",
            subject=str(path),
            untouched="its content: the state from before is in place again",
            remedy="check the disk and the memory of this host",
        )
    preimage.unlink()
    fsync_dir(preimage.parent)
    tell("dropped")
    return {"held_s": round(held, 6)}


@contextlib.contextmanager
def _transaction(con: sqlite3.Connection, path: Path, busy_timeout_s: float, clock: Clock) -> Iterator[None]:
    """One short transaction that writes; what waits for its lock, and for readers, ends with the time."""
    _lock(con, "IMMEDIATE", Deadline(clock, max(busy_timeout_s, _LOOK_S), str(path)))
    try:
        yield
        con.execute(f"PRAGMA busy_timeout = {int(busy_timeout_s * 1000)}")
        con.execute("COMMIT")
    except BaseException:
        if con.in_transaction:
            con.execute("ROLLBACK")
        raise
    con.execute("PRAGMA busy_timeout = 0")


def _lock(con: sqlite3.Connection, kind: str, deadline: Deadline) -> None:
    """Begin with a lock. SQLite's own waiting looks too seldom to come between the commits of a busy writer."""
    while True:
        try:
            con.execute(f"BEGIN {kind}")
            return
        except sqlite3.OperationalError as error:
            if not is_locked(error) or deadline.left_s < 0:
                raise
        deadline.clock.sleep(_LOOK_S)


def _keep(con: sqlite3.Connection, preimage: Path) -> None:
    """An exact copy, made through the connection that holds the lock; on the disk when it has its name."""
    partial = preimage.with_name(preimage.name + ".partial")
    with open(partial, "wb", opener=private_opener):
        pass
    try:
        copy = connect(partial, timeout_s=0, mode="rw")
        try:
            copy.execute("PRAGMA synchronous = OFF")
            con.backup(copy)
        finally:
            copy.close()
        fsync_file(partial)
        replace(partial, preimage)
    except BaseException:
        remove(partial)
        raise


def _vacuum(con: sqlite3.Connection, path: Path, deadline: Deadline) -> None:
    con.set_progress_handler(lambda: 1 if deadline.left_s < 0 else 0, _STEPS_BETWEEN_LOOKS)
    try:
        con.execute("VACUUM")
    except sqlite3.OperationalError as error:
        if str(error) != "interrupted":
            raise
        raise TimeoutExceeded(
            f"writing it anew would keep writers waiting for more than {deadline.timeout_s:.1f} s, and was undone",
            subject=str(path),
            untouched="the database",
            remedy="let the units be stopped for it",
        ) from None
    finally:
        con.set_progress_handler(None, 0)


# ----------------------------------------------------------------------------- while nobody has it open


def settle(path: Path) -> None:
    """Bring a database that nobody has open into one file: what a crash or a log has left beside it becomes part of it.

    Raises PreconditionError when something stays beside it.
    """
    real, _header = require_database(path)
    require_own_journal(real)
    with _writing(real, 5.0) as con:
        con.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if con.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    beside = [f"{real}{suffix}" for suffix in SIDE_FILES if _size(f"{real}{suffix}")]
    with open(real, "rb") as stream:
        idle = rollback_journal.inspect(real, stream.read(HEADER_BYTES)).kind in ("none", "idle")
    if [name for name in beside if not (name.endswith("-journal") and idle)]:
        raise PreconditionError("something still lies beside it", subject=beside[0])


def require_own_journal(real: Path) -> None:
    """Raise PreconditionError when a journal lies beside a database that SQLite would take for its own, and is not."""
    with open(real, "rb") as stream:
        found = rollback_journal.inspect(real, stream.read(HEADER_BYTES))
    if found.kind == "foreign":
        raise PreconditionError(
            f"{real.name}-journal does not belong to it ({found.reason})",
            subject=str(real),
            untouched="the database",
            remedy="move the journal away before anything opens the database",
        )


def rebuild(path: Path, new: Path, deadline: Deadline) -> Content:
    """Write a settled database anew into another file, and prove that it is the same. The database is only read.

    Returns what is in both. Raises IntegrityError when the database is damaged, or the new file is not the same; there
    is no new file then.
    """
    real, header = require_database(path)
    status = real.stat()
    if status.st_nlink > 1:
        raise PreconditionError(
            f"has {status.st_nlink} names (hard links); a new file would be known by one of them only",
            subject=str(path),
        )
    remove(new)
    try:
        require_sound(real, deadline)
        with reading(real, immutable=True) as con:
            deadline.bind(con)
            before = content(con)
            with open(new, "wb", opener=private_opener):
                pass
            con.execute("PRAGMA query_only = OFF")  # of the database; the new file is another one
            con.execute("VACUUM INTO ?", (str(new),))
        if header.wal:
            with _writing(new, 0) as con:
                con.execute("PRAGMA journal_mode = WAL")
        like(new, real)
        fsync_file(new)
        prove(new, before, deadline)
    except BaseException:
        remove(new)
        raise
    return before


def prove(path: Path, before: Content, deadline: Deadline) -> None:
    """Raise IntegrityError unless a file that nobody writes is sound and has this content."""
    require_sound(path, deadline)
    with reading(path, immutable=True) as con:
        deadline.bind(con)
        wrong = before.differences(content(con))
    if wrong:
        raise IntegrityError(
            f"the new file is not the same: {'; '.join(wrong[:5])}", subject=str(path), untouched="the database"
        )


def require_sound(path: Path, deadline: Deadline) -> None:
    """SQLite's full check of a file that nobody writes. Raises IntegrityError."""
    report = integrity.check(path, "full", immutable=True, sizes=False, workers=2, deadline=deadline)
    if not report.ok:
        found = report.messages or [f"foreign key of {item['table']}" for item in report.foreign_key_violations]
        raise IntegrityError(
            f"is damaged, and is not written anew: {'; '.join(found[:3])}",
            subject=str(path),
            untouched="the database",
            remedy="restore it from a proven generation",
        )


def put_in_place(path: Path, new: Path, before: Path, tell: Tell = lambda step: None) -> None:
    """Let the new file have the database's name, and the old one another: at each moment there is one of both."""
    before.unlink(missing_ok=True)
    os.link(path, before)
    fsync_dir(before.parent)
    tell("linked")
    replace(new, path)


def put_back(path: Path, preimage: Path) -> None:
    """Let a pre-image have the database's name again, as nobody has either open; nothing stays beside it."""
    if path.exists():
        like(preimage, path)
    for suffix in SIDE_FILES:
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    replace(preimage, path)


def like(new: Path, old: Path) -> None:
    """Give a file the owner, the mode and the extended attributes of another one."""
    status = old.stat()
    if (new.stat().st_uid, new.stat().st_gid) != (status.st_uid, status.st_gid):
        os.chown(new, status.st_uid, status.st_gid)
    os.chmod(new, status.st_mode & 0o7777)
    for name in os.listxattr(old):
        with contextlib.suppress(OSError):  # labels that only the kernel sets
            os.setxattr(new, name, os.getxattr(old, name))


def remove(path: Path) -> None:
    """Remove a database that is not needed any more, with what lies beside it."""
    for suffix in (*SIDE_FILES, ""):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _size(name: str) -> int:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(name).st_size
    return 0


@contextlib.contextmanager
def _writing(path: Path, busy_timeout_s: float) -> Iterator[sqlite3.Connection]:
    """A connection that may write to an existing database; SQLite's errors become the engine's."""
    real, _header = require_database(path)
    with sqlite_errors(path):
        con = connect(real, timeout_s=busy_timeout_s, mode="rw")
        try:
            yield con
        finally:
            con.close()
