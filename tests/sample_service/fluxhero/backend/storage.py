# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trading database, in the schema of either profile."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from .settings import Settings

COMMON_SCHEMA = """
CREATE TABLE IF NOT EXISTS heartbeat (n INTEGER PRIMARY KEY, at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS signals (
    id INTEGER PRIMARY KEY, timestamp TEXT NOT NULL, symbol TEXT NOT NULL, signal TEXT NOT NULL, explanation TEXT
);
INSERT OR IGNORE INTO settings VALUES ('max_open_positions', '3'), ('risk_per_trade', '0.01');
"""

GUIDE_SCHEMA = """
CREATE TABLE IF NOT EXISTS trades (
    id INTEGER PRIMARY KEY, timestamp TEXT NOT NULL, symbol TEXT NOT NULL, side TEXT NOT NULL,
    quantity REAL NOT NULL, price REAL NOT NULL, pnl REAL, status TEXT NOT NULL, strategy TEXT
);
CREATE INDEX IF NOT EXISTS trades_timestamp ON trades (timestamp);
CREATE TABLE IF NOT EXISTS positions (
    id INTEGER PRIMARY KEY, symbol TEXT NOT NULL, quantity REAL NOT NULL, entry_price REAL NOT NULL,
    status TEXT NOT NULL, opened_at TEXT NOT NULL, closed_at TEXT
);
CREATE INDEX IF NOT EXISTS positions_status ON positions (status);
"""

UPSTREAM_SCHEMA = "".join(
    f"""
CREATE TABLE IF NOT EXISTS {mode}_trades (
    id INTEGER PRIMARY KEY AUTOINCREMENT, symbol TEXT NOT NULL, side INTEGER NOT NULL, shares REAL NOT NULL,
    entry_price REAL NOT NULL, entry_time TEXT NOT NULL, exit_price REAL, exit_time TEXT,
    realized_pnl REAL, status INTEGER NOT NULL, strategy TEXT
);
CREATE INDEX IF NOT EXISTS {mode}_trades_status ON {mode}_trades (status);
CREATE TABLE IF NOT EXISTS {mode}_positions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, symbol TEXT NOT NULL UNIQUE, side INTEGER NOT NULL, shares REAL NOT NULL,
    entry_price REAL NOT NULL, entry_time TEXT NOT NULL, updated_at TEXT NOT NULL
);
"""
    for mode in ("live", "paper")
)

STRATEGY = "adaptive_trend"


