# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulated market: one random walk per symbol, and its candles in Parquet files."""

from __future__ import annotations

import logging
import random
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

log = logging.getLogger(__name__)

START_PRICES = {"AAPL": 187.2, "BRK.B": 412.5, "MSFT": 428.9, "NVDA": 131.4, "SPY": 588.6}
CANDLES = 500


class Market:
    """Thread-safe prices; each reading moves the symbol a little."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()
        self._prices = dict(START_PRICES)
        self._lock = threading.Lock()

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(START_PRICES)

    def tick(self, symbol: str | None = None) -> tuple[str, float]:
        """Move one symbol (a random one by default) and return its name and price."""
        with self._lock:
            name = symbol or self._rng.choice(self.symbols)
            self._prices[name] = round(self._prices[name] * (1 + self._rng.gauss(0, 0.0008)), 2)
            return name, self._prices[name]

    def candles(self, symbol: str, end: datetime, count: int = CANDLES) -> dict[str, list[object]]:
        """Return one-minute candles up to `end` as columns; each candle follows from symbol and minute alone."""
        minute = end.replace(second=0, microsecond=0)
        times: list[object] = []
        columns: dict[str, list[object]] = {name: [] for name in ("open", "high", "low", "close", "volume")}
        close = START_PRICES[symbol]
        for i in range(count):
            at = minute - timedelta(minutes=count - 1 - i)
            rng = random.Random(f"{symbol} {at.isoformat()}")
            opening, close = close, round(close * (1 + rng.gauss(0, 0.001)), 2)
            times.append(at)
            columns["open"].append(opening)
            columns["high"].append(round(max(opening, close) * (1 + abs(rng.gauss(0, 0.0003))), 2))
            columns["low"].append(round(min(opening, close) * (1 - abs(rng.gauss(0, 0.0003))), 2))
            columns["close"].append(close)
            columns["volume"].append(rng.randint(1_000, 90_000))
        return {"timestamp": times, **columns}


def write_cache(market: Market, cache_dir: Path, symbol: str, now: datetime) -> Path:
    """Rewrite the symbol's Parquet file in place, as the real service does, and return its path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = cache_dir / f"{symbol}_1m.parquet"
    pq.write_table(pa.table(market.candles(symbol, now)), path)
    return path


def read_closes(cache_dir: Path, symbol: str) -> list[float]:
    """Return the cached closing prices; FileNotFoundError when the symbol is not cached."""
    import pyarrow.parquet as pq

    column: list[float] = pq.read_table(cache_dir / f"{symbol}_1m.parquet", columns=["close"])["close"].to_pylist()
    return column


class CacheWriter(threading.Thread):
    """Refreshes one symbol's file after the other, all of them once per `refresh_s`."""

    def __init__(self, market: Market, cache_dir: Path, refresh_s: float) -> None:
        super().__init__(name="cache-writer", daemon=True)
        self._market, self._cache_dir, self._refresh_s = market, cache_dir, refresh_s
        self._stopping = threading.Event()

    def run(self) -> None:
        self._cache_dir.mkdir(parents=True, exist_ok=True)
        first = True
        while True:
            for symbol in self._market.symbols:
                # The first round fills the cache at once.
                if self._stopping.wait(0 if first else self._refresh_s / len(self._market.symbols)):
                    return
                try:
                    write_cache(self._market, self._cache_dir, symbol, datetime.now(timezone.utc))
                except OSError as error:
                    log.warning("Cache refresh failed: %s: %s", symbol, error)
            first = False

    def stop(self) -> None:
        self._stopping.set()
