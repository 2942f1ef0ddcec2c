# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what the archives hold, and ask the live database and its archives as if rows had never been moved.

SQLite attaches ten databases to a connection, and archives are one a month. So the archives that a query needs are
read one after the other into one private file beside a snapshot of the live database. A view in front of the table
shows both: a row that is in the database counts as it is there, one that is only in an archive as the archive has it.

A key may be in both with other content. Where the contract's query gives the database's row the month of the archive,
it is the same row, which changed after it was archived, and counts as the database has it. Otherwise the key was used
again by another row, and both count. The answer tells how many there are of each.
"""
# ruff: noqa: S608 - SQL cannot bind names, so each is quoted; values are bound

from __future__ import annotations

import contextlib
import re
import sqlite3
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.clock import Clock
from ..core.config import ArchivedTable, Archives, Config, Database
from ..core.errors import ConfigError, EngineError, InputError
from ..core.fsio import private_umask
from ..core.journal import Journal
from . import archive_file, hot_backup
from .archive import fewer_than_noted, noted_reused, noted_rows, workspace
from .archive_file import ArchiveFile
from .archive_selection import EVERY_TIME, compile_query, months_asked, query_parameters, same_key, with_months
from .connect import Deadline, connect, reading, sqlite_errors, uri
from .fingerprint import only_reading, quoted
from .table_shape import Shape, equal_rows, listed, matching, read_shape

MOST_ROWS = 1000
TIMEOUT_S = 600.0
_MONTH = re.compile(r"[0-9]{6}")
_FIRST, _LAST = "000000", "999999"


def info(
    config: Config, *, content: bool = True, timeout_s: float = TIMEOUT_S, clock: Clock | None = None
) -> dict[str, Any]:
    """What the archives hold, and whether they are sound.

    Args:
        content: read every archive: SQLite's check, and the digest of its rows.

    Returns:
        JSON-serialisable: `ok`, `problems`, `notes`, and `tables`, each with its `files`, `rows` and `bytes`.
    """
    archives = _archives(config)
    deadline = Deadline(clock or Clock(), timeout_s, "archives")
    tables, problems = [], []
    notes: list[str] = []
    past = Journal(config.journal_file).read()
    noted, reused = noted_rows(past), noted_reused(past)
    for table in archives.tables:
        files = []
        for month, path in archive_file.existing(archives.directory, table.name).items():
            entry: dict[str, Any] = {"month": month, "path": str(path), "ok": True}
            try:
                found = archive_file.read(path, table, month, deadline, content=content)
                entry.update(rows=found.rows, bytes=found.bytes, sha256=found.sha256, cutoff=found.cutoff)
                entry.update(replaced=found.replaced, reused=reused.get((table.name, month), 0))
                notes += _notes(entry)
                mode = stat.S_IMODE(path.stat().st_mode)
                if mode & 0o077:
                    problems.append(f"{path}: others than its owner have access, its mode is {mode:04o}")
            except EngineError as error:
                entry.update(ok=False, problem=str(error))
                problems.append(str(error))
            files.append(entry)
        sound = [entry for entry in files if entry["ok"]]
        rows = {entry["month"]: entry["rows"] + entry["replaced"] for entry in sound}
        rows.update({entry["month"]: sys.maxsize for entry in files if not entry["ok"]})  # said already
        for month, why in fewer_than_noted(noted, table.name, rows).items():
            problems.append(f"{archive_file.path_of(archives.directory, table.name, month)}: {why}")
            for entry in files:
                if entry["month"] == month:
                    entry.update(ok=False, problem=why)
        sound = [entry for entry in files if entry["ok"]]
        tables.append(
            {
                "name": table.name,
                "database": table.database,
                "table": table.table,
                "files": files,
                "rows": sum(entry["rows"] for entry in sound),
                "bytes": sum(entry["bytes"] for entry in sound),
            }
        )
    return {
        "ok": not problems,
        "directory": str(archives.directory),
        "checked": "content" if content else "names",
        "tables": tables,
        "problems": problems,
        "notes": notes,
    }


def _notes(entry: Mapping[str, Any]) -> Iterator[str]:
    """What a person may want to know of an archive that is sound."""
    if entry["replaced"]:
        yield f"{entry['path']}: keeps {entry['replaced']} rows that were replaced, in {archive_file.REPLACED}"
    if entry["reused"]:
        yield (
            f"{entry['path']}: the keys of {entry['reused']} rows were used again in the database by other rows, when"
            " rows were archived last; queries show both"
        )


def _archives(config: Config) -> Archives:
    if config.archives is None:
        raise ConfigError(
            "the contract names no table whose rows are archived",
            remedy="set service_archives and apply the role agent",
        )
    return config.archives


@dataclass(frozen=True)
class Answer:
    """The rows of a query.

    Attributes:
        truncated: there are more rows.
        archives: the files that were read.
        reused: rows of archives of which the key is used again by another row of the database; both count.
        changed: rows of archives that changed in the database afterwards; they count as the database has them.
        notes: the same in words, and what else a reader of the rows must know.
    """

    columns: list[str]
    rows: list[tuple[Any, ...]]
    truncated: bool
    archives: list[str]
    reused: int
    changed: int
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable: blobs become hexadecimal text."""
        rows = [[value.hex() if isinstance(value, bytes) else value for value in row] for row in self.rows]
        return {**vars(self), "rows": rows}