def utc_text(at: datetime | None = None) -> str:
    """Return a time (now by default) as ISO 8601 in UTC with Z and milliseconds."""
    moment = (at or datetime.now(timezone.utc)).astimezone(timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Order:
    """What the strategy wants: buy or sell `quantity` of `symbol` at `price`."""

    symbol: str
    side: str
    quantity: float
    price: float
    explanation: str | None = None


class Halted(Exception):
    """The halt latch is set; nothing was written."""


class Database(ABC):
    """One connection for one thread, in autocommit mode with the default busy timeout of 5 s.

    Every change is one immediate transaction. The halt latch is read inside it, so that a trade either
    commits before an emergency stop or is refused.
    """

    schema: str

    def __init__(self, settings: Settings, *, create: bool = False) -> None:
        self._halt_file = settings.halt_file
        uri = f"{settings.database.resolve().as_uri()}?mode={'rwc' if create else 'rw'}"
        self._con = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        self._con.row_factory = sqlite3.Row

    def initialise(self) -> None:
        """Create what is missing; keep everything that is there."""
        self._con.execute("PRAGMA journal_mode = DELETE")
        self._con.executescript(f"BEGIN IMMEDIATE; {COMMON_SCHEMA} {self.schema} COMMIT;")

    def close(self) -> None:
        self._con.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._con.execute("BEGIN IMMEDIATE")
        try:
            yield self._con
            self._con.execute("COMMIT")
        except BaseException:
            if self._con.in_transaction:
                self._con.execute("ROLLBACK")
            raise

    def beat(self) -> int:
        """Write the next heartbeat row and return its number; numbers have no gaps."""
        with self._transaction() as con:
            row = con.execute(
                "INSERT INTO heartbeat SELECT coalesce(max(n), 0) + 1, ? FROM heartbeat RETURNING n", (utc_text(),)
            ).fetchall()
        return int(row[0]["n"])

    def heartbeat(self) -> tuple[int, str | None]:
        """Return number and time of the newest heartbeat, (0, None) before the first."""
        row = self._con.execute("SELECT n, at FROM heartbeat ORDER BY n DESC LIMIT 1").fetchone()
        return (int(row["n"]), str(row["at"])) if row else (0, None)

    def execute(self, order: Order) -> float | None:
        """Book the order and return its realised profit, None when it opened a position.

        Raises Halted when the latch is set, sqlite3.OperationalError when the database stays locked.
        """
        with self._transaction() as con:
            if self._halt_file.exists():
                raise Halted(str(self._halt_file))
            if order.explanation is not None:
                con.execute(
                    "INSERT INTO signals (timestamp, symbol, signal, explanation) VALUES (?, ?, ?, ?)",
                    (utc_text(), order.symbol, order.side, order.explanation),
                )
            return self._book(con, order)

    def close_all(self, prices: dict[str, float]) -> int:
        """Close every open position at the given prices and return how many there were."""
        with self._transaction() as con:
            positions = self._open(con)
            for position in positions:
                price = prices.get(position["symbol"], position["entry_price"])
                self._book(con, Order(position["symbol"], "SELL", position["quantity"], price))
        return len(positions)

    def positions(self) -> list[dict[str, Any]]:
        """Return the open positions."""
        return self._open(self._con)

    @abstractmethod
    def _book(self, con: sqlite3.Connection, order: Order) -> float | None: ...

    @abstractmethod
    def _open(self, con: sqlite3.Connection) -> list[dict[str, Any]]: ...

    @abstractmethod
    def trades(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest trades, newest first."""


class GuideDatabase(Database):
    """`trades` and `positions` as the maintenance guide queries them."""

    schema = GUIDE_SCHEMA

    def _open(self, con: sqlite3.Connection) -> list[dict[str, Any]]:
        rows = con.execute(
            "SELECT id, symbol, quantity, entry_price, opened_at FROM positions WHERE status = 'open' ORDER BY id"
        )
        return [dict(row) for row in rows]

    def _book(self, con: sqlite3.Connection, order: Order) -> float | None:
        now, pnl = utc_text(), None
        if order.side == "BUY":
            con.execute(
                "INSERT INTO positions (symbol, quantity, entry_price, status, opened_at) VALUES (?, ?, ?, 'open', ?)",
                (order.symbol, order.quantity, order.price, now),
            )
        else:
            held = [row for row in self._open(con) if row["symbol"] == order.symbol]
            pnl = round(sum((order.price - row["entry_price"]) * row["quantity"] for row in held), 2)
            con.execute(
                "UPDATE positions SET status = 'closed', closed_at = ? WHERE symbol = ? AND status = 'open'",
                (now, order.symbol),
            )
        con.execute(
            "INSERT INTO trades (timestamp, symbol, side, quantity, price, pnl, status, strategy)"
            " VALUES (?, ?, ?, ?, ?, ?, 'filled', ?)",
            (now, order.symbol, order.side, order.quantity, order.price, pnl, STRATEGY),
        )
        return pnl

    def trades(self, limit: int) -> list[dict[str, Any]]:
        return [dict(row) for row in self._con.execute("SELECT * FROM trades ORDER BY id DESC LIMIT ?", (limit,))]


class UpstreamDatabase(Database):
    """`live_trades`/`paper_trades` with one row per round trip: status 0 open, 1 closed, 2 cancelled."""

    schema = UPSTREAM_SCHEMA

    def __init__(self, settings: Settings, *, create: bool = False) -> None:
        super().__init__(settings, create=create)
        self._mode = settings.trading_mode

    def _open(self, con: sqlite3.Connection) -> list[dict[str, Any]]:
        rows = con.execute(
            f"SELECT id, symbol, shares AS quantity, entry_price, entry_time FROM {self._mode}_positions ORDER BY id"
        )
        return [dict(row) for row in rows]

    def _book(self, con: sqlite3.Connection, order: Order) -> float | None:
        now = utc_text()
        if order.side == "BUY":
            con.execute(
                f"INSERT INTO {self._mode}_trades (symbol, side, shares, entry_price, entry_time, status, strategy)"
                " VALUES (?, 1, ?, ?, ?, 0, ?)",
                (order.symbol, order.quantity, order.price, now, STRATEGY),
            )
            con.execute(
                f"INSERT INTO {self._mode}_positions (symbol, side, shares, entry_price, entry_time, updated_at)"
                " VALUES (?, 1, ?, ?, ?, ?)",
                (order.symbol, order.quantity, order.price, now, now),
            )
            return None
        closed = con.execute(
            f"UPDATE {self._mode}_trades SET exit_price = :price, exit_time = :now, status = 1,"
            " realized_pnl = round((:price - entry_price) * shares, 2)"
            " WHERE symbol = :symbol AND status = 0 RETURNING realized_pnl",
            {"price": order.price, "now": now, "symbol": order.symbol},
        ).fetchall()
        con.execute(f"DELETE FROM {self._mode}_positions WHERE symbol = ?", (order.symbol,))
        return round(sum(float(row["realized_pnl"]) for row in closed), 2)

    def trades(self, limit: int) -> list[dict[str, Any]]:
        rows = self._con.execute(f"SELECT * FROM {self._mode}_trades ORDER BY id DESC LIMIT ?", (limit,))
        return [dict(row) for row in rows]


def open_database(settings: Settings, *, create: bool = False) -> Database:
    """Open the database of the settings' profile, an existing one unless `create`; every caller gets its own."""
    kind = GuideDatabase if settings.profile == "guide" else UpstreamDatabase
    return kind(settings, create=create)
