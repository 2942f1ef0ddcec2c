"""A service on disk whose old trades are archived, and its judges."""

from __future__ import annotations

import contextlib
import getpass
import grp
import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from fluxmaint.core import config as configuration
from fluxmaint.core.clock import Clock
from fluxmaint.core.journal import Journal
from fluxmaint.sqlite import archive

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=timezone.utc)
SCHEMA = """
CREATE TABLE trades(
    id INTEGER PRIMARY KEY, timestamp TEXT NOT NULL, symbol TEXT NOT NULL, pnl REAL,
    status TEXT NOT NULL DEFAULT 'filled'
);
CREATE INDEX trades_timestamp ON trades(timestamp);
CREATE TABLE positions(id INTEGER PRIMARY KEY, symbol TEXT, status TEXT, opened_at TEXT);
"""
QUERY = (
    "SELECT id, timestamp AS time FROM trades WHERE status <> 'open'"
    " AND (julianday(timestamp) < julianday(:cutoff) OR julianday(timestamp) IS NULL)"
)
TRADES = {"name": "trades", "database": "trades", "query": QUERY}


class Fixed(Clock):
    """The real clock on a fixed day; nobody waits, unless there are others to wait for."""

    def __init__(self, *, patient: bool = False) -> None:
        self._patient = patient

    def now(self) -> datetime:
        return NOW

    def sleep(self, seconds: float) -> None:
        if self._patient:
            super().sleep(seconds)


class World:
    """A database, a configuration and a journal below a directory."""

    def __init__(self, top: Path, schema: str = SCHEMA, *, mode: str = "delete", encoding: str = "UTF-8") -> None:
        self.top = top
        self.data = top / "data"
        self.data.mkdir(parents=True)
        self.database = self.data / "trades.db"
        self.directory = self.data / "archive"
        with self.live() as con:
            con.execute(f"PRAGMA encoding = '{encoding}'")
            con.execute(f"PRAGMA journal_mode = {mode}")
            con.executescript(schema)
        self.tables: list[dict[str, Any]] = [dict(TRADES)]
        self.busy_timeout_s = 5.0

    @contextlib.contextmanager
    def live(self) -> Iterator[sqlite3.Connection]:
        con = sqlite3.connect(self.database, isolation_level=None, timeout=5)
        try:
            yield con
        finally:
            con.close()

    def run_sql(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self.live() as con:
            return con.execute(sql, parameters).fetchall()

    def trades(self, count: int, days_ago: float, *, every_s: float = 3600, **values: Any) -> None:
        """Add trades: the first one so many days ago, then one after the other."""
        columns = {"symbol": "SPY", "pnl": 1.25, **values}
        with self.live() as con:
            con.execute("BEGIN")
            for number in range(count):
                at = NOW - timedelta(days=days_ago) + timedelta(seconds=number * every_s)
                names = ", ".join(["timestamp", *columns])
                marks = ", ".join("?" * (len(columns) + 1))
                text = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
                con.execute(f"INSERT INTO trades({names}) VALUES ({marks})", (text, *columns.values()))
            con.execute("COMMIT")

    @property
    def document(self) -> dict[str, Any]:
        return {
            "format": 1,
            "service": "fluxhero",
            "host": "production",
            "root": str(self.top),
            "user": getpass.getuser(),
            "group": grp.getgrgid(os.getegid()).gr_name,
            "units": [],
            "databases": [{"name": "trades", "path": str(self.database), "busy_timeout_s": self.busy_timeout_s}],
            "archives": {"directory": str(self.directory), "tables": self.tables},
            "health": {},
            "state_dir": str(self.top / "state"),
            "run_dir": str(self.top / "run"),
        }

    @property
    def config(self) -> configuration.Config:
        (self.top / "state").mkdir(exist_ok=True)
        (self.top / "config.json").write_text(json.dumps(self.document))
        return configuration.load(self.top / "config.json")

    @property
    def journal(self) -> Journal:
        return Journal(self.top / "state" / "journal.jsonl", Fixed())

    def archive(self, **options: Any) -> dict[str, Any]:
        config = self.config
        clock = options.setdefault("clock", Fixed())
        return archive.run(config, journal=Journal(self.journal.path, clock), **options)

    def plan(self, **options: Any) -> dict[str, Any]:
        return archive.run(self.config, dry_run=True, clock=Fixed(), **options)

    def files(self) -> dict[str, Path]:
        return {path.name: path for path in sorted(self.directory.iterdir())} if self.directory.is_dir() else {}

    def archived(self, table: str = "trades", columns: str = "*") -> list[tuple[Any, ...]]:
        """The rows of all archives."""
        found = []
        for path in self.files().values():
            if path.suffix == ".db":
                found += rows_of(path, table, columns)
        return found

    def lives(self, table: str = "trades", columns: str = "*") -> list[tuple[Any, ...]]:
        return rows_of(self.database, table, columns)


def rows_of(path: Path, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
    con = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return con.execute(f'SELECT {columns} FROM "{table}"').fetchall()
    finally:
        con.close()
