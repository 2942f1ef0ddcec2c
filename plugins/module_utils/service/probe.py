# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a service whether it works: HTTP and WebSocket probes with the standard library.

A probe never raises for what the service answers or fails to answer; it returns a `Result` that says so.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ..core.clock import Clock
from ..core.config import Health, Probe
from ..core.errors import InputError, TimeoutExceeded

_BODY_LIMIT_BYTES = 1 << 20
_HEAD_LIMIT_BYTES = 64 << 10
_FRAME_LIMIT_BYTES = 16 << 20
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_TOO_MANY_REQUESTS = 429
_POLL_S = 1.0
_OPCODE_TEXT, _OPCODE_BINARY, _OPCODE_CLOSE, _OPCODE_PING, _OPCODE_PONG = 1, 2, 8, 9, 10


@dataclass(frozen=True)
class Result:
    """What a probe has found.

    Attributes:
        ok: whether the condition holds. A service that answers 429 is up but was asked too often: not ok, not `down`.
        down: whether nothing that could be the service has answered.
        reason: why not ok, one sentence.
        status: HTTP status, 0 without an answer.
        duration_s: until the answer was complete, in seconds.
    """

    name: str
    url: str
    ok: bool
    down: bool
    reason: str
    status: int
    duration_s: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return asdict(self)


def header_values(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers to send. `env-file:<path>:<key>` is read from that file now; `Bearer` is added for Authorization.

    Raises InputError naming file and key, never a value.
    """
    values = {}
    for name, written in headers.items():
        value = written
        if written.startswith("env-file:"):
            path, _colon, key = written[len("env-file:") :].rpartition(":")
            secret = _env_value(Path(path), key)
            value = f"Bearer {secret}" if name.lower() == "authorization" else secret
        if "\r" in value or "\n" in value:
            raise InputError(f"the value of the header {name} has more than one line", subject=name)
        values[name] = value
    return values


def _env_value(path: Path, key: str) -> str:
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", subject=str(path)) from None
    for line in lines:
        name, separator, value = line.strip().partition("=")
        if separator and name.removeprefix("export ").strip() == key:
            return value.strip().strip("'\"")
    raise InputError(f"has no {key}", subject=str(path))


def check_http(name: str, probe: Probe, clock: Clock) -> Result:
    """GET the URL; ok when the status is the expected one and the JSON body holds the expected values."""
    started = clock.monotonic()
    status = 0
    try:
        url = urlsplit(probe.url)
        connection = _http_connection(url, probe.timeout_s)
        try:
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            headers = {"User-Agent": "fluxmaint", **header_values(probe.headers)}
            connection.connect()
            with _deadline(connection.sock, started + probe.timeout_s - clock.monotonic()):
                connection.request("GET", target, headers=headers)
                response = connection.getresponse()
                status = response.status
                body = response.read(_BODY_LIMIT_BYTES + 1)
        finally:
            connection.close()
        reason = _http_reason(probe, status, body)
    except (OSError, http.client.HTTPException, InputError) as error:
        reason = _error_text(error)
    return Result(
        name=name,
        url=probe.url,
        ok=not reason,
        down=bool(reason) and status != _TOO_MANY_REQUESTS and not 200 <= status < 300,
        reason=reason,
        status=status,
        duration_s=round(clock.monotonic() - started, 3),
    )


@contextlib.contextmanager
def _deadline(connection: socket.socket, seconds: float) -> Iterator[None]:
    """End the talk after `seconds` whatever trickles in: a socket's own timeout starts anew with each byte."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(seconds, 0), expire)
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException):
        if expired.is_set():
            raise TimeoutError("timed out") from None
        raise
    finally:
        timer.cancel()
        timer.join()
    if expired.is_set():
        raise TimeoutError("timed out")


