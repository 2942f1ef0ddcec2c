# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a database and tell what is in it, without changing anything.

`full` is SQLite's integrity_check: structure, indexes, constraints. `quick` leaves the indexes out: a
damaged index passes it. Neither notices a changed value inside a row: compare content digests for that.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import sqlite3
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.clock import Clock
from ..core.errors import InputError
from . import rollback_journal
from .connect import HEADER_BYTES, SIDE_FILES, Deadline, open_ro, require_database, sqlite_errors
from .fingerprint import count_rows, ordinary_tables, quoted, schema_digest

LEVELS = ("quick", "full")
MESSAGE_LIMIT = 100

# Bytes per second that a check reads, at the least, on the slowest machine worth naming; for warnings only.
_CHECK_SPEED = {"quick": 800e6, "full": 400e6}
_WORTH_A_WARNING_S = 0.5
_CHECKS_ONE_TABLE = (3, 33, 0)
_WORTH_DIVIDING = 64 << 20
_CACHE_KIB = -512  # the kernel has the file in its own cache
_WAL_RESET_BUG = ((3, 7, 0), (3, 51, 2))


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        ok: the check found no damage, no broken foreign key, and at least one table.
        messages: damage, in SQLite's words; at most 100.
        foreign_key_violations: `{table, rowid, parent, constraint}`, at most 100.
        journal_mode: as SQLite reports it for a new connection: `wal`, or `delete` for every rollback mode.
        free_ratio: free pages as a fraction of all pages.
        tables: rows, and bytes of the pages of the table and its indexes (null where SQLite has no dbstat, or they were
            not asked for).
        hazards: what may go wrong although the data is sound; each begins with a fixed word.
    """

    path: str
    ok: bool
    level: str
    messages: list[str]
    foreign_key_violations: list[dict[str, Any]]
    journal_mode: str
    page_size: int
    page_count: int
    freelist_count: int
    free_ratio: float
    bytes: int
    schema_digest: str
    tables: dict[str, dict[str, int | None]]
    application_id: int
    user_version: int
    auto_vacuum: str
    encoding: str
    sqlite_version: str
    duration_s: float
    hazards: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-serialisable data."""
        return dataclasses.asdict(self)


def check(
    path: Path,
    level: str = "full",
    *,
    timeout_s: float = 3600.0,
    busy_timeout_s: float = 5.0,
    immutable: bool = False,
    sizes: bool = True,
    workers: int = 1,
    clock: Clock | None = None,
    deadline: Deadline | None = None,
) -> Report:
    """Check an existing database.

    On a live database in rollback-journal mode each step holds a SHARED lock while it reads the file, and
    writers wait for that long; the report names the hazard. Check a snapshot instead.

    Args:
        level: `quick` or `full`.
        timeout_s: ends the check, and the wait of writers, in seconds.
        immutable: nobody else can write the file (a private snapshot).
        sizes: also tell the bytes of each table, for which the whole file is read once more.
        workers: a full check of an immutable file may use two processors, for more work in all and less time.
        deadline: instead of `timeout_s`, one that somebody else may cancel.

    Raises:
        IntegrityError: it is damaged so that it cannot be read at all; damage found by the check itself is
            reported, not raised.
        InputError, PreconditionError, TimeoutExceeded: as `connect.open_ro`.
    """
    if level not in LEVELS:
        raise InputError(f"the level is one of {', '.join(LEVELS)}, not {level!r}", subject=str(path))
    clock = clock or Clock()
    started = clock.monotonic()
    deadline = deadline or Deadline(clock, timeout_s, str(path))
    real, _header = require_database(path)
    with open(real, "rb") as stream:
        header_bytes = stream.read(HEADER_BYTES)
    hazards = [] if immutable else file_hazards(real, header_bytes)
    con = open_ro(path, busy_timeout_s=busy_timeout_s, immutable=immutable)
    try:
        deadline.bind(con)
        if immutable:
            con.execute(f"PRAGMA cache_size = {_CACHE_KIB}")
        with sqlite_errors(path):
            facts = _facts(con)
            if level == "full" and immutable and workers > 1 and _divisible(con):
                messages, violations = _damage_in_parallel(con, path, workers, deadline)
            else:
                messages, violations = damage(con, level)
            rows = _rows(con, messages)
            bytes_of = _sizes(con, messages) if sizes else None
            hazards += _database_hazards(con, facts["journal_mode"])
            digest = schema_digest(con)
    finally:
        con.close()
    size = real.stat().st_size
    if sizes and bytes_of is None:
        hazards.append("no-dbstat: this SQLite library cannot tell the size of a table")
    if not rows and not messages:
        messages.append("there is no table in it, so nothing that could be sound")
    seconds = size / _CHECK_SPEED[level]
    if not immutable and facts["journal_mode"] != "wal" and seconds > _WORTH_A_WARNING_S:
        hazards.append(
            f"check-blocks-writers: a {level} check of this rollback-journal database holds a SHARED lock for "
            f"about {seconds:.1f} s or more, and writers wait; check a snapshot instead"
        )
    return Report(
        path=str(path),
        ok=not messages and not violations,
        level=level,
        messages=messages,
        foreign_key_violations=violations,
        free_ratio=round(facts["freelist_count"] / max(1, facts["page_count"]), 6),
        bytes=size,
        schema_digest=digest,
        tables={name: {"rows": rows[name], "bytes": bytes_of.get(name, 0) if bytes_of else None} for name in rows},
        sqlite_version=sqlite3.sqlite_version,
        duration_s=round(clock.monotonic() - started, 6),
        hazards=hazards,
        **facts,
    )


