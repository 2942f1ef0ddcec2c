"""Clocks for tests."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from fluxmaint.core.clock import Clock


class At(Clock):
    """The system's clock, some time off."""

    def __init__(self, **off: float) -> None:
        self._off = timedelta(**off)

    def now(self) -> datetime:
        return datetime.now(timezone.utc) + self._off