def _http_connection(url: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    if url.hostname is None or url.scheme not in ("http", "https"):
        raise InputError(f"{url.geturl()} is not an http or https URL")
    if url.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(url.hostname, url.port, timeout=timeout_s, context=context)
    return http.client.HTTPConnection(url.hostname, url.port, timeout=timeout_s)


def _http_reason(probe: Probe, status: int, body: bytes) -> str:
    if status != probe.status:
        hint = ": asked too often, the service is up" if status == _TOO_MANY_REQUESTS else ""
        return f"answered {status}, not {probe.status}{hint}"
    if len(body) > _BODY_LIMIT_BYTES:
        return f"the body is larger than {_BODY_LIMIT_BYTES} bytes"
    if not probe.json:
        return ""
    try:
        found = json.loads(body)
    except ValueError:
        return "the body is not JSON"
    return subset_reason(probe.json, found, "")


def subset_reason(expected: Any, found: Any, path: str) -> str:
    """Empty when `found` holds everything that `expected` names; else the first difference."""
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping):
            return f"{path or 'the body'} is not an object"
        for key, value in expected.items():
            inner = f"{path}.{key}".lstrip(".")
            if key not in found:
                return f"{inner} is missing"
            reason = subset_reason(value, found[key], inner)
            if reason:
                return reason
        return ""
    # In Python True == 1; in JSON they differ.
    if expected != found or isinstance(expected, bool) != isinstance(found, bool):
        return f"{path or 'the body'} is {found!r:.80}, not {expected!r:.80}"
    return ""


def check_websocket(name: str, probe: Probe, clock: Clock) -> Result:
    """Open a WebSocket (RFC 6455), wait for one message, close it; ok when a message came in time."""
    started = clock.monotonic()
    status = 0
    facts: dict[str, Any] = {}
    try:
        with contextlib.closing(_WebSocket(probe, clock, started + probe.timeout_s)) as connection:
            status = connection.status
            reason = connection.reason
            if not reason:
                facts["first_message_bytes"] = len(connection.receive())
                facts["first_message_s"] = round(clock.monotonic() - started, 3)
                connection.say_goodbye()
    except (OSError, InputError, ProtocolError) as error:
        reason = _error_text(error)
    return Result(
        name=name,
        url=probe.url,
        ok=not reason,
        down=bool(reason) and status != _TOO_MANY_REQUESTS,
        reason=reason,
        status=status,
        duration_s=round(clock.monotonic() - started, 3),
        facts=facts,
    )


class ProtocolError(Exception):
    """The other side does not speak WebSocket as it should."""


