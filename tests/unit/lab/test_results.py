# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Totals are counted from reports, and no data is never a pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.results import Count, judged, junit_count

REPORT = """<?xml version="1.0"?>
<testsuites><testsuite tests="4" failures="9">
  <testcase classname="a" name="passes"/>
  <testcase classname="a" name="fails"><failure message="no"/></testcase>
  <testcase classname="a" name="breaks"><error message="no"/></testcase>
  <testcase classname="a" name="waits"><skipped message="needs zstd"/></testcase>
  <testcase classname="b" name="idles"><skipped>Not applicable.</skipped></testcase>
</testsuite></testsuites>
"""


def test_cases_are_counted_by_what_happened_to_them(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT, encoding="utf-8")
    assert junit_count([report, report]) == Count(2, 4, 4, ("a::waits: needs zstd", "b::idles: Not applicable.") * 2)


@pytest.mark.parametrize("content", [None, "", "<testsuites><testsuite>"])
def test_a_report_that_cannot_be_read_is_a_failure(tmp_path: Path, content: str | None) -> None:
    report = tmp_path / "report.xml"
    if content is not None:
        report.write_text(content, encoding="utf-8")
    assert junit_count([report]) == Count(failed=1)


@pytest.mark.parametrize(
    ("counted", "exit_code", "expected"),
    [
        (None, 0, Count(passed=1)),
        (None, 2, Count(failed=1)),
        (Count(passed=3), 0, Count(passed=3)),
        (Count(passed=3, failed=2), 1, Count(passed=3, failed=2)),
        (Count(passed=3), 1, Count(passed=3, failed=1)),
        (Count(), 0, Count(failed=1)),
        (Count(skipped=5), 0, Count(failed=1, skipped=5)),
    ],
)
def test_a_step_that_failed_or_ran_nothing_never_passes(counted: Count | None, exit_code: int, expected: Count) -> None:
    assert judged(counted, exit_code) == expected


def test_the_last_line_has_the_three_numbers() -> None:
    assert str(Count(12, 0, 3, ("a: b",))) == "12 passed, 0 failed, 3 skipped"
