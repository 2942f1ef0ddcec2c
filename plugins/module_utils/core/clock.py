# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time as an argument: the engine asks a `Clock`, tests pass another one."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

from .errors import InputError

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Years of four digits: others are no text that `parse_utc` reads.
_EARLIEST = datetime(1000, 1, 1, tzinfo=timezone.utc)
_LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)


class Clock:
    """The system's clocks."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return datetime.now(timezone.utc)

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait, in seconds."""
        time.sleep(seconds)


def from_timestamp(seconds: float) -> datetime:
    """The UTC time of a file's time stamp; one that no date can hold becomes the nearest that `utc_text` can write.

    File systems keep what programs set: times long before our era, or millions of years ahead.
    """
    try:
        return min(max(_EPOCH + timedelta(seconds=seconds), _EARLIEST), _LATEST)
    except OverflowError:
        return _EARLIEST if seconds < 0 else _LATEST


def utc_text(moment: datetime) -> str:
    """ISO 8601 with whole seconds and `Z`; `moment` must be aware of its time zone."""
    if moment.tzinfo is None:
        raise InputError(f"the time {moment.isoformat()} has no time zone")
    return moment.astimezone(timezone.utc).strftime(_FORMAT)


def parse_utc(text: str) -> datetime:
    """The reverse of `utc_text`. Raises InputError for anything else."""
    try:
        return datetime.strptime(text, _FORMAT).replace(tzinfo=timezone.utc)
    except ValueError:
        raise InputError(f"{text!r} is not a UTC time like 2026-11-23T02:00:00Z") from None
