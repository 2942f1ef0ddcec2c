# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step of the tests brought: counted from its reports, never from its output."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True)
class Count:
    """Numbers of test cases, and why the skipped ones were skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: tuple[str, ...] = field(default=())

    def __add__(self, other: Count) -> Count:
        return Count(
            self.passed + other.passed,
            self.failed + other.failed,
            self.skipped + other.skipped,
            self.reasons + other.reasons,
        )

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def junit_count(reports: Iterable[Path]) -> Count:
    """Count the test cases in JUnit XML reports. A report that cannot be read counts as a failure."""
    return sum((_one_report(report) for report in reports), Count())


def _one_report(report: Path) -> Count:
    try:
        cases = list(ET.parse(report).iter("testcase"))
    except (OSError, ET.ParseError):
        return Count(failed=1)
    total = Count()
    for case in cases:
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            total += Count(failed=1)
        elif skip is not None:
            name = "::".join(filter(None, (case.get("classname"), case.get("name"))))
            reason = skip.get("message") or (skip.text or "").strip() or "no reason given"
            total += Count(skipped=1, reasons=(f"{name}: {reason}",))
        else:
            total += Count(passed=1)
    return total


def judged(counted: Count | None, exit_code: int) -> Count:
    """The count of a step that ended with `exit_code`.

    `counted` is None for a step that is one test by itself. A step that failed without a failed test case,
    or that ran no test at all, counts as one failure: no data is never a pass.
    """
    if counted is None:
        return Count(passed=1) if exit_code == 0 else Count(failed=1)
    nothing_ran = counted.passed + counted.failed == 0
    if counted.failed == 0 and (exit_code != 0 or nothing_ran):
        return counted + Count(failed=1)
    return counted
