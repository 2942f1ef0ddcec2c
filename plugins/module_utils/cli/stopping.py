# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signals that ask a command to end, as an exception."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


class Stopped(BaseException):
    """A signal asks this process to end. Not an `Exception`: nothing but cleaning up is done on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


@contextlib.contextmanager
def stoppable() -> Iterator[list[Stopped]]:
    """Let SIGTERM, SIGINT and SIGHUP end the command as an error does, so that no plain data stays behind.

    Yields what has been raised so far.
    """
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    raised: list[Stopped] = []

    def stop(number: int, _frame: object) -> None:
        raised.append(Stopped(number))
        raise raised[-1]

    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] != signal.SIG_IGN:  # as nohup and a shell's background jobs want it
            signal.signal(number, stop)
    try:
        yield raised
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