class _WebSocket:
    """One client connection with a deadline."""

    def __init__(self, probe: Probe, clock: Clock, deadline: float) -> None:
        url = urlsplit(probe.url)
        if url.hostname is None or url.scheme not in ("ws", "wss"):
            raise InputError(f"{probe.url} is not a ws or wss URL")
        self._clock = clock
        self._deadline = deadline
        self._buffer = b""
        port = url.port or (443 if url.scheme == "wss" else 80)
        headers = header_values(probe.headers)
        self._socket: socket.socket = socket.create_connection((url.hostname, port), timeout=self._remaining())
        try:
            if url.scheme == "wss":
                self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=url.hostname)
            self.status, self.reason = self._handshake(url, headers, probe.status)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the connection at once."""
        self._socket.close()

    def _handshake(self, url: SplitResult, headers: Mapping[str, str], expected: int) -> tuple[int, str]:
        key = base64.b64encode(os.urandom(16))
        default = url.port is None or url.port == (443 if url.scheme == "wss" else 80)
        host = f"[{url.hostname}]" if url.hostname and ":" in url.hostname else str(url.hostname)
        lines = [
            f"GET {url.path or '/'}{'?' + url.query if url.query else ''} HTTP/1.1",
            f"Host: {host if default else f'{host}:{url.port}'}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key.decode()}",
            "Sec-WebSocket-Version: 13",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self._send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        head = self._read_head()
        first, *rest = head.split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise ProtocolError(f"the answer is not HTTP: {first!r:.60}")
        status = int(words[1])
        if status != expected:
            return status, f"answered {status}, not {expected}"
        fields = {name.strip().lower(): value.strip() for name, _colon, value in (line.partition(":") for line in rest)}
        wanted = base64.b64encode(hashlib.sha1(key + _WEBSOCKET_GUID, usedforsecurity=False).digest()).decode()
        if fields.get("sec-websocket-accept") != wanted:
            raise ProtocolError("Sec-WebSocket-Accept does not fit the key")
        if fields.get("upgrade", "").lower() != "websocket":
            raise ProtocolError("the answer does not upgrade to websocket")
        return status, ""

    def receive(self) -> bytes:
        """The first complete data message; answers pings on the way."""
        message = b""
        while True:
            final, opcode, payload = self._frame()
            if opcode == _OPCODE_PING:
                self._send(self._masked(_OPCODE_PONG, payload))
            elif opcode == _OPCODE_CLOSE:
                code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
                raise ProtocolError(f"closed by the service with code {code} before a message came")
            elif opcode in (0, _OPCODE_TEXT, _OPCODE_BINARY):
                message += payload
                if final:
                    return message

    def say_goodbye(self) -> None:
        """Say good-bye with code 1000 and wait for the answer until the deadline; its lack is no fault."""
        self._send(self._masked(_OPCODE_CLOSE, struct.pack("!H", 1000)))
        try:
            while self._frame()[1] != _OPCODE_CLOSE:
                pass
        except (OSError, ProtocolError):
            return

    def _frame(self) -> tuple[bool, int, bytes]:
        first, second = self._read(2)
        if first & 0x70:
            raise ProtocolError("a frame uses an extension that was not asked for")
        if second & 0x80:
            raise ProtocolError("a frame of the service is masked")
        length = second & 0x7F
        if length == 126:
            length = struct.unpack("!H", self._read(2))[0]
        elif length == 127:
            length = struct.unpack("!Q", self._read(8))[0]
        if length > _FRAME_LIMIT_BYTES:
            raise ProtocolError(f"a frame of {length} bytes is larger than {_FRAME_LIMIT_BYTES}")
        return bool(first & 0x80), first & 0x0F, self._read(length)

    @staticmethod
    def _masked(opcode: int, payload: bytes) -> bytes:
        """A client's frame: always masked, and never longer than a control frame may be."""
        payload = payload[:125]
        mask = os.urandom(4)
        body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + body

    def _read_head(self) -> str:
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > _HEAD_LIMIT_BYTES:
                raise ProtocolError("the head of the answer does not end")
            self._receive_some()
        head, _end, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head.decode("latin-1")

    def _read(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._receive_some()
        data, self._buffer = self._buffer[:length], self._buffer[length:]
        return data

    def _receive_some(self) -> None:
        self._socket.settimeout(self._remaining())
        data = self._socket.recv(65536)
        if not data:
            raise ProtocolError("the connection was closed by the service")
        self._buffer += data

    def _send(self, data: bytes) -> None:
        self._socket.settimeout(self._remaining())
        self._socket.sendall(data)

    def _remaining(self) -> float:
        left = self._deadline - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


def _error_text(error: Exception) -> str:
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}" if not isinstance(error, (InputError, ProtocolError)) else str(error)


def check_all(health: Health, clock: Clock) -> list[Result]:
    """Every probe of the contract, once."""
    results = []
    if health.liveness is not None:
        results.append(check_http("liveness", health.liveness, clock))
    if health.websocket is not None:
        results.append(check_websocket("websocket", health.websocket, clock))
    if health.frontend is not None:
        results.append(check_http("frontend", health.frontend, clock))
    return results


def wait_healthy(
    health: Health, clock: Clock, *, conditions: Sequence[Callable[[], dict[str, Any]]] = ()
) -> dict[str, Any]:
    """Ask until all conditions hold in one round, and return that round as evidence.

    Args:
        conditions: further ones, each returns `name`, `ok` and `reason`.

    Raises TimeoutExceeded after `health.wait_s` seconds, naming every condition that does not hold and why.
    """
    started = clock.monotonic()
    while True:
        found = [condition() for condition in conditions]
        found += [result.as_dict() for result in check_all(health, clock)]
        bad = [item for item in found if not item["ok"]]
        waited = clock.monotonic() - started
        if not bad:
            return {"waited_s": round(waited, 3), "conditions": found}
        if waited >= health.wait_s:
            reasons = "; ".join(f"{item['name']}: {item['reason']}" for item in bad)
            raise TimeoutExceeded(
                f"the service is not healthy after {health.wait_s:g} s: {reasons}",
                subject=str(bad[0]["name"]),
                remedy="look at the logs of the units",
                conditions=found,
            )
        clock.sleep(_POLL_S)
