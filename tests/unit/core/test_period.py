# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calendar months of the exchange's time zone."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from fluxmaint.core import period
from fluxmaint.core.errors import InputError

NOW = datetime(2026, 11, 1, 3, 30, tzinfo=timezone.utc)  # still October in New York


def test_d25_a_month_is_a_calendar_month_with_the_borders_of_the_exchange() -> None:
    found = period.month("2026-10", "America/New_York", NOW)
    assert found.as_dict() == {
        "month": "2026-10",
        "time_zone": "America/New_York",
        "begin": "2026-10-01T04:00:00Z",
        "end": "2026-11-01T04:00:00Z",
    }
    # Clocks go back on 1 November: that month has an hour more than 30 days.
    november = period.month("2026-11", "America/New_York", NOW)
    assert (november.begin, (november.end - november.begin).total_seconds()) == (found.end, 30 * 86400 + 3600)


def test_previous_and_current_are_seen_from_the_exchange() -> None:
    assert period.month("previous", "America/New_York", NOW).month == "2026-09"
    assert period.month("current", "America/New_York", NOW).month == "2026-10"
    assert period.month("current", "UTC", NOW).month == "2026-11"
    assert period.month("previous", "UTC", datetime(2027, 1, 1, tzinfo=timezone.utc)).month == "2026-12"


@pytest.mark.parametrize("name", ["America/New_York", "UTC", "Asia/Damascus", "Asia/Kolkata", "Africa/Cairo"])
def test_months_follow_each_other_without_gap_or_overlap(name: str) -> None:
    # Damascus put its clocks forward at midnight of 1 April: that hour does not exist.
    months = [period.month(f"{year}-{number:02}", name, NOW) for year in (2011, 2012) for number in range(1, 13)]
    assert all(one.end == following.begin for one, following in zip(months, months[1:]))
    assert all(one.begin < one.end for one in months)


def test_each_way_to_write_a_time_sorts_into_the_month_that_begins_with_it() -> None:
    begin = str(period.month("2026-10", "UTC", NOW).parameters()["begin"])
    moments = ("2026-10-01T00:00:00", "2026-10-01T00:00:00Z", "2026-10-01T00:00:00.000Z", "2026-10-01T00:00:00+00:00")
    assert all(text >= begin for text in moments)
    assert begin > "2026-09-30T23:59:59.999999Z"


@pytest.mark.parametrize(
    "wrong", ["", "2026", "2026-13", "2026-00", "0000-01", "9999-12", "2026-1", "last", "\u0662026-10"]
)
def test_what_is_no_month_is_refused(wrong: str) -> None:
    with pytest.raises(InputError, match="not a month"):
        period.month(wrong, "UTC", NOW)


@pytest.mark.parametrize("wrong", ["", "Mars/Olympus", "../../etc/passwd", "/etc/passwd", "a\0b"])
def test_what_is_no_time_zone_is_refused(wrong: str) -> None:
    with pytest.raises(InputError, match="not a time zone"):
        period.month("2026-10", wrong, NOW)
