# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The web application: `uvicorn fluxhero.backend.main:app`."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse

from .. import __version__
from .logs import configure_logging
from .market import CacheWriter, Market, read_closes
from .settings import CODE_ROOT, Settings, load_settings
from .storage import open_database, utc_text
from .trading import Trader

log = logging.getLogger(__name__)

PRICE_INTERVAL_S = 0.25
RATE_LIMIT = 100
RATE_WINDOW_S = 60.0
RATE_EXEMPT = ("/", "/health")
STOP_WAIT_S = 0.5


class Service:
    """The running parts behind the endpoints."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.market = Market()
        self.trader = Trader(settings, self.market)
        self.cache = CacheWriter(self.market, settings.cache_dir, settings.cache_refresh_s)
        self.started_at = utc_text()
        self.revision = _revision(CODE_ROOT)

    def start(self) -> None:
        """Prepare the database and start trading; raises sqlite3.Error when the database cannot be used."""
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        with closing(open_database(self.settings, create=True)) as database:
            database.initialise()
        if self.settings.profile == "upstream":
            (self.settings.data_dir / "archive").mkdir(exist_ok=True)
        self.trader.start()
        self.cache.start()

    def stop(self) -> None:
        """End the threads. One that still waits for a locked database has written nothing and is left behind."""
        self.trader.stop()
        self.cache.stop()
        self.trader.join(STOP_WAIT_S)
        self.cache.join(STOP_WAIT_S)

    def database_state(self) -> tuple[bool, int, str | None]:
        """Return whether the database answers, and number and time of the newest heartbeat."""
        try:
            with closing(open_database(self.settings)) as database:
                return True, *database.heartbeat()
        except sqlite3.Error as error:
            log.error("Database check failed: %s", error)
            return False, 0, None

    def status(self) -> dict[str, Any]:
        connected, heartbeat, heartbeat_at = self.database_state()
        counters = self.trader.counters
        healthy = connected and self.trader.is_alive()
        return {
            "status": "ACTIVE" if healthy else "OFFLINE",
            "trading": "halted" if self.settings.halt_file.exists() else "active",
            "database_connected": connected,
            "version": __version__,
            "revision": self.revision,
            "profile": self.settings.profile,
            "heartbeat": heartbeat,
            "heartbeat_at": heartbeat_at,
            "started_at": self.started_at,
            "trade_rate": self.settings.trade_rate,
            "trades": counters.trades,
            "failed_trades": counters.failed_trades,
            "failed_heartbeats": counters.failed_heartbeats,
            "last_trade_write_s": round(counters.last_write_s, 6),
        }

    def emergency_stop(self) -> int:
        """Set the halt latch, then close all positions, so that no trade can come after; return how many closed."""
        self.settings.halt_file.write_text(f"emergency stop at {utc_text()}\n", encoding="utf-8")
        log.warning("Emergency stop: trading halted")
        prices = dict(self.market.tick(symbol) for symbol in self.market.symbols)
        with closing(open_database(self.settings)) as database:
            return database.close_all(prices)


class RateLimiter:
    """At most `RATE_LIMIT` requests per client in any `RATE_WINDOW_S` seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._seen: dict[str, deque[float]] = defaultdict(deque)

    def allow(self, client: str) -> bool:
        now, seen = self._monotonic(), self._seen[client]
        while seen and now - seen[0] >= RATE_WINDOW_S:
            seen.popleft()
        if len(seen) >= RATE_LIMIT:
            return False
        seen.append(now)
        return True


def create_app(settings: Settings) -> FastAPI:
    """Build the application for one profile; trading starts and ends with it."""
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        configure_logging(settings)
        service.start()
        log.info("FluxHero %s started: profile %s, %g trades/s", __version__, settings.profile, settings.trade_rate)
        yield
        await asyncio.to_thread(service.stop)
        log.info("FluxHero stopped")

    app = FastAPI(title="FluxHero", version=__version__, lifespan=lifespan)
    app.state.service = service

    _report_failures(app)
    _serve_data(app, service)
    _serve_prices(app, service)
    if settings.profile == "guide":
        _serve_emergency_stop(app, service)
    else:
        _limit_requests(app)
    return app


