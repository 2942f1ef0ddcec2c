# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy before a real S3 server that fails as networks and servers do, on the requests that are chosen.

The signature of a request covers its Host header, so it is passed on as it came. One connection serves one request.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

FAULTS = (
    "error",  # 500, nothing reaches the server
    "busy",  # 503 SlowDown
    "denied",  # 403 AccessDenied
    "stall",  # the request is taken, and nothing answers until the client gives up
    "reset",  # the connection closes before an answer
    "lost answer",  # the server has done it, and nobody tells
    "half",  # the answer ends in its middle
    "wrong bytes",  # one bit of the answer's body is another
    "wrong upload",  # one bit of the request's body is another when it reaches the server
    "wrong checksum",  # the answer's checksums and ETag are of something else
)
_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")


@dataclass
class Rule:
    """A fault for the requests of this method whose path, decoded, contains this text.

    Attributes:
        times: how often; -1 is always.
        struck: how often it has been.
    """

    fault: str
    method: str = ""
    path: str = ""
    times: int = -1
    struck: int = 0

    def takes(self, method: str, path: str) -> bool:
        """Whether this request is struck; counts it."""
        if self.times == 0 or self.method not in ("", method) or self.path not in path:
            return False
        self.times -= 1
        self.struck += 1
        return True


class S3Proxy:
    """The proxy: a context manager that listens on a free port of the loopback interface."""

    def __init__(self, endpoint: str) -> None:
        server = urlsplit(endpoint)
        self.upstream = (str(server.hostname), int(server.port or 80))
        self.rules: list[Rule] = []
        self.seen: list[tuple[str, str]] = []
        self.given_up = threading.Event()
        self._lock = threading.Lock()
        self._http = _server(self)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def endpoint(self) -> str:
        """Where clients go instead of the server."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> S3Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.given_up.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def fail(self, fault: str, method: str = "", path: str = "", times: int = -1) -> Rule:
        """From now on, until `heal`."""
        if fault not in FAULTS:
            raise ValueError(fault)
        rule = Rule(fault, method, path, times)
        with self._lock:
            self.rules.append(rule)
        return rule

    def heal(self) -> None:
        """Pass everything on as it is."""
        with self._lock:
            self.rules.clear()

    def fault_of(self, method: str, path: str) -> str:
        """The fault of this request; empty when there is none."""
        decoded = unquote(path)
        with self._lock:
            self.seen.append((method, decoded))
            return next((rule.fault for rule in self.rules if rule.takes(method, decoded)), "")


def _server(proxy: S3Proxy) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def handle_expect_100(self) -> bool:
            self.send_response_only(100)
            self.end_headers()
            return True

        def _answer(self) -> None:
            self.close_connection = True
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.fault_of(self.command, self.path)
            if fault in _REFUSALS:
                self._refuse(*_REFUSALS[fault])
            elif fault == "stall":
                _wait_for_end(self.connection, proxy.given_up)
            elif fault != "reset":
                self._pass_on(fault, _flipped(body) if fault == "wrong upload" else body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 - names that the base class calls

        def _pass_on(self, fault: str, body: bytes) -> None:
            server = http.client.HTTPConnection(*proxy.upstream, timeout=60)
            try:
                server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in ("expect", "connection"):
                        server.putheader(name, value)
                server.endheaders(body)
                answer = server.getresponse()
                content = answer.read()
            finally:
                server.close()
            if fault == "lost answer":
                return
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP:
                    self.send_header(name, _other(value) if fault == "wrong checksum" and _is_digest(name) else value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length or "0")
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                content = _flipped(content) if fault == "wrong bytes" else content
                self.wfile.write(content[: len(content) // 2] if fault == "half" else content)

        def _refuse(self, status: int, code: str) -> None:
            said = f"<Error><Code>{code}</Code><Message>by the proxy</Message></Error>"
            said = "" if self.command == "HEAD" else said
            self.send_response_only(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(said)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(said.encode())

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        handle_error: Callable[..., None] = lambda *_: None  # clients that go away are what this is for

    return Server(("127.0.0.1", 0), Handler)


_REFUSALS = {"error": (500, "InternalError"), "busy": (503, "SlowDown"), "denied": (403, "AccessDenied")}


def _wait_for_end(connection: socket.socket, given_up: threading.Event) -> None:
    connection.settimeout(0.2)
    while not given_up.is_set():
        try:
            if not connection.recv(1):
                return
        except TimeoutError:
            continue
        except OSError:
            return


def _is_digest(name: str) -> bool:
    return name.lower() == "etag" or "checksum" in name.lower()


def _other(value: str) -> str:
    """Another value of the same form."""
    middle = len(value) // 2
    return value[:middle] + ("a" if value[middle] != "a" else "b") + value[middle + 1 :]


def _flipped(data: bytes) -> bytes:
    if not data:
        return data
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
