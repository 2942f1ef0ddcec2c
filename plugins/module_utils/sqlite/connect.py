# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open SQLite databases that exist, without ever creating, changing or checkpointing one.

POSIX record locks belong to the process: closing *any* descriptor of a database drops all locks that
the process holds on it. So nothing here may be called for a database while another part of the same
process is inside a transaction on it.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.clock import Clock
from ..core.errors import EngineError, InputError, IntegrityError, PreconditionError, TimeoutExceeded

MAGIC = b"SQLite format 3\x00"
HEADER_BYTES = 100
SIDE_FILES = ("-wal", "-shm", "-journal")

# What Python says of text that is not UTF-8: the column, and then the text itself.
_NOT_UTF8 = re.compile(r"Could not decode to UTF-8 column '(.*?)' with text ", re.DOTALL)

# SQLite calls the progress handler after this many virtual machine steps: some hundred times a second.
_STEPS_BETWEEN_LOOKS = 20_000


@dataclass(frozen=True)
class Header:
    """The first 100 bytes of a database file, as far as they matter here.

    Attributes:
        page_size: bytes.
        wal: the database is in WAL mode.
        change_counter: raised by each commit in rollback-journal mode.
        page_count: pages according to the header; 0 when a library older than 3.7.0 wrote it last.
    """

    page_size: int
    wal: bool
    change_counter: int
    page_count: int


def parse_header(data: bytes) -> Header | None:
    """Read a database header; None when this is not one."""
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
        return None
    page_size = int.from_bytes(data[16:18], "big")
    counter = int.from_bytes(data[24:28], "big")
    counted_at = int.from_bytes(data[92:96], "big")
    return Header(
        page_size=65536 if page_size == 1 else page_size,
        wal=data[18:20] == b"\x02\x02",
        change_counter=counter,
        page_count=int.from_bytes(data[28:32], "big") if counted_at == counter else 0,
    )


def is_sqlite(path: Path) -> bool:
    """Whether a file begins as a SQLite database does. False for a missing or an empty file."""
    try:
        with open(path, "rb") as stream:
            return parse_header(stream.read(HEADER_BYTES)) is not None
    except OSError:
        return False


def require_database(path: Path) -> tuple[Path, Header]:
    """The real path and the header of an existing, non-empty SQLite file.

    Symbolic links are followed, as SQLite does: journals lie beside the real file.
    Raises InputError naming the path; nothing is created.
    """
    try:
        real = Path(path).resolve(strict=True)
        status = real.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError("is not a regular file, so not a database", subject=str(path))
        if status.st_size == 0:
            raise InputError(
                "is an empty file; SQLite would take it for an empty database",
                subject=str(path),
                remedy="check the path, and whether something made the file by opening a wrong name",
            )
        with open(real, "rb") as stream:
            header = parse_header(stream.read(HEADER_BYTES))
    except FileNotFoundError:
        raise InputError("does not exist; nothing was created", subject=str(path), remedy="check the path") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", subject=str(path)) from None
    except RuntimeError:  # what Python before 3.13 makes of ELOOP
        raise InputError("cannot be read: its symbolic links go round in a loop", subject=str(path)) from None
    if header is None:
        raise InputError("is not a SQLite database", subject=str(path))
    return real, header


def uri(path: Path, **parameters: str) -> str:
    """The `file:` URI of a database for `sqlite3.connect`."""
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    return f"{Path(os.path.abspath(path)).as_uri()}?{query}"


def connect(path: Path, *, timeout_s: float, **parameters: str) -> sqlite3.Connection:
    """A connection without automatic transactions; `parameters` go to the URI (mode, immutable)."""
    return sqlite3.connect(
        uri(path, **parameters), uri=True, timeout=timeout_s, isolation_level=None, check_same_thread=False
    )


def reading_parameters(path: Path, header: Header) -> dict[str, str]:
    """How to open a database for reading so that no file is left behind or changed.

    Rollback journal, and WAL with a log in place: read-only. A WAL database without a log (its service is
    stopped) makes any reader create `-wal` and `-shm`; only a connection that may write removes them
    again when it closes, and with nothing in the log there is nothing it could checkpoint. On a
    read-only file system nobody can write, so SQLite may be told that the file will not change.
    """
    if not header.wal:
        return {"mode": "ro"}
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size > 0:
        return {"mode": "ro"}
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return {"mode": "rw"}
    if os.statvfs(path.parent).f_flag & os.ST_RDONLY:
        return {"mode": "ro", "immutable": "1"}
    return {"mode": "ro"}