def damage(con: sqlite3.Connection, level: str) -> tuple[list[str], list[dict[str, Any]]]:
    """What SQLite's own check and the foreign key check complain about; both empty when all is well."""
    messages = _complaints(con, f"{'integrity_check' if level == 'full' else 'quick_check'}({MESSAGE_LIMIT})")
    more, violations = _broken_keys(con)
    return messages + more, violations


def _complaints(con: sqlite3.Connection, pragma: str) -> list[str]:
    try:
        messages = [str(text) for (text,) in con.execute(f"PRAGMA {pragma}")]
    except sqlite3.DatabaseError as error:
        if "malformed" not in str(error):
            raise
        return [str(error)]
    return [] if messages == ["ok"] else messages


def _broken_keys(con: sqlite3.Connection) -> tuple[list[str], list[dict[str, Any]]]:
    messages: list[str] = []
    violations: list[dict[str, Any]] = []
    try:
        for table, rowid, parent, constraint in con.execute("PRAGMA foreign_key_check"):
            violations.append({"table": table, "rowid": rowid, "parent": parent, "constraint": constraint})
            if len(violations) == MESSAGE_LIMIT:
                break
    except sqlite3.DatabaseError as error:
        if str(error) == "interrupted":
            raise
        messages.append(f"foreign keys cannot be checked: {error}")
    return messages, violations


