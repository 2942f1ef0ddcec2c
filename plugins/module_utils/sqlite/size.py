# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How large a database is, table by table, how well its pages are used, and how fast it grows.

The facts about tables come from SQLite's `dbstat`, which reads every page. On a live database in rollback-journal mode
writers wait for that long, so it gets a budget; beyond it a private snapshot is read instead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..core.clock import Clock
from ..core.errors import EngineError, TimeoutExceeded
from ..core.fsio import free_bytes
from . import hot_backup
from .connect import Deadline, open_ro, require_database, sqlite_errors
from .fingerprint import quoted

# How long a measurement may keep a writer waiting, in seconds.
BUDGET_S = 0.25
# Growth is told from notes that are at least this far apart, and from no older ones than that.
_SHORTEST_SPAN_S = 20 * 3600
_LONGEST_SPAN_S = 60 * 86400
_DAY_S = 86400
_PREFIX = ".fluxmaint-size-"
_MODES = ("none", "full", "incremental")


@dataclass(frozen=True)
class Item:
    """A table or an index.

    Attributes:
        table: the table itself, or the one that the index belongs to.
        kind: `table` or `index`.
        unused_bytes: in its pages, beside what SQLite needs itself.
        fill: fraction of the bytes in its pages that are used.
        gaps: pages that do not lie behind the one before them.
        rows: of a table; None for an index.
    """

    name: str
    table: str
    kind: str
    bytes: int
    pages: int
    unused_bytes: int
    fill: float
    gaps: int
    rows: int | None


@dataclass(frozen=True)
class Sizes:
    """What has been measured.

    Attributes:
        bytes: the file and its write-ahead log.
        used_bytes: in pages that are not free.
        free_page_bytes: in pages that are free, which new rows use first.
        free_ratio: free pages as a fraction of all pages.
        disk_free_bytes: on the file system of the database.
        objects: largest first; None when they could not be told, for the reason `no_objects`.
        fragmentation: fraction of pages that do not lie behind the one before them, and `fill` of all objects; None
            without objects.
        measured: `live`, or `snapshot` when reading the live database would have kept writers waiting.
    """

    path: str
    bytes: int
    page_size: int
    page_count: int
    freelist_count: int
    used_bytes: int
    free_page_bytes: int
    free_ratio: float
    auto_vacuum: str
    journal_mode: str
    disk_free_bytes: int
    objects: list[Item] | None
    no_objects: str
    fragmentation: float | None
    fill: float | None
    measured: str
    sqlite_version: str

    def as_dict(self) -> dict[str, Any]:
        """The sizes as JSON-serialisable data."""
        return dataclasses.asdict(self)

    def rows(self) -> dict[str, int]:
        """Rows by table, as far as they are known."""
        return {item.name: item.rows for item in self.objects or () if item.rows is not None}


def measure(
    path: Path,
    *,
    budget_s: float = BUDGET_S,
    timeout_s: float = 600.0,
    copy_dir: Path | None = None,
    clock: Clock | None = None,
) -> Sizes:
    """Measure an existing database that others may be writing to; changes nothing in it.

    Args:
        budget_s: how long writers may be kept waiting, in seconds.
        timeout_s: how long the whole may take.
        copy_dir: an existing directory for a private snapshot where the budget is not enough; without it the facts
            about tables are left out, and the reason is given.

    Raises:
        IntegrityError: the database is damaged so that it cannot be measured.
        InputError, PreconditionError, TimeoutExceeded: as `connect.open_ro`.
    """
    clock = clock or Clock()
    real, header = require_database(path)
    deadline = Deadline(clock, timeout_s, str(path))
    try:
        sizes = _read(real, Deadline(clock, timeout_s if header.wal else budget_s, str(path), deadline))
    except TimeoutExceeded as error:
        if "holds a lock" in error.message:
            raise
        sizes = _facts_only(real, "reading them would keep writers waiting for too long, and there is no snapshot")
    if sizes.objects is not None or copy_dir is None or header.wal or "no snapshot" not in sizes.no_objects:
        return sizes
    try:
        return _from_snapshot(real, copy_dir, sizes, deadline)
    except EngineError as error:
        reason = f"reading them would keep writers waiting for too long, and there is no snapshot: {error.message}"
        return dataclasses.replace(sizes, no_objects=reason)


def growth_per_day(samples: Sequence[tuple[datetime, int]], now: datetime) -> float | None:
    """Bytes per day, by the straight line that fits the samples best; None where there are too few to tell.

    Args:
        samples: times and bytes, in any order. Those older than sixty days are left out.
    """
    points = [((moment - now).total_seconds() / _DAY_S, size) for moment, size in samples]
    points = [(day, size) for day, size in points if -_LONGEST_SPAN_S / _DAY_S <= day <= 0]
    days = [day for day, _size in points]
    if len(points) < 2 or (max(days) - min(days)) * _DAY_S < _SHORTEST_SPAN_S:
        return None
    middle = sum(days) / len(days)
    average = sum(size for _day, size in points) / len(points)
    spread = sum((day - middle) ** 2 for day in days)
    return sum((day - middle) * (size - average) for day, size in points) / spread


