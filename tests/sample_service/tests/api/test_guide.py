# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from fluxhero.backend.main import create_app
from fluxhero.backend.settings import Settings


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(replace(settings, trade_rate=200.0)), raise_server_exceptions=False) as running:
        yield running


def wait_for_positions(client: TestClient) -> list[dict[str, object]]:
    while not (positions := client.get("/api/positions").json()):
        pass
    return list(positions)


def test_status_tells_what_the_probes_ask(client: TestClient) -> None:
    status = client.get("/api/status").json()
    assert status["status"] == "ACTIVE"
    assert (status["trading"], status["database_connected"], status["profile"]) == ("active", True, "guide")
    assert client.get("/health").json() == {"status": "healthy", "database_connected": True}


def test_trades_are_listed_newest_first(client: TestClient) -> None:
    wait_for_positions(client)
    trades = client.get("/api/trades", params={"limit": 2}).json()
    assert trades[0]["id"] >= trades[-1]["id"]
    assert client.get("/api/trades", params={"limit": 0}).status_code == 422


def test_emergency_stop_closes_everything_and_nothing_opens_again(client: TestClient, settings: Settings) -> None:
    wait_for_positions(client)
    answer = client.post("/api/emergency_stop")
    assert answer.status_code == 200
    newest = client.get("/api/trades").json()[0]["id"]
    assert settings.halt_file.exists()
    beat = client.get("/api/status").json()["heartbeat"]
    while client.get("/api/status").json()["heartbeat"] <= beat:
        assert client.get("/api/positions").json() == []
    assert client.get("/api/trades").json()[0]["id"] == newest
    assert client.get("/api/status").json()["trading"] == "halted"
    settings.halt_file.unlink()
    wait_for_positions(client)


def test_prices_are_streamed(client: TestClient) -> None:
    with client.websocket_connect("/ws/prices") as socket:
        message = socket.receive_json()
    assert set(message) == {"symbol", "price", "timestamp"}


def test_lost_database_is_offline_and_not_created_again(client: TestClient, settings: Settings) -> None:
    settings.database.rename(settings.database.with_suffix(".away"))
    assert client.get("/api/status").json()["status"] == "OFFLINE"
    assert client.get("/health").json()["database_connected"] is False
    assert client.get("/api/positions").status_code == 503
    assert not settings.database.exists()


def test_indicators_come_from_the_cache(client: TestClient, settings: Settings) -> None:
    while not (settings.cache_dir / "SPY_1m.parquet").exists():
        pass
    answer = client.get("/api/indicators/SPY")
    while answer.status_code != 200:  # the file may be half written
        answer = client.get("/api/indicators/SPY")
    body = answer.json()
    assert 0 <= body["rsi"] <= 100
    assert body["ema"] == pytest.approx(body["close"], rel=0.2)
    assert client.get("/api/indicators/NONE").status_code == 404
