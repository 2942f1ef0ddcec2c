# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from fluxhero.backend.main import RATE_LIMIT, RateLimiter, create_app
from fluxhero.backend.settings import Settings
from starlette.websockets import WebSocketDisconnect

TOKEN = {"Authorization": "Bearer token-1"}


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    chosen = replace(settings, profile="upstream", api_token="token-1")
    with TestClient(create_app(chosen)) as running:
        yield running


def test_there_is_no_emergency_stop(client: TestClient, settings: Settings) -> None:
    assert client.post("/api/emergency_stop").status_code == 404
    assert not settings.halt_file.exists()


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "token-1"}])
def test_prices_need_the_token(client: TestClient, headers: dict[str, str]) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws/prices", headers=headers):
        pass


def test_prices_are_streamed_with_the_token(client: TestClient) -> None:
    with client.websocket_connect("/ws/prices", headers=TOKEN) as socket:
        assert "price" in socket.receive_json()


def test_without_a_configured_token_nobody_is_let_in(settings: Settings) -> None:
    with TestClient(create_app(replace(settings, profile="upstream", api_token=""))) as client:
        with (
            pytest.raises(WebSocketDisconnect),
            client.websocket_connect("/ws/prices", headers={"Authorization": "Bearer "}),
        ):
            pass


def test_requests_are_limited_except_health(client: TestClient) -> None:
    answers = [client.get("/api/status").status_code for _unused in range(RATE_LIMIT + 1)]
    assert answers == [200] * RATE_LIMIT + [429]
    assert client.get("/health").status_code == 200
    assert client.get("/").status_code == 200


def test_status_is_200_whatever_it_says(client: TestClient, settings: Settings) -> None:
    database = settings.data_dir / "system.db"
    database.rename(database.with_suffix(".away"))
    answer = client.get("/api/status")
    assert (answer.status_code, answer.json()["status"]) == (200, "OFFLINE")


def test_limit_slides_and_is_per_client() -> None:
    now = 0.0
    limiter = RateLimiter(lambda: now)
    assert all(limiter.allow("a") for _unused in range(RATE_LIMIT))
    assert (limiter.allow("a"), limiter.allow("b")) == (False, True)
    now = 60.0
    assert limiter.allow("a")