def _report_failures(app: FastAPI) -> None:
    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        log.error("API request failed: %s %s: %s", request.method, request.url.path, error)
        locked = isinstance(error, sqlite3.OperationalError)
        return JSONResponse({"detail": str(error) if locked else "internal error"}, 503 if locked else 500)


def _serve_data(app: FastAPI, service: Service) -> None:
    @app.get("/")
    def root() -> dict[str, str]:
        return {"name": "FluxHero", "version": __version__}

    @app.get("/health")
    def health() -> dict[str, Any]:
        connected = service.database_state()[0]
        return {"status": "healthy" if connected else "unhealthy", "database_connected": connected}

    @app.get("/api/status")
    def status() -> dict[str, Any]:
        return service.status()

    @app.get("/api/positions")
    def positions() -> list[dict[str, Any]]:
        with closing(open_database(service.settings)) as database:
            return database.positions()

    @app.get("/api/trades")
    def trades(limit: int = Query(50, ge=1, le=1000)) -> list[dict[str, Any]]:
        with closing(open_database(service.settings)) as database:
            return database.trades(limit)

    @app.get("/api/indicators/{symbol}")
    def indicators(symbol: str) -> dict[str, Any]:
        if symbol not in service.market.symbols:
            raise HTTPException(404, f"unknown symbol {symbol}")
        return _indicators(service.settings.cache_dir, symbol)


def _serve_prices(app: FastAPI, service: Service) -> None:
    @app.websocket("/ws/prices")
    async def prices(socket: WebSocket) -> None:
        # Refusing before accepting makes the server answer the handshake with 403.
        if service.settings.profile == "upstream" and not _authorised(socket, service.settings.api_token):
            await socket.close(code=1008)
            return
        await socket.accept()
        try:
            while True:
                symbol, price = service.market.tick()
                await socket.send_json({"symbol": symbol, "price": price, "timestamp": utc_text()})
                await asyncio.sleep(PRICE_INTERVAL_S)
        except WebSocketDisconnect:
            log.info("WebSocket closed by the client")


def _serve_emergency_stop(app: FastAPI, service: Service) -> None:
    @app.post("/api/emergency_stop")
    def emergency_stop() -> dict[str, Any]:
        return {"trading": "halted", "closed_positions": service.emergency_stop()}


def _limit_requests(app: FastAPI) -> None:
    limiter = RateLimiter()

    @app.middleware("http")
    async def limit(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        client = request.client.host if request.client else ""
        if request.url.path not in RATE_EXEMPT and not limiter.allow(client):
            return JSONResponse({"detail": "Rate limit exceeded"}, 429)
        return await call_next(request)


def _authorised(socket: WebSocket, token: str) -> bool:
    return bool(token) and socket.headers.get("authorization") == f"Bearer {token}"


def _indicators(cache_dir: Path, symbol: str) -> dict[str, Any]:
    # Compiled on first use: trading must not wait for the compiler.
    import numpy as np

    from .computation.adaptive_ema import calculate_kama
    from .computation.indicators import calculate_ema, calculate_rsi

    try:
        closes = np.asarray(read_closes(cache_dir, symbol), dtype=np.float64)
    except FileNotFoundError:
        raise HTTPException(503, f"no cached candles for {symbol}") from None
    return {
        "symbol": symbol,
        "close": float(closes[-1]),
        "ema": float(calculate_ema(closes, 20)[-1]),
        "rsi": float(calculate_rsi(closes, 14)[-1]),
        "kama": float(calculate_kama(closes, 10, 2, 30)[-1]),
    }


def _revision(code_root: Path) -> str | None:
    try:
        return (code_root / "REVISION").read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


app = create_app(load_settings())
