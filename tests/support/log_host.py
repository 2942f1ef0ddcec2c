# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with logs, for tests of reading them: its configuration, its clock, and what was counted."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from fluxmaint.core import config as configuration
from fluxmaint.core.clock import Clock
from fluxmaint.logs import reading, summary

from tests.support import log_lines, log_reference

BEGIN = log_lines.BEGIN


class Still(Clock):
    """A clock that stands, so that files are as old as a test says."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def sleep(self, seconds: float) -> None:
        """Nothing is written meanwhile."""


class LogHost:
    """One log directory and its totals. Files are written at `at`, and read a minute later unless a test says so."""

    def __init__(self, root: Path, **logs: Any) -> None:
        self.root = root
        self.directory = root / "logs"
        self.log = self.directory / "fluxhero.log"
        self.at = BEGIN + timedelta(hours=2)
        for name in ("logs", "state", "run"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self.document: dict[str, Any] = {
            "format": 1,
            "service": "fluxhero",
            "host": "production",
            "root": str(root),
            "user": "root",
            "group": "root",
            "units": [],
            "databases": [{"name": "trades", "path": str(root / "trades.db")}],
            "logs": {"directory": str(self.directory), **logs},
            "system": {"release_link": str(root / "current"), "exclude": [], "paths": []},
            "health": {},
            "state_dir": str(root / "state"),
            "run_dir": str(root / "run"),
        }

    @property
    def config(self) -> configuration.Config:
        return configuration.parse(self.document)

    @property
    def database(self) -> Path:
        return self.root / "state" / "logs.db"

    def write(self, lines: Iterable[bytes], path: Path | None = None, *, end: bytes = b"\n") -> None:
        """Append lines, at the time `at`."""
        path = path or self.log
        with path.open("ab") as stream:
            stream.write(b"".join(line + end for line in lines))
        self.touch(path)

    def touch(self, path: Path) -> None:
        """Make a file as old as `at`."""
        os.utime(path, (self.at.timestamp(), self.at.timestamp()))

    def read(self, *, later_s: float = 100.0) -> dict[str, Any]:
        return reading.read(self.config, clock=Still(self.at + timedelta(seconds=later_s)))

    def summary(self, **period: datetime) -> summary.Document:
        period = period or {"since": BEGIN - timedelta(days=1), "until": BEGIN + timedelta(days=6)}
        return summary.summarise(self.config, clock=Still(self.at), **period)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        con = sqlite3.connect(self.database)
        try:
            return con.execute(statement).fetchall()
        finally:
            con.close()

    def totals(self) -> tuple[Counter[Any], Counter[Any], Counter[Any], Counter[Any]]:
        """Everything that was counted, bytes left out."""
        return (
            Counter(dict(self._pairs("SELECT hour, name, sum(count) FROM facts WHERE name <> 'bytes' GROUP BY 1, 2"))),
            Counter(
                dict(
                    self._pairs(
                        "SELECT hour, fingerprint, sum(count) FROM counts JOIN messages ON id = message GROUP BY 1, 2"
                    )
                )
            ),
            Counter(dict(self._pairs("SELECT hour, method, route, status, count FROM requests"))),
            Counter(dict(self._pairs("SELECT hour, method, route, bucket, count FROM latencies"))),
        )

    def _pairs(self, statement: str) -> Iterable[tuple[tuple[Any, ...], int]]:
        for *key, count in self.rows(statement):
            yield tuple(key), count


def wanted(lines: list[bytes]) -> tuple[Counter[Any], Counter[Any], Counter[Any], Counter[Any]]:
    """The same, counted line by line."""
    found = log_reference.count(lines, int((BEGIN + timedelta(hours=2)).timestamp()) // 3600)
    return found.facts, found.counts, found.requests, found.latencies


def utc(*numbers: int) -> datetime:
    return datetime(*numbers, tzinfo=timezone.utc)  # type: ignore[arg-type,misc]