def query(
    config: Config,
    sql: str,
    *,
    database: str = "",
    since: str = "",
    until: str = "",
    max_rows: int = MOST_ROWS,
    timeout_s: float = TIMEOUT_S,
    clock: Clock | None = None,
) -> Answer:
    """Run one SELECT over a database and its archives. Neither is written, and no writer waits for the query.

    Args:
        database: by its name; the only one without it.
        since: the first month of which archives are read, such as `202601`.
        until: the last one.
        max_rows: at most so many rows come back.

    Raises:
        IntegrityError: an archive that the query needs is damaged.
        InputError: it is not one SELECT, or rows of an archive do not fit into the live table.
        PreconditionError: there is no room for the snapshot and the archives' rows in the state directory.
    """
    clock = clock or Clock()
    _archives(config)
    for month in filter(None, (since, until)):
        if not _MONTH.fullmatch(month):
            raise InputError(f"{month!r} is not a month like 202611")
    if not database and len(config.databases) > 1:
        known = ", ".join(item.name for item in config.databases)
        raise InputError(f"say which database is asked: {known}")
    chosen = config.database(database) if database else config.databases[0]
    deadline = Deadline(clock, timeout_s, "query")
    with _joined(config, sql, chosen, {}, (since or _FIRST, until or _LAST), deadline) as (joined, _taken):
        return joined.ask(sql, max_rows)


@contextlib.contextmanager
def opened(
    config: Config, sql: str, database: Database, parameters: Mapping[str, Any], deadline: Deadline
) -> Iterator[tuple[sqlite3.Connection, dict[str, Any]]]:
    """A connection that can only read, and sees the rows of all archives where `sql` asks for their tables.

    Gives also how it reads: `from`, `journal_mode`, `lock_held_s`, the `archives` that were read, and how many rows are
    `reused` and `changed`; see `Answer`.
    """
    with _joined(config, sql, database, parameters, (_FIRST, _LAST), deadline) as (joined, taken):
        how = {"from": "snapshot", "journal_mode": taken.journal_mode, "lock_held_s": taken.lock_held_s}
        yield joined.connection, {**how, **joined.facts}


@contextlib.contextmanager
def _joined(
    config: Config,
    sql: str,
    database: Database,
    parameters: Mapping[str, Any],
    months: tuple[str, str],
    deadline: Deadline,
) -> Iterator[tuple[_Joined, hot_backup.Snapshot]]:
    archives, clock = _archives(config), deadline.clock
    with private_umask(), workspace(config, "archive-query", clock) as work:
        snapshot = work / "live.snapshot"
        taken = hot_backup.transient(database.path, snapshot, timeout_s=deadline.left_s, clock=clock)
        asked = _tables_asked(snapshot, sql, database, parameters)
        tables = [item for item in archives.tables if item.database == database.name and item.table.lower() in asked]
        with _Joined(snapshot, work / "archived.db", database, deadline) as joined:
            for table in tables:
                files = archive_file.existing(archives.directory, table.name)
                wanted = [files[month] for month in files if months[0] <= month <= months[1]]
                joined.add(table, [archive_file.read(path, table, _month(path), deadline) for path in wanted])
            joined.show()
            joined.require_both(sql, parameters, {table.table.lower() for table in tables})
            yield joined, taken


