# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fluxhero.backend.market import CANDLES, CacheWriter, Market, read_closes, write_cache

NOW = datetime(2026, 1, 21, 10, 0, 30, tzinfo=timezone.utc)


def test_cache_file_holds_consistent_candles(tmp_path: Path) -> None:
    path = write_cache(Market(), tmp_path, "SPY", NOW)
    rows = pq.read_table(path).to_pylist()
    assert len(rows) == CANDLES
    assert rows[-1]["timestamp"] == NOW.replace(second=0)
    for row in rows:
        assert row["low"] <= min(row["open"], row["close"]) <= max(row["open"], row["close"]) <= row["high"]
    assert read_closes(tmp_path, "SPY") == [row["close"] for row in rows]


def test_later_candles_continue(tmp_path: Path) -> None:
    first = Market().candles("SPY", NOW)["timestamp"]
    later = Market().candles("SPY", NOW + timedelta(minutes=1))["timestamp"]
    assert later[:-1] == first[1:]


def test_missing_cache_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_closes(tmp_path, "SPY")


def test_writer_refreshes_every_symbol_and_stops(tmp_path: Path) -> None:
    market = Market()
    writer = CacheWriter(market, tmp_path / "cache", 0.2)
    writer.start()
    deadline = time.monotonic() + 20
    while len(list((tmp_path / "cache").glob("*.parquet"))) < len(market.symbols):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    while any(path.stat().st_mtime_ns == at for path, at in before.items()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    writer.stop()
    writer.join(5)
    assert not writer.is_alive()