def _divisible(con: sqlite3.Connection) -> bool:
    """Whether `_damage_in_parallel` finds all that integrity_check finds, in a database worth it."""
    if sqlite3.sqlite_version_info < _CHECKS_ONE_TABLE:
        return False
    # Newer libraries let virtual tables check themselves, older ones cannot be asked about a single one.
    virtual = con.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND rootpage = 0").fetchone()[0]
    pages, size = (con.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    return bool(virtual == 0 and pages * size >= _WORTH_DIVIDING)


def _damage_in_parallel(
    con: sqlite3.Connection, path: Path, workers: int, deadline: Deadline
) -> tuple[list[str], list[dict[str, Any]]]:
    """`damage` of an immutable file, in several threads.

    integrity_check is quick_check, which looks at every page, and then, for each table, whether its indexes agree with
    it. The latter can be asked for one table at a time; tables without an index have no such part.
    """
    indexed = [
        name for (name,) in con.execute("SELECT DISTINCT tbl_name FROM sqlite_master WHERE type = 'index' ORDER BY 1")
    ]
    pragmas = [f"quick_check({MESSAGE_LIMIT})", *(f"integrity_check({quoted(name)})" for name in indexed)]

    def ask(pragma: str) -> list[str]:
        own = open_ro(path, immutable=True)
        try:
            deadline.bind(own)
            own.execute(f"PRAGMA cache_size = {_CACHE_KIB}")
            return _complaints(own, pragma)
        finally:
            own.close()

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        asked = [pool.submit(ask, pragma) for pragma in pragmas]
        more, violations = _broken_keys(con)
        found = [message for answer in asked for message in answer.result()]
    return [*dict.fromkeys(found), *more][:MESSAGE_LIMIT], violations


def file_hazards(path: Path, header_bytes: bytes) -> list[str]:
    """What is dangerous about the file itself, its mode and what lies beside it. `path` is the real path."""
    hazards = []
    status = path.stat()
    if status.st_nlink > 1:
        hazards.append(
            f"hard-link: the file has {status.st_nlink} names; journals go by name, so a program that opens "
            "another name does not see a crash recovery or the write-ahead log of this one"
        )
    if status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        hazards.append(f"mode: other users have access (mode {stat.S_IMODE(status.st_mode):04o})")
    for suffix in SIDE_FILES:
        try:
            beside = os.lstat(f"{path}{suffix}")
        except FileNotFoundError:
            continue
        if (beside.st_uid, beside.st_gid) != (status.st_uid, status.st_gid):
            hazards.append(f"owner: {path.name}{suffix} belongs to another user or group than the database")
    journal = rollback_journal.inspect(path, header_bytes)
    if journal.kind == "foreign":
        hazards.append(
            f"foreign-journal: {path.name}-journal does not belong to this database ({journal.reason}); the next "
            "program that writes would roll it back and destroy data"
        )
    elif journal.kind == "fitting":
        hazards.append(
            f"journal: {path.name}-journal is not empty: a transaction is running, or a crash interrupted one"
        )
    return hazards


def _database_hazards(con: sqlite3.Connection, journal_mode: str) -> list[str]:
    hazards = []
    if journal_mode == "wal" and wal_reset_bug():
        hazards.append(
            f"wal-reset-bug: SQLite {sqlite3.sqlite_version} in WAL mode can corrupt the database when several "
            "connections write or checkpoint at once; do not add writers, update to 3.51.3"
        )
    without_key = [name for name in ordinary_tables(con) if not name.startswith("sqlite_") and not _has_key(con, name)]
    if without_key:
        hazards.append(f"no-primary-key: VACUUM may renumber the rows of {', '.join(without_key)}")
    return hazards


def wal_reset_bug() -> bool:
    """Whether this SQLite can corrupt a database in WAL mode when several connections write or checkpoint at once."""
    return _WAL_RESET_BUG[0] <= sqlite3.sqlite_version_info <= _WAL_RESET_BUG[1]


def _has_key(con: sqlite3.Connection, table: str) -> bool:
    return any(row[5] for row in con.execute(f"PRAGMA table_info({quoted(table)})"))


def _facts(con: sqlite3.Connection) -> dict[str, Any]:
    def ask(pragma: str) -> Any:
        return con.execute(f"PRAGMA {pragma}").fetchone()[0]

    return {
        "journal_mode": str(ask("journal_mode")),
        "page_size": int(ask("page_size")),
        "page_count": int(ask("page_count")),
        "freelist_count": int(ask("freelist_count")),
        "application_id": int(ask("application_id")),
        "user_version": int(ask("user_version")),
        "auto_vacuum": ("none", "full", "incremental")[int(ask("auto_vacuum"))],
        "encoding": str(ask("encoding")),
    }


def _rows(con: sqlite3.Connection, messages: list[str]) -> dict[str, int]:
    """Rows per table; damage on the way goes to `messages`."""
    try:
        return count_rows(con)
    except sqlite3.DatabaseError as error:
        if "malformed" not in str(error):
            raise
        messages.append(f"rows cannot be counted: {error}")
        return {}


def _sizes(con: sqlite3.Connection, messages: list[str]) -> dict[str, int] | None:
    """Bytes per table, or None when they cannot be told; damage on the way goes to `messages`."""
    try:
        sizes = con.execute(
            "SELECT s.tbl_name, sum(d.pgsize) FROM dbstat AS d JOIN sqlite_master AS s ON s.name = d.name"
            " WHERE d.aggregate = TRUE GROUP BY s.tbl_name"
        )
        return {str(name): int(size) for name, size in sizes}
    except sqlite3.OperationalError as error:
        if "dbstat" not in str(error):
            raise
        return None
    except sqlite3.DatabaseError as error:
        if "malformed" not in str(error):
            raise
        messages.append(f"table sizes cannot be read: {error}")
        return None
