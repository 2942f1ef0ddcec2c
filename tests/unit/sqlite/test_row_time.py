# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Times of rows, in every form that services write them, and what is no time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from fluxmaint.sqlite.row_time import month_of, read_time
from hypothesis import given
from hypothesis import strategies as st

TIMES = st.datetimes(datetime.fromisoformat("1974-01-01"), datetime.fromisoformat("2200-01-01"))
ZONES = st.integers(-18 * 60, 18 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(TIMES, ZONES)
def test_what_python_writes_is_read(naive: datetime, zone: timezone) -> None:
    moment = naive.replace(tzinfo=zone)
    assert read_time(moment.isoformat()) == moment
    assert read_time(moment.isoformat(" ", "milliseconds")) == moment.replace(
        microsecond=moment.microsecond // 1000 * 1000
    )
    assert read_time(naive.isoformat()) == naive.replace(tzinfo=timezone.utc), "without a zone it is UTC"
    assert read_time(naive.isoformat() + "Z") == naive.replace(tzinfo=timezone.utc)
    seconds = int(naive.replace(tzinfo=timezone.utc).timestamp())
    for value in (seconds, float(seconds), str(seconds), seconds * 1000, f" {seconds} "):
        assert read_time(value) == naive.replace(tzinfo=timezone.utc, microsecond=0)


@given(st.one_of(st.text(), st.binary(), st.integers(), st.floats(), st.none(), st.booleans()))
def test_anything_else_is_none_and_never_an_error(value: Any) -> None:
    moment = read_time(value)
    assert moment is None or len(month_of(moment)) == 6


@pytest.mark.parametrize(
    "value",
    [
        *("", "now", "2026-13-01", "2026-02-30", "2026-11-23T25:00:00", "2026-11-23T10", "20261123", "23.11.2026"),
        *("2026-11-23T10:00:00+25:00", "2026-11-23T10:00:00+01:75", "٢٠٢٦-11-23", "0500-01-01", b"2026-11-23", True),
        *(0, 1, 2460000.5, 99_999_999, 10**14, -(10**9), float("nan"), float("inf"), 10**400),
        "9999-12-31T23:59:59-01:00",
    ],
)
def test_what_could_be_something_else_is_no_time(value: Any) -> None:
    assert read_time(value) is None


@pytest.mark.parametrize(
    ("value", "month"),
    [
        ("2026-11-30T23:30:00-01:00", "202612"),
        ("2026-12-01T00:30:00+01:00", "202611"),
        ("2026-12-01 00:30:00.5 +0100", "202611"),
        ("2026-11-30t23:59:59.999999999z", "202611"),
        ("2026-12-01", "202612"),
    ],
)
def test_the_month_is_that_of_utc(value: str, month: str) -> None:
    moment = read_time(value)
    assert moment is not None and month_of(moment) == month
