# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import logging
import random
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from fluxhero.backend.market import Market
from fluxhero.backend.settings import Settings
from fluxhero.backend.storage import open_database
from fluxhero.backend.trading import MAX_OPEN, Trader


@pytest.fixture
def trader(settings: Settings) -> Trader:
    with closing(open_database(settings, create=True)) as database:
        database.initialise()
    return Trader(settings, Market(random.Random(1)), random.Random(2))


def test_trades_open_and_close_positions(trader: Trader, settings: Settings) -> None:
    with closing(open_database(settings)) as database:
        for _unused in range(60):
            trader.trade_once(database)
            assert len(database.positions()) <= MAX_OPEN
        sides = {row["side"] for row in database.trades(100)}
    assert (trader.counters.trades, trader.counters.failed_trades, sides) == (60, 0, {"BUY", "SELL"})


def test_halted_trading_is_no_failure(trader: Trader, settings: Settings) -> None:
    settings.halt_file.touch()
    with closing(open_database(settings)) as database:
        trader.trade_once(database)
        assert database.trades(9) == []
    assert (trader.counters.trades, trader.counters.failed_trades) == (0, 0)


def test_locked_database_costs_the_trade_and_says_so(
    trader: Trader, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(open_database(settings)) as database, closing(sqlite3.connect(settings.database)) as other:
        database._con.execute("PRAGMA busy_timeout = 50")
        other.execute("BEGIN EXCLUSIVE")
        with caplog.at_level(logging.ERROR):
            trader.trade_once(database)
        other.rollback()
        assert "Trade execution failed: database is locked" in caplog.text
        assert trader.counters.failed_trades == 1
        trader.trade_once(database)
        assert (trader.counters.trades, trader.counters.failed_trades) == (1, 1)


def test_busy_timeout_is_the_default_of_five_seconds(settings: Settings) -> None:
    with closing(open_database(settings, create=True)) as database:
        assert database._con.execute("PRAGMA busy_timeout").fetchone()[0] == 5000


def test_rate_zero_beats_and_never_trades(trader: Trader, settings: Settings) -> None:
    trader.start()
    with closing(open_database(settings)) as database:
        while database.heartbeat()[0] == 0:
            trader.join(0.02)
        trader.stop()
        trader.join(5)
        assert not trader.is_alive()
        assert database.trades(9) == []


def test_rate_is_kept(settings: Settings) -> None:
    fast = replace(settings, trade_rate=20.0)
    with closing(open_database(fast, create=True)) as database:
        database.initialise()
    trader = Trader(fast, Market())
    trader.start()
    trader.join(2.0)
    trader.stop()
    trader.join(5)
    # Never more than asked for; a loaded machine may write fewer.
    assert 5 <= trader.counters.trades <= 41