def _month(path: Path) -> str:
    return path.stem[-6:]


def _tables_asked(snapshot: Path, sql: str, database: Database, parameters: Mapping[str, Any]) -> set[str]:
    """The tables that a query reads, in lower case; refuses what is not one query."""
    found: set[str] = set()
    with reading(snapshot, immutable=True) as con:
        only_reading(con, found)
        try:
            con.execute(f"EXPLAIN {sql}", parameters).fetchone()
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise InputError(f"the query is not one SELECT: {error}", subject=str(database.path)) from None
    return found


def _times(table: ArchivedTable) -> str:
    return quoted(f"fluxmaint_times {table.name}")


class _Joined:
    """A snapshot with views in front of its tables that show the archives' rows too."""

    def __init__(self, snapshot: Path, archived: Path, database: Database, deadline: Deadline) -> None:
        self._database = database
        self._snapshot = snapshot
        self._read: list[str] = []
        self._views: list[str] = []
        self._timed: set[str] = set()
        self._reused = self._changed = 0
        self._notes: list[str] = []
        self._con = connect(snapshot, timeout_s=5, mode="ro", immutable="1")
        deadline.bind(self._con)
        self._con.execute("ATTACH DATABASE ? AS archived", (uri(archived, mode="rwc"),))
        self._con.execute("PRAGMA archived.journal_mode = OFF")
        self._con.execute("PRAGMA archived.synchronous = OFF")

    def __enter__(self) -> _Joined:
        return self

    def __exit__(self, *_: object) -> None:
        self._con.close()

    def add(self, table: ArchivedTable, files: Sequence[ArchiveFile]) -> None:
        """Read archives of one table."""
        with sqlite_errors(self._database.path):
            shape = read_shape(self._con, table.table, table.key, subject=str(self._database.path))
            name = quoted(shape.table)
            columns = ", ".join(f"{quoted(column.name)} {column.kind}".strip() for column in shape.columns)
            self._con.execute(f"CREATE TABLE archived.{name}({columns})")
            for archive in files:
                self._one(table, shape, archive)
        self._views.append(
            f"CREATE TEMP VIEW {name} AS SELECT {listed(shape.names)} FROM main.{name}"
            f" UNION ALL SELECT {listed(shape.names)} FROM archived.{name}"
        )

    def show(self) -> None:
        """Put views in front of the tables; not before, because contracts' queries mean the database alone."""
        with sqlite_errors(self._database.path):
            for view in self._views:
                self._con.execute(view)
            # A view of the database sees only tables of the database; the same one made here sees what is in front.
            for (text,) in self._con.execute("SELECT sql FROM main.sqlite_master WHERE type = 'view'").fetchall():
                self._con.execute(re.sub(r"(?i)\ACREATE\s+VIEW\b", "CREATE TEMP VIEW", text, count=1))

    def require_both(self, sql: str, parameters: Mapping[str, Any], tables: set[str]) -> None:
        """Raise InputError when a view of the database asks one of the tables past the view in front of it."""
        past: set[str] = set()

        def judge(action: int, name: str | None, _column: str | None, schema: str | None, within: str | None) -> int:
            asked = (name or "").lower()
            if (
                action == sqlite3.SQLITE_READ
                and schema == "main"
                and asked in tables
                and (within or asked).lower() != asked
            ):
                past.add(str(within))
            return sqlite3.SQLITE_OK

        self._con.set_authorizer(judge)
        with sqlite_errors(self._database.path):
            self._con.execute(f"EXPLAIN {sql}", parameters).fetchone()
        if past:
            raise InputError(
                f"the view {', '.join(sorted(past))} would show rows of the database alone",
                subject=str(self._database.path),
                remedy="ask the tables themselves",
            )

    def _one(self, table: ArchivedTable, shape: Shape, archive: ArchiveFile) -> None:
        name, path = quoted(shape.table), archive.path
        here = {column.lower() for column in shape.names}
        gone = [column for column in archive.shape.names if column.lower() not in here]
        if gone:
            raise InputError(
                f"the table {shape.table} of the live database no longer has {', '.join(gone)}",
                subject=str(path),
                remedy="ask this archive by itself, or leave its month out",
            )
        columns = archive.shape.names
        copying = f"INSERT INTO archived.{name}({listed(columns)}) SELECT {listed(columns, 'o')} FROM old.{name} AS o"
        self._con.execute("ATTACH DATABASE ? AS old", (uri(path, mode="ro", immutable="1"),))
        try:
            self._con.execute(f"{copying} WHERE NOT EXISTS (SELECT 1 FROM main.{name} AS t WHERE {same_key(shape)})")
            self._meet(table, shape, archive, copying)
        finally:
            self._con.execute("DETACH DATABASE old")
        self._read.append(str(path))
        if archive.replaced:
            self._notes.append(f"{path} keeps {archive.replaced} rows that were replaced; they are not shown")

    def _meet(self, table: ArchivedTable, shape: Shape, archive: ArchiveFile, copying: str) -> None:
        """Show rows whose key another row of the database has now."""
        name = quoted(shape.table)
        ids = [f"i{number}" for number in range(len(archive.shape.identity))]
        keys = [f"k{number}" for number in range(len(shape.key))]
        self._con.execute("DROP TABLE IF EXISTS archived.fluxmaint_met")
        self._con.execute(f"CREATE TABLE archived.fluxmaint_met({', '.join([*ids, *keys])})")
        met = self._con.execute(
            f"INSERT INTO archived.fluxmaint_met SELECT {listed(archive.shape.identity, 'o')}, {listed(shape.key, 't')}"
            f" FROM old.{name} AS o CROSS JOIN main.{name} AS t ON {same_key(shape)}"
            f" WHERE NOT {equal_rows('t', 'o', archive.shape.names)}"
        ).rowcount
        if not met:
            return
        self._ask_months(table, shape)
        own = matching([f"m.{key}" for key in keys], [f"x.{key}" for key in keys])
        self._con.execute(
            "DELETE FROM archived.fluxmaint_met AS m WHERE EXISTS"
            f" (SELECT 1 FROM archived.{_times(table)} AS x WHERE {own} AND x.month = ?)",
            (archive.month,),
        )
        found = matching([f"o.{quoted(one)}" for one in archive.shape.identity], [f"m.{one}" for one in ids])
        reused = self._con.execute(
            f"{copying} WHERE EXISTS (SELECT 1 FROM archived.fluxmaint_met AS m WHERE {found})"
        ).rowcount
        self._reused += reused
        self._changed += met - reused

    def _ask_months(self, table: ArchivedTable, shape: Shape) -> None:
        """The month of each row of the database that the contract's query gives, whatever its age; once."""
        if table.name in self._timed:
            return
        self._timed.add(table.name)
        checking = connect(self._snapshot, timeout_s=5, mode="ro", immutable="1")
        try:
            compile_query(checking, table, EVERY_TIME, subject=str(self._database.path))
        finally:
            checking.close()
        with_months(self._con, EVERY_TIME)
        self._con.execute(
            f"CREATE TABLE archived.{_times(table)} AS {months_asked(table, shape)}", query_parameters(EVERY_TIME)
        )
        keys = ", ".join(f"k{number}" for number in range(len(shape.key)))
        self._con.execute(
            f"CREATE INDEX archived.{quoted(f'fluxmaint_by_key {table.name}')} ON {_times(table)}({keys})"
        )

    @property
    def connection(self) -> sqlite3.Connection:
        """Both together, from now on to read only."""
        only_reading(self._con)
        return self._con

    @property
    def facts(self) -> dict[str, Any]:
        """The files that were read, and the rows of which the key is in both with other content."""
        return {"archives": list(self._read), "reused": self._reused, "changed": self._changed}

    def _notes_told(self) -> list[str]:
        notes = []
        if self._reused:
            notes.append(
                f"the keys of {self._reused} archived rows were used again in the database by other rows; both are"
                " shown"
            )
        if self._changed:
            notes.append(
                f"{self._changed} archived rows changed in the database afterwards; they are shown as they are there"
            )
        return [*notes, *self._notes]

    def ask(self, sql: str, max_rows: int) -> Answer:
        """Run the query."""
        only_reading(self._con)
        with sqlite_errors(self._database.path):
            cursor = self._con.execute(sql)
            columns = [str(column[0]) for column in cursor.description]
            rows: Sequence[tuple[Any, ...]] = cursor.fetchmany(max_rows + 1)
        return Answer(columns, list(rows[:max_rows]), len(rows) > max_rows, notes=self._notes_told(), **self.facts)
