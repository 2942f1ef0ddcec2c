# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A limit on the bytes that a target is sent and gives back, so that a backup leaves room on the line."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import IO

from ..core.clock import Clock

# A client that signs a body first reads it in pieces of a megabyte; sockets are fed with smaller ones.
_SENT_AT_MOST = 128 << 10
_AHEAD_S = 0.1


class Throttle:
    """At most `bytes_s` bytes in a second, on average over any longer time; 0 is no limit. Threads may share it."""

    def __init__(self, bytes_s: int, clock: Clock) -> None:
        self._bytes_s = bytes_s
        self._clock = clock
        self._due = 0.0
        self._lock = threading.Lock()

    def passed(self, count: int) -> None:
        """Wait until `count` more bytes may have passed."""
        if not self._bytes_s:
            return
        with self._lock:
            now = self._clock.monotonic()
            self._due = max(self._due, now - _AHEAD_S) + count / self._bytes_s
            wait = self._due - now
        if wait > 0:
            self._clock.sleep(wait)

    def chunks(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same chunks, no faster than allowed."""
        for chunk in chunks:
            self.passed(len(chunk))
            yield chunk

    def body(self, stream: IO[bytes]) -> IO[bytes]:
        """A request's body that is sent no faster than allowed; reading it for its signature is not slowed."""
        return _Paced(stream, self) if self._bytes_s else stream  # type: ignore[return-value]


class _Paced:
    """As much of a file as an HTTP client needs."""

    def __init__(self, stream: IO[bytes], throttle: Throttle) -> None:
        self._stream = stream
        self._throttle = throttle
        self.seek = stream.seek
        self.tell = stream.tell

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        if 0 < size <= _SENT_AT_MOST:
            self._throttle.passed(len(data))
        return data
