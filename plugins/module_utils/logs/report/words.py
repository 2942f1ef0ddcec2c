# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers, times and changes of a log report as people read them."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone, tzinfo

from ...core.clock import parse_utc
from ...core.errors import InputError
from ..summary import Document, Period

UNKNOWN = "unknown"
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_WEEK = timedelta(days=7)
# Where a Monday begins first, or last, by UTC.
_FARTHEST_ZONE = timedelta(hours=14)
_MINUS = "\u2212"


def moment(text: str) -> datetime | None:
    """A time of the document; None where it holds none."""
    try:
        return parse_utc(text)
    except InputError:
        return None


def day_text(when: datetime) -> str:
    """Such as `Mon 16 Nov`."""
    return f"{_DAYS[when.weekday()]} {when.day} {_MONTHS[when.month - 1]}"


def time_text(text: str) -> str:
    """Such as `Mon 16 Nov 14:03:22`; without the seconds where they are none. `unknown` for no time."""
    when = moment(text)
    if when is None:
        return UNKNOWN
    return f"{day_text(when)} {when:%H:%M:%S}" if when.second else f"{day_text(when)} {when:%H:%M}"


def period_text(period: Period) -> str:
    """Such as `Mon 16 Nov 2026 00:00 to Mon 23 Nov 2026 00:00 UTC`."""
    ends = [moment(period["begin"]), moment(period["end"])]
    texts = [f"{day_text(end)} {end.year} {end:%H:%M}" if end else UNKNOWN for end in ends]
    return " to ".join(texts) + " UTC"


def is_week(period: Period) -> bool:
    """Whether a period is seven days long; those in which clocks change have an hour more or less."""
    begin, end = moment(period["begin"]), moment(period["end"])
    return begin is not None and end is not None and abs(end - begin - _WEEK) <= timedelta(hours=1)


def span(document: Document) -> str:
    """What the report's period is called: week, or period."""
    return "week" if is_week(document["period"]) else "period"


def title(document: Document) -> str:
    """Such as `Week 47 of 2026`; for what is no week from Monday on, from when to when."""
    year, week = week_of(document["period"])
    return f"Week {week} of {year}" if week else period_text(document["period"])


def week_of(period: Period) -> tuple[int, int]:
    """Year and number of the ISO week that a period is, from midnight on in whatever time zone; else zeros."""
    begin = moment(period["begin"])
    if begin is None or not is_week(period):
        return 0, 0
    year, week, _day = (begin + _WEEK / 2).isocalendar()
    monday = datetime.combine(date.fromisocalendar(year, week, 1), time(), timezone.utc)
    return (year, week) if abs(begin - monday) <= _FARTHEST_ZONE else (0, 0)


def last_week(now: datetime, zone: tzinfo | None = None) -> tuple[datetime, datetime]:
    """The last whole week before `now`, from Monday to Monday, in UTC.

    Args:
        zone: whose midnights are the borders; without it those of the host.
    """
    local = now.astimezone(zone)
    monday = datetime.combine(local.date() - timedelta(days=local.weekday()), time(), zone)
    # Each midnight by itself: clocks may change within the week.
    return (monday - _WEEK).astimezone(timezone.utc), monday.astimezone(timezone.utc)


def number(value: int) -> str:
    """With commas between the thousands."""
    return f"{value:,}"


def counted(value: int, one: str, many: str = "") -> str:
    """Such as `1 error` or `1,204 errors`."""
    return f"{number(value)} {one if value == 1 else many or one + 's'}"


def share(part: int, whole: int) -> str:
    """Such as `3.1 %`; never `0 %` for something, nor `100 %` for less than all."""
    if not whole:
        return "no share: of nothing"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "less than 0.1 %"
    if 99.9 < percent < 100:
        return "more than 99.9 %"
    return f"{percent:.1f} %"


def milliseconds(value: float | None) -> str:
    """Such as `0.8 ms`, `24 ms` or `1.2 s`."""
    if value is None:
        return "no data"
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def change(now: int, before: int | None, than: str = "the week before") -> str:
    """Sign, number, share and word: `+41, 38 % more than the week before`."""
    if before is None:
        return f"nothing known of {than}"
    if now == before:
        return f"±0, as many as {than}" if now else f"none, as {than}"
    difference = now - before
    sign, word = ("+", "more") if difference > 0 else (_MINUS, "fewer")
    if not before:
        return f"+{number(now)}, none {than}"
    ratio = 100 * abs(difference) / before
    compared = f"{now / before:.0f} times as many as" if ratio >= 900 else f"{ratio:.0f} % {word} than"
    if ratio < 1:
        compared = f"less than 1 % {word} than"
    return f"{sign}{number(abs(difference))}, {compared} {than}"


def short_change(now: int, before: int | None) -> str:
    """The same for narrow columns whose heading says compared with what: `+41 more`, `all new`."""
    if before is None:
        return UNKNOWN
    if now == before:
        return "same"
    if not before:
        return f"+{number(now)}, none before"
    return f"+{number(now - before)} more" if now > before else f"{_MINUS}{number(before - now)} fewer"
