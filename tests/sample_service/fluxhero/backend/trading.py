# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trade writer: one thread, one connection, a heartbeat every second."""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from dataclasses import dataclass

from .market import Market
from .settings import Settings
from .storage import Database, Halted, Order, open_database

log = logging.getLogger(__name__)

MAX_OPEN = 3
EXPLAIN_EVERY = 10
HEARTBEAT_S = 1.0


@dataclass
class Counters:
    """What this process has done since it started. `last_write_s` is the duration of the newest trade."""

    trades: int = 0
    failed_trades: int = 0
    failed_heartbeats: int = 0
    last_write_s: float = 0.0


class Trader(threading.Thread):
    """Writes `rate` trades per second while the halt latch is off, and heartbeats whatever happens.

    A database that stays locked past the busy timeout costs the trade: it is counted and logged, never
    retried, because a late order is a different order. Missed moments are not caught up either.
    """

    def __init__(self, settings: Settings, market: Market, rng: random.Random | None = None) -> None:
        super().__init__(name="trader", daemon=True)
        self.counters = Counters()
        self._settings, self._market = settings, market
        self._rng = rng or random.Random()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ask the thread to end; it may be inside a wait for the database for up to the busy timeout."""
        self._stopping.set()

    def run(self) -> None:
        database = open_database(self._settings)
        try:
            self._loop(database)
        finally:
            database.close()

    def _loop(self, database: Database) -> None:
        interval = 1.0 / self._settings.trade_rate if self._settings.trade_rate > 0 else float("inf")
        next_beat = next_trade = time.monotonic()
        while not self._stopping.is_set():
            now = time.monotonic()
            if now >= next_beat:
                self._beat(database)
                next_beat = max(next_beat + HEARTBEAT_S, time.monotonic())
            elif now >= next_trade and interval != float("inf"):
                self.trade_once(database)
                next_trade = max(next_trade + interval, time.monotonic())
            else:
                until = next_beat if interval == float("inf") else min(next_beat, next_trade)
                self._stopping.wait(until - now)

    def _beat(self, database: Database) -> None:
        try:
            database.beat()
        except sqlite3.Error as error:
            self.counters.failed_heartbeats += 1
            log.error("Heartbeat failed: %s", error)

    def trade_once(self, database: Database) -> None:
        """Decide on one order and book it."""
        started = time.monotonic()
        try:
            order = self._decide(database)
            pnl = database.execute(order)
        except Halted:
            return
        except sqlite3.Error as error:
            self.counters.failed_trades += 1
            log.error("Trade execution failed: %s", error)
            return
        self.counters.last_write_s = time.monotonic() - started
        self.counters.trades += 1
        result = "" if pnl is None else f", pnl {pnl:.2f}"
        log.info("Trade executed: %s %g %s at %.2f%s", order.side, order.quantity, order.symbol, order.price, result)

    def _decide(self, database: Database) -> Order:
        held = {row["symbol"]: row["quantity"] for row in database.positions()}
        symbol, price = self._market.tick()
        explain = self.counters.trades % EXPLAIN_EVERY == 0
        if symbol in held:
            why = f"{symbol}: momentum faded, price ≤ adaptive average" if explain else None
            return Order(symbol, "SELL", held[symbol], price, why)
        if len(held) >= MAX_OPEN:
            symbol, price = self._market.tick(self._rng.choice(sorted(held)))
            return Order(symbol, "SELL", held[symbol], price)
        why = f"{symbol}: price above adaptive average, volatility within ±2 %" if explain else None
        return Order(symbol, "BUY", float(self._rng.randint(1, 100)), price, why)
