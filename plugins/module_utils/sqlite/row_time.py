# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The time of a row, whatever form its column has: ISO 8601 text or seconds since 1970.

Text without a zone is UTC, as services of this kind write it. What can be two things is neither: it counts as
unreadable, and the row stays where it is.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)? ?(Z|[+-][0-9]{2}:?[0-9]{2})?)?",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[0-9]{9,14}(?:\.[0-9]{1,9})?")
# From 1973 on: smaller numbers may be days of the Julian calendar, or no times at all.
_LEAST_S, _LEAST_MS, _BEYOND_MS = 1e8, 1e11, 1e14


def read_time(value: Any) -> datetime | None:
    """The UTC time that a column's value means; None when it cannot be told.

    Args:
        value: text (`2026-11-23`, `2026-11-23T02:00:00.123Z`, `2026-11-23 02:00:00+01:00`), or a number, as such or
            as text: seconds since 1970 from 1e8, milliseconds from 1e11.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return _from_number(value)
    if not isinstance(value, str):
        return None
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return _from_number(float(text))
    found = _ISO.fullmatch(text)
    return _from_iso(found) if found else None


def month_of(moment: datetime) -> str:
    """The month of a time in UTC, such as `202611`."""
    return moment.astimezone(timezone.utc).strftime("%Y%m")


def _from_number(number: float) -> datetime | None:
    if not _LEAST_S <= number < _BEYOND_MS:
        return None
    return _EPOCH + timedelta(seconds=number if number < _LEAST_MS else number / 1000)


def _from_iso(found: re.Match[str]) -> datetime | None:
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    microsecond = int((fraction or "0").ljust(6, "0")[:6])
    try:
        clock = (int(hour or 0), int(minute or 0), int(second or 0), microsecond)
        local = datetime(int(year), int(month), int(day), *clock, tzinfo=timezone.utc)
        moment = local - _offset(zone)
    except (ValueError, OverflowError):
        return None
    return moment if moment.year >= 1000 else None  # a month has six digits


def _offset(zone: str | None) -> timedelta:
    if zone is None or zone in "Zz":
        return timedelta(0)
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    if hours > 18 or minutes > 59:
        raise ValueError(zone)
    offset = timedelta(hours=hours, minutes=minutes)
    return -offset if zone[0] == "-" else offset
