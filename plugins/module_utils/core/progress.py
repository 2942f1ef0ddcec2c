# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far long work has come, for whoever watches: one line that changes on a terminal, few lines in a log.

The engine calls `progress(step, facts)`. The step `bytes` tells how much of the present step is done: `counted` tells
it for each piece that passes through.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

from .clock import Clock
from .human import duration_text, size_text

BYTES = "bytes"
Report = Callable[[str, dict[str, Any]], None]
_LOG_INTERVAL_S = 30.0
_TERMINAL_INTERVAL_S = 0.2


class Progress:
    """Shows the progress of one operation.

    Args:
        operation: what is done, such as `backup`; begins each line.
        stream: where to write to.
        terminal: whether the line is written over again and again. Else each step is a line, and so are, at most every
            `interval_s` seconds, the bytes of a step.
    """

    def __init__(
        self,
        operation: str,
        stream: IO[str],
        *,
        terminal: bool,
        clock: Clock | None = None,
        interval_s: float | None = None,
    ) -> None:
        self._operation = operation
        self._stream = stream
        self._terminal = terminal
        self._clock = clock or Clock()
        self._interval_s = interval_s or (_TERMINAL_INTERVAL_S if terminal else _LOG_INTERVAL_S)
        self._step = ""
        self._begun = self._written = self._clock.monotonic()
        self._width = 0

    def __call__(self, step: str, facts: Mapping[str, Any]) -> None:
        """Note a step, or with the step `bytes` how far the present one is."""
        now = self._clock.monotonic()
        if step == BYTES:
            if now - self._written >= self._interval_s:
                self._write(f"{self._step}  {amount_text(facts['done'], facts.get('total'), now - self._begun)}", now)
            return
        named = [str(facts[key]) for key in ("database", "part", "generation", "target") if facts.get(key)]
        self._step = " ".join([step.replace("_", " "), *named])
        self._begun = now
        self._write(self._step, now)

    def close(self) -> None:
        """Leave the terminal's line empty for what comes next."""
        if self._terminal and self._width:
            self._put("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, text: str, now: float) -> None:
        self._written = now
        line = f"{self._operation}: {text}"
        if not self._terminal:
            self._put(line + "\n")
            return
        line = line[: shutil.get_terminal_size().columns - 1]
        self._put("\r" + line.ljust(self._width))
        self._width = len(line)

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # nobody listens any more: the work goes on
            self._width = 0


def amount_text(done: int, total: int | None, seconds: float) -> str:
    """Such as `1.2 GB of 2.4 GB (50 %), 210.0 MB/s, 6 s left`."""
    rate = done / seconds if seconds > 0 else 0.0
    speed = f", {size_text(rate)}/s" if rate else ""
    if not total:
        return size_text(done) + speed
    left = f", {duration_text(max(total - done, 0) / rate)} left" if rate else ""
    return f"{size_text(done)} of {size_text(total)} ({min(done / total, 1):.0%}){speed}{left}".replace("%)", " %)")


def choose(operation: str, stream: IO[str], *, quiet: bool = False, clock: Clock | None = None) -> Progress | None:
    """The progress that fits the stream: a terminal, the log of a systemd unit, or, anywhere else, none."""
    if quiet:
        return None
    if stream.isatty():
        return Progress(operation, stream, terminal=True, clock=clock)
    return Progress(operation, stream, terminal=False, clock=clock) if _to_the_log(stream) else None


def _to_the_log(stream: IO[str]) -> bool:
    """Whether systemd has connected this stream with its log: it names the stream by device and inode."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM", "") == f"{status.st_dev}:{status.st_ino}"


def counted(chunks: Iterable[bytes], report: Report | None, total: int | None = None) -> Iterator[bytes]:
    """The same chunks; each is reported when it is asked for the next one."""
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        if report is not None:
            report(BYTES, {"done": done, "total": total})
