# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from fluxhero.backend.settings import Settings
from fluxhero.backend.storage import Database, Halted, Order, open_database


@pytest.fixture(params=["guide", "upstream-live", "upstream-paper"])
def database(request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    profile, _unused, mode = str(request.param).partition("-")
    chosen = replace(settings, profile=profile, trading_mode=mode or "live")
    with closing(open_database(chosen, create=True)) as opened:
        opened.initialise()
        yield opened


def test_heartbeats_are_numbered_without_gaps(database: Database) -> None:
    assert database.heartbeat() == (0, None)
    assert [database.beat() for _unused in range(3)] == [1, 2, 3]
    number, at = database.heartbeat()
    assert number == 3
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(at))


def test_buying_opens_a_position_and_selling_realises_its_profit(database: Database) -> None:
    assert database.execute(Order("SPY", "BUY", 10, 500.0)) is None
    assert [(row["symbol"], row["quantity"], row["entry_price"]) for row in database.positions()] == [
        ("SPY", 10, 500.0)
    ]
    assert database.execute(Order("SPY", "SELL", 10, 501.5)) == 15.0
    assert database.positions() == []


def test_initialising_again_keeps_everything(database: Database) -> None:
    database.execute(Order("SPY", "BUY", 1, 500.0))
    database.beat()
    database.initialise()
    assert (len(database.positions()), len(database.trades(9)), database.heartbeat()[0]) == (1, 1, 1)


def test_halt_latch_refuses_trades_and_lets_the_heart_beat(database: Database, settings: Settings) -> None:
    settings.halt_file.touch()
    with pytest.raises(Halted):
        database.execute(Order("SPY", "BUY", 1, 500.0, "explained"))
    assert (database.trades(9), database.positions(), database.beat()) == ([], [], 1)


def test_closing_all_leaves_no_position(database: Database) -> None:
    database.execute(Order("SPY", "BUY", 1, 500.0))
    database.execute(Order("AAPL", "BUY", 2, 180.0))
    assert database.close_all({"SPY": 501.0}) == 2
    assert database.positions() == []


def test_missing_database_is_an_error_and_is_not_created(settings: Settings) -> None:
    with pytest.raises(sqlite3.OperationalError), closing(open_database(settings)) as database:
        database.beat()
    assert not settings.database.exists()


def test_guide_profile_answers_the_guides_queries(settings: Settings) -> None:
    with closing(open_database(settings, create=True)) as database:
        database.initialise()
        database.execute(Order("SPY", "BUY", 10, 500.0, "price above average"))
        database.execute(Order("SPY", "SELL", 10, 499.0))
        database.execute(Order("AAPL", "BUY", 1, 180.0))
    with closing(sqlite3.connect(settings.database)) as con:
        assert con.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert con.execute("SELECT COUNT(*) FROM trades WHERE DATE(timestamp) = DATE('now')").fetchone() == (3,)
        assert con.execute("SELECT SUM(pnl) FROM trades WHERE DATE(timestamp) = DATE('now')").fetchone() == (-10.0,)
        stuck = (
            "SELECT COUNT(*) FROM positions WHERE status = 'open' AND datetime(opened_at) {} datetime('now', '-1 day')"
        )
        assert con.execute(stuck.format("<")).fetchone() == (0,)
        assert con.execute(stuck.format(">")).fetchone() == (1,)


def test_upstream_profile_closes_the_row_it_opened(settings: Settings) -> None:
    upstream = replace(settings, profile="upstream")
    with closing(open_database(upstream, create=True)) as database:
        database.initialise()
        database.execute(Order("SPY", "BUY", 10, 500.0))
        database.execute(Order("SPY", "SELL", 10, 499.0))
        (row,) = database.trades(9)
    assert (row["status"], row["realized_pnl"]) == (1, -10.0)
    assert row["exit_time"] >= row["entry_time"]
