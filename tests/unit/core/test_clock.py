from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from fluxmaint.core.clock import Clock, from_timestamp, parse_utc, utc_text
from fluxmaint.core.errors import InputError


def test_times_are_utc_with_z() -> None:
    moment = datetime(2026, 3, 29, 3, 30, tzinfo=timezone(timedelta(hours=2)))
    assert utc_text(moment) == "2026-03-29T01:30:00Z"
    assert parse_utc("2026-03-29T01:30:00Z") == moment
    assert Clock().now().tzinfo == timezone.utc


def test_a_time_without_zone_or_in_another_form_is_refused() -> None:
    with pytest.raises(InputError, match="no time zone"):
        utc_text(datetime(2026, 3, 29))  # noqa: DTZ001 - the mistake that is to be refused
    for text in ("2026-03-29", "2026-03-29 01:30:00", "", "2026-03-29T01:30:00+02:00"):
        with pytest.raises(InputError, match="is not a UTC time"):
            parse_utc(text)


def test_time_stamps_that_no_date_can_hold_become_the_nearest_one() -> None:
    for seconds, text in (
        (0.9, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (2.6e11, "9999-12-31T23:59:59Z"),
        (9e15, "9999-12-31T23:59:59Z"),
        (-9e15, "1000-01-01T00:00:00Z"),
        (-6e10, "1000-01-01T00:00:00Z"),
    ):
        assert utc_text(from_timestamp(seconds)) == text
        assert utc_text(parse_utc(text)) == text
