# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The databases to measure with: the trading service's own tables, the same rows in each run.

A seed of rows comes from a seeded generator; SQLite then multiplies it with numbers, times and prices of
their own, so that hundreds of megabytes take seconds and no two rows are equal.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

MB = 1_000_000
SIZES = {"100MB": 100 * MB, "500MB": 500 * MB, "2.4GB": 2400 * MB}
JOURNALS = ("rollback", "wal")
_VERSION = 3  # raise it when the content changes: databases of another version are made anew
_SEED_ROWS = 20_000
_BYTES_PER_COPY = 6_000_000  # what one multiplication of the seed adds, indexes included; only a first guess
_SYMBOLS = ("AAPL", "AMD", "AMZN", "BAC", "GOOG", "INTC", "IWM", "JPM", "META", "MSFT", "NVDA", "QQQ", "SPY", "TLT")
_WORDS = (
    "trend", "breakout", "momentum", "reversal", "pullback", "volume", "spike", "average", "crossing", "above",
    "below", "band", "volatility", "low", "high", "confirmed", "weak", "strong", "signal", "filter", "passed",
    "regime", "quiet", "risk", "limit", "stop", "target", "entry", "exit", "partial",
)

SCHEMA = """
CREATE TABLE trades(
    id INTEGER PRIMARY KEY, timestamp TEXT NOT NULL, symbol TEXT NOT NULL, side TEXT NOT NULL,
    quantity REAL NOT NULL, price REAL NOT NULL, pnl REAL, status TEXT NOT NULL, strategy TEXT);
CREATE TABLE signals(
    id INTEGER PRIMARY KEY, timestamp TEXT NOT NULL, symbol TEXT NOT NULL, signal TEXT NOT NULL, explanation TEXT);
CREATE TABLE positions(
    id INTEGER PRIMARY KEY, symbol TEXT NOT NULL, quantity REAL NOT NULL, entry_price REAL NOT NULL,
    status TEXT NOT NULL, opened_at TEXT NOT NULL, closed_at TEXT);
CREATE TABLE heartbeat(n INTEGER PRIMARY KEY, at TEXT NOT NULL);
"""
INDEXES = """
CREATE INDEX trades_timestamp ON trades(timestamp);
CREATE INDEX positions_status ON positions(status);
"""
_GROW = """
INSERT INTO trades SELECT :base + n, strftime('%Y-%m-%dT%H:%M:%SZ', 1600000000 + (:base + n) * 7, 'unixepoch'),
    symbol, side, quantity, round(price * (1 + ((n * 7919 + :copy * 104729) % 20011 - 10005) / 250000.0), 4),
    round(pnl * (1 + ((n * 6101 + :copy * 31337) % 10007) / 5000.0), 6), status, strategy FROM seed;
INSERT INTO signals SELECT :base + n, strftime('%Y-%m-%dT%H:%M:%SZ', 1600000000 + (:base + n) * 7, 'unixepoch'),
    symbol, side, explanation || ((n * 48271 + :copy * 69621) % 99991) FROM seed;
INSERT INTO positions SELECT :base + n, symbol, quantity, price, 'closed',
    strftime('%Y-%m-%dT%H:%M:%SZ', 1600000000 + (:base + n) * 7, 'unixepoch'),
    strftime('%Y-%m-%dT%H:%M:%SZ', 1600003600 + (:base + n) * 7, 'unixepoch') FROM seed WHERE n % 3 = 0;
"""


@dataclass(frozen=True)
class Source:
    """A database to measure with."""

    size: str
    journal: str
    path: Path


def ensure(directory: Path, size: str, journal: str) -> Source:
    """The database of that size and journal mode, made when it is not there yet."""
    path = directory / f"v{_VERSION}-{size}-{journal}.db"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        if journal == "rollback":
            _build(partial, SIZES[size])
        else:
            shutil.copyfile(ensure(directory, size, "rollback").path, partial)
            con = sqlite3.connect(partial)
            con.execute("PRAGMA journal_mode=WAL")
            con.close()
        partial.rename(path)
    return Source(size, journal, path)


def _build(path: Path, target: int) -> None:
    con = sqlite3.connect(path, isolation_level=None)
    for pragma in ("page_size=4096", "journal_mode=OFF", "synchronous=OFF", "cache_size=-65536"):
        con.execute(f"PRAGMA {pragma}")
    con.executescript(SCHEMA)
    con.execute(
        "CREATE TEMP TABLE seed("
        "n INTEGER PRIMARY KEY, symbol, side, quantity, price, pnl, status, strategy, explanation)"
    )
    con.executemany("INSERT INTO seed VALUES (?,?,?,?,?,?,?,?,?)", _seed(random.Random(20260121)))
    # Half of the multiplications, then as many more as the size reached says, so that the indexes fit in.
    copies = max(1, target // (2 * _BYTES_PER_COPY))
    done = 0
    con.execute("BEGIN")
    while done < copies:
        for statement in _GROW.split(";\n"):
            if statement.strip():
                con.execute(statement, {"base": done * _SEED_ROWS, "copy": done})
        done += 1
        if done == copies and done < 10 * (target // _BYTES_PER_COPY + 1):
            pages = con.execute("PRAGMA page_count").fetchone()[0]
            index_share = 1.15  # the two indexes that are made at the end
            copies = max(copies, int(target / (pages * 4096 * index_share / done)))
    con.execute("COMMIT")
    con.executescript(INDEXES)
    con.close()


def _seed(pick: random.Random) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for number in range(_SEED_ROWS):
        explanation = " ".join(pick.choice(_WORDS) for _unused in range(pick.randint(6, 18)))
        rows.append(
            (
                number,
                pick.choice(_SYMBOLS),
                pick.choice(("buy", "sell")),
                float(pick.randint(1, 400)),
                round(pick.uniform(8, 900), 4),
                round(pick.gauss(0, 80), 6),
                pick.choice(("closed", "closed", "closed", "cancelled")),
                pick.choice(("adaptive_trend", "mean_reversion")),
                explanation,
            )
        )
    return rows


def day_of_changes(path: Path) -> None:
    """What a day does to a database: 0.5 % of its trades are updated here and there, 0.5 % are added."""
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("PRAGMA synchronous=OFF")
    count = con.execute("SELECT max(id) FROM trades").fetchone()[0]
    step = 200
    con.execute("BEGIN")
    con.execute(
        "WITH RECURSIVE ids(id) AS (SELECT 17 UNION ALL SELECT id + ? FROM ids WHERE id + ? < ?)"
        " UPDATE trades SET pnl = pnl + 0.25, status = 'adjusted' WHERE id IN (SELECT id FROM ids)",
        (step, step, count),
    )
    con.execute(
        "INSERT INTO trades SELECT id + ?, timestamp, symbol, side, quantity, price + 0.01, pnl, status, strategy"
        " FROM trades WHERE id <= ? AND id > 0",
        (count, count // step),
    )
    con.execute("COMMIT")
    con.close()
