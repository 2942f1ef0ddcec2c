# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a database and tell what is in it, without changing anything.

`full` is SQLite's integrity_check: structure, indexes, constraints. `quick` leaves the indexes out: a
damaged index passes it. Neither notices a changed value inside a row: compare content digests for that.
"""

from __future__ import annotations

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
        tables: rows, and bytes of the pages of the table and its indexes (null where SQLite has no dbstat).
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
    clock: Clock | None = None,
) -> Report:
    """Check an existing database.

    On a live database in rollback-journal mode each step holds a SHARED lock while it reads the file, and
    writers wait for that long; the report names the hazard. Check a snapshot instead.

    Args:
        level: `quick` or `full`.
        timeout_s: ends the check, and the wait of writers, in seconds.
        immutable: nobody else can write the file (a private snapshot).

    Raises:
        IntegrityError: it is damaged so that it cannot be read at all; damage found by the check itself is
            reported, not raised.
        InputError, PreconditionError, TimeoutExceeded: as `connect.open_ro`.
    """
    if level not in LEVELS:
        raise InputError(f"the level is one of {', '.join(LEVELS)}, not {level!r}", subject=str(path))
    clock = clock or Clock()
    started = clock.monotonic()
    deadline = Deadline(clock, timeout_s, str(path))
    real, _header = require_database(path)
    with open(real, "rb") as stream:
        header_bytes = stream.read(HEADER_BYTES)
    hazards = [] if immutable else file_hazards(real, header_bytes)
    con = open_ro(path, busy_timeout_s=busy_timeout_s, immutable=immutable)
    try:
        deadline.bind(con)
        with sqlite_errors(path):
            facts = _facts(con)
            messages, violations = damage(con, level)
            rows, sizes = _tables(con, messages)
            hazards += _database_hazards(con, facts["journal_mode"])
            digest = schema_digest(con)
    finally:
        con.close()
    size = real.stat().st_size
    if sizes is None:
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
        tables={name: {"rows": rows[name], "bytes": None if sizes is None else sizes.get(name, 0)} for name in rows},
        sqlite_version=sqlite3.sqlite_version,
        duration_s=round(clock.monotonic() - started, 6),
        hazards=hazards,
        **facts,
    )


def damage(con: sqlite3.Connection, level: str) -> tuple[list[str], list[dict[str, Any]]]:
    """What SQLite's own check and the foreign key check complain about; both empty when all is well."""
    pragma = "integrity_check" if level == "full" else "quick_check"
    messages: list[str] = []
    try:
        messages = [str(text) for (text,) in con.execute(f"PRAGMA {pragma}({MESSAGE_LIMIT})")]
    except sqlite3.DatabaseError as error:
        if "malformed" not in str(error):
            raise
        messages = [str(error)]
    if messages == ["ok"]:
        messages = []
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
    if journal_mode == "wal" and _WAL_RESET_BUG[0] <= sqlite3.sqlite_version_info <= _WAL_RESET_BUG[1]:
        hazards.append(
            f"wal-reset-bug: SQLite {sqlite3.sqlite_version} in WAL mode can corrupt the database when several "
            "connections write or checkpoint at once; do not add writers, update to 3.51.3"
        )
    without_key = [name for name in ordinary_tables(con) if not name.startswith("sqlite_") and not _has_key(con, name)]
    if without_key:
        hazards.append(f"no-primary-key: VACUUM may renumber the rows of {', '.join(without_key)}")
    return hazards


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


def _tables(con: sqlite3.Connection, messages: list[str]) -> tuple[dict[str, int], dict[str, int] | None]:
    """Rows and bytes per table; damage on the way goes to `messages`."""
    rows: dict[str, int] = {}
    try:
        rows = count_rows(con)
    except sqlite3.DatabaseError as error:
        if "malformed" not in str(error):
            raise
        messages.append(f"rows cannot be counted: {error}")
    try:
        sizes = con.execute(
            "SELECT s.tbl_name, sum(d.pgsize) FROM dbstat AS d JOIN sqlite_master AS s ON s.name = d.name"
            " WHERE d.aggregate = TRUE GROUP BY s.tbl_name"
        )
        return rows, {str(name): int(size) for name, size in sizes}
    except sqlite3.OperationalError as error:
        if "dbstat" not in str(error):
            raise
        return rows, None
    except sqlite3.DatabaseError as error:
        if "malformed" not in str(error):
            raise
        messages.append(f"table sizes cannot be read: {error}")
        return rows, None
