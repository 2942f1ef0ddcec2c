# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP and WebSocket probes against real servers on this machine."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.server
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fluxmaint.core.clock import Clock
from fluxmaint.core.config import Health, Probe
from fluxmaint.core.errors import InputError, TimeoutExceeded
from fluxmaint.service import probe

CLOCK = Clock()


Talk = Callable[[socket.socket, bytes], None]


def http_probe(url: str, **changes: Any) -> Probe:
    return Probe(**{"url": url, "status": 200, "json": {}, "headers": {}, "timeout_s": 1.0, **changes})


class Pages(http.server.BaseHTTPRequestHandler):
    """Answers by path; remembers what it was asked."""

    answers: ClassVar[dict[str, tuple[int, bytes]]]
    seen: ClassVar[list[dict[str, str]]]

    def do_GET(self) -> None:
        type(self).seen.append(dict(self.headers))
        status, body = type(self).answers[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Silence."""


@pytest.fixture
def pages() -> Iterator[tuple[str, type[Pages]]]:
    handler = type("Handler", (Pages,), {"answers": {}, "seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()


@pytest.fixture
def raw_server() -> Iterator[Callable[[Talk], str]]:
    """A server that reads one request head and then does what the test says."""
    servers: list[socketserver.ThreadingTCPServer] = []

    def serve(talk: Talk) -> str:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += self.request.recv(4096)
                talk(self.request, head)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"ws://127.0.0.1:{server.server_address[1]}/ws/prices"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "expected", "reason", "down"),
    [
        (200, b'{"status": "ACTIVE", "more": {"a": [1, 2]}}', {"status": "ACTIVE", "more": {"a": [1, 2]}}, "", False),
        (200, b'{"status": "OFFLINE"}', {"status": "ACTIVE"}, "status is 'OFFLINE', not 'ACTIVE'", False),
        (200, b"{}", {"database": {"connected": True}}, "database is missing", False),
        (200, b'{"connected": 1}', {"connected": True}, "connected is 1, not True", False),
        (200, b"<html>", {"status": "ACTIVE"}, "the body is not JSON", False),
        (200, b"x" * ((1 << 20) + 1), {}, "the body is larger", False),
        (503, b"", {}, "answered 503, not 200", True),
        (429, b"", {}, "asked too often, the service is up", False),
    ],
)
def test_d28_an_answer_alone_is_not_health(
    pages: tuple[str, type[Pages]], status: int, body: bytes, expected: dict[str, Any], reason: str, down: bool
) -> None:
    """D28: status 200 alone is not health."""
    url, handler = pages
    handler.answers["/api/status"] = (status, body)
    result = probe.check_http("liveness", http_probe(f"{url}/api/status", json=expected), CLOCK)
    assert (result.ok, result.down, result.status) == (not reason, down, status)
    assert reason in result.reason


def test_http_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    result = probe.check_http("liveness", http_probe(f"http://127.0.0.1:{port}/"), CLOCK)
    assert (result.ok, result.down, result.status, result.reason) == (False, True, 0, "Connection refused")


def test_http_no_answer_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        result = probe.check_http("liveness", http_probe(url, timeout_s=0.2), CLOCK)
    assert (result.ok, result.down, result.reason) == (False, True, "no answer in time")


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"])
def test_http_dribbling_server_does_not_hold_us(raw_server: Callable[[Talk], str], head: bytes) -> None:
    def dribble(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(head)
        with contextlib.suppress(OSError):
            for _unused in range(100):
                connection.sendall(b"x")
                CLOCK.sleep(0.05)

    started = CLOCK.monotonic()
    url = raw_server(dribble).replace("ws:", "http:")
    result = probe.check_http("liveness", http_probe(url, timeout_s=0.3), CLOCK)
    assert (result.ok, result.reason) == (False, "no answer in time")
    assert CLOCK.monotonic() - started < 2


def test_token_comes_from_the_env_file(pages: tuple[str, type[Pages]], tmp_path: Path) -> None:
    url, handler = pages
    handler.answers["/"] = (200, b"")
    env = tmp_path / ".env"
    env.write_text("# comment\nOTHER=x\nexport API_TOKEN='s3cret'\n")
    headers = {"Authorization": f"env-file:{env}:API_TOKEN", "X-Key": f"env-file:{env}:OTHER", "X-Plain": "y"}
    result = probe.check_http("liveness", http_probe(f"{url}/", headers=headers), CLOCK)
    assert result.ok and "s3cret" not in str(result.as_dict())
    sent = handler.seen[0]
    assert (sent["Authorization"], sent["X-Key"], sent["X-Plain"]) == ("Bearer s3cret", "x", "y")
    result = probe.check_http("x", http_probe(url, headers={"A": f"env-file:{env}:MISSING"}), CLOCK)
    assert not result.ok and "has no MISSING" in result.reason
    with pytest.raises(InputError, match="more than one line"):
        probe.header_values({"X": "a\r\nInjected: b"})


def accept_key(head: bytes) -> bytes:
    key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    return base64.b64encode(
        hashlib.sha1(key.partition(b":")[2].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    )


def upgrade(connection: socket.socket, head: bytes, accept: bytes | None = None) -> None:
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + (accept or accept_key(head))
        + b"\r\n\r\n"
    )


def ws_probe(url: str, **changes: Any) -> Probe:
    return http_probe(url, **{"status": 101, **changes})


def test_websocket_of_the_websockets_package() -> None:
    """Against an implementation that is not ours: handshake, masked frames, orderly close."""
    websockets = pytest.importorskip("websockets.asyncio.server", reason="the package websockets is needed")
    closed: list[int | None] = []
    ready = threading.Event()
    port: list[int] = []
    stop: list[Callable[[], Any]] = []

    async def talk(connection: Any) -> None:
        await connection.ping()
        await connection.send("x" * 70_000)
        await connection.wait_closed()
        closed.append(connection.close_code)

    async def serve() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(ended.set))
        async with websockets.serve(talk, "127.0.0.1", 0) as server:
            port.append(server.sockets[0].getsockname()[1])
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(5)
        result = probe.check_websocket("prices", ws_probe(f"ws://127.0.0.1:{port[0]}/ws"), CLOCK)
    finally:
        stop[0]()
        thread.join()
    assert result.ok, result.reason
    assert result.facts["first_message_bytes"] == 70_000
    assert closed == [1000]


def test_websocket_fragments_and_pings(raw_server: Callable[[Talk], str]) -> None:
    received: list[bytes] = []

    def talk(connection: socket.socket, head: bytes) -> None:
        upgrade(connection, head)
        connection.sendall(b"\x89\x02hi" + b"\x01\x03abc" + b"\x80\x02de")
        received.append(connection.recv(8, socket.MSG_WAITALL))
        received.append(connection.recv(8, socket.MSG_WAITALL))
        connection.sendall(b"\x88\x02" + struct.pack("!H", 1000))

    result = probe.check_websocket("prices", ws_probe(raw_server(talk)), CLOCK)
    assert result.ok and result.facts["first_message_bytes"] == 5
    pong, close = received
    assert pong[0] == 0x8A and pong[1] == 0x82, "a client's frame is masked"
    assert bytes(byte ^ pong[2 + index] for index, byte in enumerate(pong[6:])) == b"hi"
    assert close[0] == 0x88 and close[1] == 0x82


def test_websocket_needs_a_message(raw_server: Callable[[Talk], str]) -> None:
    """A handshake alone is no price feed."""

    def silent(connection: socket.socket, head: bytes) -> None:
        upgrade(connection, head)
        connection.recv(1)

    result = probe.check_websocket("prices", ws_probe(raw_server(silent), timeout_s=0.3), CLOCK)
    assert (result.ok, result.reason, result.status) == (False, "no answer in time", 101)


def test_websocket_dribbling_server_does_not_hold_us(raw_server: Callable[[Talk], str]) -> None:
    def dribble(connection: socket.socket, head: bytes) -> None:
        upgrade(connection, head)
        try:
            for _unused in range(100):
                connection.sendall(b"\x89\x00")
                CLOCK.sleep(0.05)
        except OSError:
            return

    started = CLOCK.monotonic()
    result = probe.check_websocket("prices", ws_probe(raw_server(dribble), timeout_s=0.3), CLOCK)
    assert not result.ok and CLOCK.monotonic() - started < 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "answered 403, not 101"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "answered 200, not 101"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: wrong\r\n\r\n", "does not fit the key"),
        (b"", "closed by the service"),
    ],
)
def test_websocket_bad_handshake(raw_server: Callable[[Talk], str], answer: bytes, reason: str) -> None:
    result = probe.check_websocket(
        "prices", ws_probe(raw_server(lambda connection, head: connection.sendall(answer))), CLOCK
    )
    assert not result.ok and reason in result.reason


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"\x88\x02" + struct.pack("!H", 1008), "closed by the service with code 1008"),
        (b"\x81\x81abcdx", "is masked"),
        (b"\xc1\x01x", "extension"),
        (b"\x81\x7f" + struct.pack("!Q", 1 << 40), "larger than"),
    ],
)
def test_websocket_bad_frames(raw_server: Callable[[Talk], str], frame: bytes, reason: str) -> None:
    def talk(connection: socket.socket, head: bytes) -> None:
        upgrade(connection, head)
        connection.sendall(frame)

    result = probe.check_websocket("prices", ws_probe(raw_server(talk)), CLOCK)
    assert not result.ok and reason in result.reason


def test_d21_health_is_asked_until_it_holds(pages: tuple[str, type[Pages]]) -> None:
    """D21: not one request after a fixed pause, and an error page is not success."""
    url, handler = pages
    handler.answers["/"] = (500, b"")
    health = Health(http_probe(f"{url}/"), None, http_probe(f"{url}/front"), 30)
    handler.answers["/front"] = (200, b"")

    class Waiting(Clock):
        def sleep(self, seconds: float) -> None:
            handler.answers["/"] = (200, b"")

    evidence = probe.wait_healthy(health, Waiting())
    assert [item["ok"] for item in evidence["conditions"]] == [True, True]
    assert len(handler.seen) == 4, "each condition is asked again"


def test_d21_all_that_does_not_hold_is_named(pages: tuple[str, type[Pages]]) -> None:
    url, handler = pages
    handler.answers.update({"/": (500, b""), "/front": (404, b""), "/good": (200, b"")})
    health = Health(http_probe(f"{url}/"), http_probe(f"{url}/good"), http_probe(f"{url}/front"), 1)

    class Fast(Clock):
        time = 0.0

        def monotonic(self) -> float:
            return self.time

        def sleep(self, seconds: float) -> None:
            self.time += seconds

    units = {"name": "units", "ok": False, "reason": "x.service is failed"}
    with pytest.raises(TimeoutExceeded) as caught:
        probe.wait_healthy(health, Fast(), conditions=[lambda: units])
    for part in ("units: x.service is failed", "liveness: answered 500", "websocket:", "frontend: answered 404"):
        assert part in str(caught.value)
