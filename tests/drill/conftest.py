"""Production and staging in service, deployed once for all tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab import hosts
from tests.lab.drill import prepare
from tests.lab.drill_report import Report

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def lab() -> Iterator[Report]:
    """The report of an unfinished drill: everything is prepared, nothing is destroyed."""
    report = Report(scenario="sabotage", started_at="")
    prepare(report)
    yield report
    hosts.destroy(["standby"])