def open_ro(path: Path, *, busy_timeout_s: float = 5.0, immutable: bool = False) -> sqlite3.Connection:
    """Open an existing database so that this connection can only read, and read something from it.

    Args:
        busy_timeout_s: how long to wait for a writer, in seconds.
        immutable: nobody else can write the file (a private snapshot): no locks, no side files.

    Raises:
        InputError: the file is missing, empty or not a database.
        IntegrityError: it is damaged beyond reading.
        PreconditionError: a crash left a journal that must be rolled back first, or access is denied.
        TimeoutExceeded: a writer held it for longer than `busy_timeout_s`.
    """
    real, header = require_database(path)
    parameters = {"mode": "ro", "immutable": "1"} if immutable else reading_parameters(real, header)
    with sqlite_errors(path):
        con = connect(real, timeout_s=busy_timeout_s, **parameters)
        try:
            con.execute("PRAGMA query_only=ON")
            con.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            con.close()
            raise
        return con


@contextlib.contextmanager
def reading(path: Path, *, busy_timeout_s: float = 5.0, immutable: bool = False) -> Iterator[sqlite3.Connection]:
    """`open_ro`, closed at the end, with SQLite's errors turned into the engine's."""
    con = open_ro(path, busy_timeout_s=busy_timeout_s, immutable=immutable)
    try:
        with sqlite_errors(path):
            yield con
    finally:
        con.close()


def is_locked(error: sqlite3.Error) -> bool:
    """Whether an error means that another connection holds a lock."""
    text = str(error)
    return "is locked" in text or "is busy" in text


def is_readonly(error: sqlite3.Error) -> bool:
    """Whether an error means that a read-only connection would have to write, as for a hot journal."""
    return "readonly database" in str(error)


def engine_error(error: sqlite3.Error, path: Path) -> EngineError:
    """The engine's error for one of SQLite's, naming the database."""
    text, subject = str(error), str(path)
    undecodable = _NOT_UTF8.match(text)
    if undecodable:
        return InputError(f"the column {undecodable.group(1)!r:.200} holds text that is not UTF-8", subject=subject)
    if is_locked(error):
        return TimeoutExceeded(f"another process holds a lock: {text}", subject=subject)
    if text == "interrupted":
        return TimeoutExceeded("the statement did not end within its deadline", subject=subject)
    if is_readonly(error):
        return PreconditionError(
            "a crash left a journal beside it that must be rolled back first; reading does not do that",
            subject=subject,
            remedy="a journal that another database has left must be moved away; for its own, start the service once",
        )
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return IntegrityError(f"is damaged: {text}", subject=subject)
    if "unable to open" in text:
        return PreconditionError(
            "cannot be opened: the file or its directory denies what SQLite needs (a WAL database needs to "
            "write -shm beside it)",
            subject=subject,
            remedy="run as root or as the owner of the database",
        )
    if "disk is full" in text or "disk I/O" in text:
        return PreconditionError(text, subject=subject, remedy="look at the free space and the kernel's log")
    return InputError(text, subject=subject)


@contextlib.contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors inside into the engine's."""
    try:
        yield
    except sqlite3.Error as error:
        # Without its cause, whose text may hold what stands in a row.
        raise engine_error(error, path) from None


class Deadline:
    """A point in time after which work on one file fails instead of going on.

    Args:
        clock: where time comes from.
        timeout_s: seconds from now.
        subject: the file to name in the error.
        within: another deadline, whose end or cancelling ends this one too.
    """

    def __init__(self, clock: Clock, timeout_s: float, subject: str, within: Deadline | None = None) -> None:
        if timeout_s <= 0:
            raise InputError(f"the time limit must be above 0 s, not {timeout_s:g}", subject=subject)
        self.clock = clock
        self.timeout_s = timeout_s
        self.subject = subject
        self._end = clock.monotonic() + timeout_s
        self._within = within

    @property
    def left_s(self) -> float:
        """Seconds left; negative afterwards."""
        left_s = self._end - self.clock.monotonic()
        return min(left_s, self._within.left_s) if self._within else left_s

    def cancel(self) -> None:
        """Let the work end as if time were over; another thread may call this."""
        self._end = -math.inf

    def check(self, doing: str) -> None:
        """Raise TimeoutExceeded, saying what was being done, when the time is over."""
        if self.left_s < 0:
            raise TimeoutExceeded(f"not finished within {self.timeout_s:g} s, while {doing}", subject=self.subject)

    def bind(self, con: sqlite3.Connection) -> None:
        """Make statements of a connection end with the deadline."""
        con.set_progress_handler(lambda: 1 if self.left_s < 0 else 0, _STEPS_BETWEEN_LOOKS)
