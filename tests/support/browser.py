# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Chromium without a window, driven over two pipes with its DevTools protocol: no port, no further package."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_S = 60
# Chromium reads commands from descriptor 3 and writes answers to descriptor 4.
_LAUNCH = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def executable() -> str | None:
    """Where Chromium is installed; None where it is not."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class BrowserError(Exception):
    """The browser did not do what it was asked for."""


class Page:
    """One page in a window of its own: what it shows, what it said, what it asked the network for."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.problems: list[str] = []
        self.requests: list[str] = []

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol to this page; returns its result."""
        return self._browser.command(method, parameters, self._session)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; its own policy does not bind us."""
        answer = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def media(self, kind: str = "", *, dark: bool = False) -> None:
        """Show the page as on a `screen` or in `print`, by day or by night."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", media=kind, features=[scheme])

    def size(self, width: int, height: int) -> None:
        """The window's size in pixels."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def screenshot(self, *, scale: float = 1, height: int | None = None) -> bytes:
        """A PNG of the window, or of the page down to `height`."""
        window = self.evaluate("[innerWidth, innerHeight]")
        clip = {"x": 0, "y": 0, "width": window[0], "height": height or window[1], "scale": scale}
        answer = self.command(
            "Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=height is not None
        )
        return base64.b64decode(answer["data"])

    def pdf(self) -> bytes:
        """The page on paper, in the sizes that its style sheet wants."""
        return base64.b64decode(self.command("Page.printToPDF", preferCSSPageSize=True, printBackground=False)["data"])

    def note(self, method: str, facts: dict[str, Any]) -> None:
        """Keep what the page did."""
        if method == "Runtime.consoleAPICalled":
            self.problems.append(f"console.{facts['type']}: {[item.get('value') for item in facts['args']]}")
        elif method == "Runtime.exceptionThrown":
            self.problems.append(f"exception: {facts['exceptionDetails'].get('text')}")
        elif method == "Log.entryAdded":
            self.problems.append(f"{facts['entry']['source']}: {facts['entry']['text']}")
        elif method == "Page.javascriptDialogOpening":
            self.problems.append(f"dialog: {facts['message']}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])


class Browser:
    """A running browser with a profile that is thrown away."""

    def __init__(self, process: subprocess.Popen[bytes], commands: int, answers: int) -> None:
        self._process = process
        self._commands = commands
        self._answers = answers
        self._buffer = b""
        self._number = 0
        self._pages: dict[str, Page] = {}
        self._loaded: set[str] = set()

    @contextlib.contextmanager
    def page(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Page]:
        """Open an address; the block begins when the page is loaded."""
        target = self.command("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.command("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, session)
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.command(f"{domain}.enable")
            page.size(width, height)
            page.media(dark=dark)
            self._loaded.discard(session)
            problem = page.command("Page.navigate", url=url).get("errorText")
            if problem:
                raise BrowserError(f"{url}: {problem}")
            deadline = time.monotonic() + TIMEOUT_S
            while session not in self._loaded:
                self._receive(deadline)
            yield page
        finally:
            del self._pages[session]
            self.command("Target.closeTarget", {"targetId": target})

    def command(self, method: str, parameters: dict[str, Any], session: str = "") -> dict[str, Any]:
        """Send a command and wait for its answer; what else arrives meanwhile is kept for its page."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._answers], [], [], left)[0]:
                raise BrowserError(f"no answer within {TIMEOUT_S} s")
            data = os.read(self._answers, 1 << 20)
            if not data:
                raise BrowserError(f"Chromium ended with status {self._process.wait()}")
            self._buffer += data
        text, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        method, session = message.get("method", ""), message.get("sessionId", "")
        if method == "Page.loadEventFired":
            self._loaded.add(session)
        if method and session in self._pages:
            self._pages[session].note(method, message.get("params", {}))
        return message


@contextlib.contextmanager
def launched(binary: str) -> Iterator[Browser]:
    """Start a browser, and end it with everything that it has started."""
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        their_commands, our_commands = os.pipe()
        our_answers, their_answers = os.pipe()
        flags = [
            "--headless",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            "--no-first-run",
            "--disable-gpu",
        ]
        flags += ["--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking"]
        flags += ["--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-color-profile=srgb"]
        if os.geteuid() == 0:  # its sandbox refuses to run as root; the pages are our own
            flags.append("--no-sandbox")
        process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(their_commands), str(their_answers), binary, *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(their_commands, their_answers),
            env={**os.environ, "HOME": profile},
        )
        os.close(their_commands)
        os.close(their_answers)
        try:
            browser = Browser(process, our_commands, our_answers)
            yield browser
            with contextlib.suppress(BrowserError):
                browser.command("Browser.close", {})
        finally:
            os.close(our_commands)
            os.close(our_answers)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def png_pixels(data: bytes) -> list[tuple[int, int, int]]:
    """The colours of an RGB or RGBA PNG with 8 bits a channel, row by row."""
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    depth, colour = data[24], data[25]
    if data[:8] != b"\x89PNG\r\n\x1a\n" or depth != 8 or colour not in {2, 6}:
        raise ValueError("not a PNG of the kind that Chromium writes")
    wide = 3 if colour == 2 else 4
    packed, at = b"", 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += length + 12
    raw = zlib.decompress(packed)
    stride = width * wide
    before, pixels = bytearray(stride), []
    for row in range(height):
        begin = row * (stride + 1)
        line = _unfiltered(raw[begin], bytearray(raw[begin + 1 : begin + 1 + stride]), before, wide)
        pixels += [(line[i], line[i + 1], line[i + 2]) for i in range(0, stride, wide)]
        before = line
    return pixels


def _unfiltered(kind: int, line: bytearray, before: bytearray, wide: int) -> bytearray:
    for index in range(len(line)):
        left = line[index - wide] if index >= wide else 0
        up = before[index]
        corner = before[index - wide] if index >= wide else 0
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = up
        elif kind == 3:
            guess = (left + up) // 2
        elif kind == 4:
            near = left + up - corner
            guess = min((left, up, corner), key=lambda value: abs(near - value))
        else:
            break
        line[index] = (line[index] + guess) & 0xFF
    return line
