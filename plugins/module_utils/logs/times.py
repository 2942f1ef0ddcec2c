# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Times of log lines as hours and seconds since 1970."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from ..core.errors import InputError

_MOST_REMEMBERED = 20_000
_YEARS = range(2000, 2100)


def zone_of(name: str) -> tzinfo:
    """A time zone by its name, such as `UTC` or `America/New_York`. Raises InputError when this host has none such."""
    if name == "UTC":
        return timezone.utc
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise InputError(
            f"this host knows no time zone {name!r}", remedy="install tzdata, or correct the name"
        ) from None


class Times:
    """Reads the times of one log.

    Args:
        zone: of times that do not name theirs. Where it is not whole hours from UTC, an hour of the log counts as the
            hour of UTC in which it begins.
    """

    def __init__(self, zone: tzinfo = timezone.utc) -> None:
        self._zone = zone
        self._begins: dict[tuple[bytes, int | None], int | None] = {}

    def hour(self, text: bytes, zone: int | None) -> int | None:
        """The hour since 1970 of `2026-01-05 14`, or of seconds since 1970; None when there is no such hour.

        Args:
            zone: minutes east of UTC; None means the log's own zone.
        """
        begin = self._begin(text, zone)
        return None if begin is None else begin // 3600

    def seconds(self, text: bytes, zone: int | None) -> int | None:
        """The seconds since 1970 of a whole time."""
        begin = self._begin(text[:13], zone)
        if begin is None or len(text) < 16 or text.isdigit():
            return begin
        return begin + int(text[14:16]) * 60 + (int(text[17:19]) if len(text) >= 19 else 0)

    def _begin(self, text: bytes, zone: int | None) -> int | None:
        known = (text, zone)
        if known not in self._begins:
            if len(self._begins) >= _MOST_REMEMBERED:
                self._begins.clear()
            self._begins[known] = self._parse(text, zone)
        return self._begins[known]

    def _parse(self, text: bytes, zone: int | None) -> int | None:
        try:
            if text.isdigit():
                seconds = int(text)
                return seconds if datetime.fromtimestamp(seconds, timezone.utc).year in _YEARS else None
            moment = datetime(int(text[:4]), int(text[5:7]), int(text[8:10]), int(text[11:13]), tzinfo=self._zone)
            if zone is not None:
                moment = moment.replace(tzinfo=timezone(timedelta(minutes=zone)))
            return int(moment.timestamp()) if moment.year in _YEARS else None
        except (ValueError, OverflowError, OSError):
            return None