def days_until_full(free: int, growth: float | None) -> float | None:
    """Days until `free` bytes are used up; None where the growth is unknown or nothing grows."""
    return round(free / growth, 1) if growth is not None and growth > 0 else None


def _read(real: Path, deadline: Deadline, *, immutable: bool = False) -> Sizes:
    con = open_ro(real, immutable=immutable)
    try:
        with sqlite_errors(real):
            con.execute("BEGIN")  # all of it from one state
            deadline.bind(con)
            try:
                items, reason = _items(con), ""
            except sqlite3.OperationalError as error:
                if "dbstat" not in str(error) and "no such column" not in str(error):
                    raise
                items, reason = None, f"this SQLite library cannot tell them: {error}"
            return _sizes(con, real, items, reason)
    finally:
        con.close()


def _facts_only(real: Path, reason: str) -> Sizes:
    con = open_ro(real)
    try:
        with sqlite_errors(real):
            return _sizes(con, real, None, reason)
    finally:
        con.close()


def _from_snapshot(real: Path, copy_dir: Path, live: Sizes, deadline: Deadline) -> Sizes:
    _sweep(copy_dir, deadline)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=copy_dir) as directory:
        copy = Path(directory) / "copy.db"
        hot_backup.transient(real, copy, timeout_s=max(deadline.left_s, 1), clock=deadline.clock)
        sizes = _read(copy, deadline, immutable=True)
    return dataclasses.replace(
        sizes,
        path=live.path,
        bytes=live.bytes,
        disk_free_bytes=live.disk_free_bytes,
        journal_mode=live.journal_mode,
        measured="snapshot",
    )


def _sweep(copy_dir: Path, deadline: Deadline) -> None:
    """Remove the snapshots of processes that were killed: those that are older than any measurement takes."""
    for left in copy_dir.glob(f"{_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if deadline.clock.now().timestamp() - left.stat().st_mtime > 2 * deadline.timeout_s:
                shutil.rmtree(left, ignore_errors=True)


def _sizes(con: sqlite3.Connection, real: Path, items: list[Item] | None, reason: str) -> Sizes:
    def ask(pragma: str) -> Any:
        return con.execute(f"PRAGMA {pragma}").fetchone()[0]

    page_size, pages, free = int(ask("page_size")), int(ask("page_count")), int(ask("freelist_count"))
    size = real.stat().st_size
    with contextlib.suppress(FileNotFoundError):
        size += Path(f"{real}-wal").stat().st_size
    total = sum(item.bytes for item in items or ())
    page_total = sum(item.pages for item in items or ())
    return Sizes(
        path=str(real),
        bytes=size,
        page_size=page_size,
        page_count=pages,
        freelist_count=free,
        used_bytes=(pages - free) * page_size,
        free_page_bytes=free * page_size,
        free_ratio=round(free / max(1, pages), 6),
        auto_vacuum=_MODES[int(ask("auto_vacuum"))],
        journal_mode=str(ask("journal_mode")),
        disk_free_bytes=free_bytes(real.parent),
        objects=items,
        no_objects=reason,
        fragmentation=round(sum(item.gaps for item in items) / max(1, page_total), 6) if items is not None else None,
        fill=round(1 - sum(item.unused_bytes for item in items) / max(1, total), 6) if items is not None else None,
        measured="live",
        sqlite_version=sqlite3.sqlite_version,
    )


def _items(con: sqlite3.Connection) -> list[Item]:
    """One walk over all pages, in the order in which each table and index goes through its own."""
    owners: dict[str, tuple[str, str]] = {"sqlite_schema": ("sqlite_schema", "table")}
    for name, table, kind in con.execute("SELECT name, tbl_name, type FROM sqlite_master WHERE rootpage > 0"):
        owners[name] = (table, kind)
    without_rowid = {name for name, (_table, kind) in owners.items() if kind == "table" and _keeps_no_rowid(con, name)}
    found: dict[str, list[int]] = {}  # pages, bytes, unused bytes, gaps, rows, the page before
    for name, page, kind, cells, unused, size in con.execute(
        "SELECT name, pageno, pagetype, ncell, unused, pgsize FROM dbstat"
    ):
        counts = found.setdefault(name, [0, 0, 0, 0, 0, 0])
        counts[0] += 1
        counts[1] += size
        counts[2] += unused
        counts[3] += counts[5] not in (0, page - 1)
        counts[4] += cells if kind == "leaf" or (kind == "internal" and name in without_rowid) else 0
        counts[5] = page
    items = []
    for name, (pages, size, unused, gaps, rows, _last) in found.items():
        table, kind = owners.get(name, (name, "table"))
        known = rows if kind == "table" and name != "sqlite_schema" else None
        items.append(Item(name, table, kind, size, pages, unused, round(1 - unused / max(1, size), 6), gaps, known))
    return sorted(items, key=lambda item: (-item.bytes, item.name))


def _keeps_no_rowid(con: sqlite3.Connection, table: str) -> bool:
    """Whether a table keeps its rows in the index of its primary key, whose inner pages hold rows too."""
    own = [row[1] for row in con.execute(f"PRAGMA index_list({quoted(table)})") if row[3] == "pk"]
    return any(
        con.execute("SELECT count(*) FROM sqlite_master WHERE type = 'index' AND name = ?", (name,)).fetchone() == (0,)
        for name in own
    )
