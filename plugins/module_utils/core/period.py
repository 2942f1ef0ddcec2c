# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calendar months of a time zone, as half-open intervals of UTC: each moment belongs to one month."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

from .clock import utc_text
from .errors import InputError, PreconditionError

_MONTH = re.compile(r"(\d{4})-(\d{2})", re.ASCII)
PREVIOUS = "previous"
CURRENT = "current"


@dataclass(frozen=True)
class Period:
    """A calendar month: from `begin`, which belongs to it, to `end`, which does not; both in UTC.

    Attributes:
        month: such as `2026-10`.
        time_zone: whose midnights are the borders, such as `America/New_York`.
    """

    month: str
    time_zone: str
    begin: datetime
    end: datetime

    @property
    def compact(self) -> str:
        """The month for names of files: `202610`."""
        return self.month.replace("-", "")

    def parameters(self) -> dict[str, str | int]:
        """The borders for a query: as UTC text without a zone, and in seconds since 1970.

        Without `Z` the text sorts before each time of the same second, however that is written: `04:00:00`,
        `04:00:00.123Z` and `04:00:00+00:00` all belong to the month that begins with it.
        """
        return {
            "begin": utc_text(self.begin).rstrip("Z"),
            "end": utc_text(self.end).rstrip("Z"),
            "begin_unix": int(self.begin.timestamp()),
            "end_unix": int(self.end.timestamp()),
        }

    def as_dict(self) -> dict[str, str]:
        """JSON-serialisable form."""
        return {
            "month": self.month,
            "time_zone": self.time_zone,
            "begin": utc_text(self.begin),
            "end": utc_text(self.end),
        }


def zone(name: str) -> ZoneInfo:
    """The time zone of that name. Raises InputError for an unknown one."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        pass
    try:
        ZoneInfo("Europe/London")
    except (OSError, ValueError, KeyError):
        raise PreconditionError(
            f"the time zone {name} cannot be looked up: this host has no time zones",
            subject=name,
            remedy="install the package tzdata",
        ) from None
    raise InputError(f"{name!r} is not a time zone like America/New_York", subject=name)


def month(which: str, time_zone: str, now: datetime) -> Period:
    """A calendar month of a time zone.

    Args:
        which: `2026-10`, or seen from `now` in that zone, `previous` or `current`.

    Raises InputError for anything else.
    """
    place = zone(time_zone)
    if which in (PREVIOUS, CURRENT):
        local = now.astimezone(place)
        year, number = local.year, local.month
        if which == PREVIOUS:
            year, number = (year, number - 1) if number > 1 else (year - 1, 12)
    else:
        found = _MONTH.fullmatch(which)
        year, number = (int(found.group(1)), int(found.group(2))) if found else (0, 0)
        # What lies outside has no borders that can be written with four digits.
        if not (1900 <= year <= 9998 and 1 <= number <= 12):
            raise InputError(f"{which!r} is not a month like 2026-10, {PREVIOUS} or {CURRENT}")
    following = (year, number + 1) if number < 12 else (year + 1, 1)
    return Period(f"{year:04}-{number:02}", time_zone, _midnight(year, number, place), _midnight(*following, place))


def _midnight(year: int, number: int, place: ZoneInfo) -> datetime:
    """When a month begins: where clocks are put over midnight, the moment at which they are."""
    return datetime(year, number, 1, tzinfo=place).astimezone(timezone.utc)
