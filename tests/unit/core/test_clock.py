from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from fluxmaint.core.clock import Clock, parse_utc, utc_text
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
