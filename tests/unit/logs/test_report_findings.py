# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a log report tells a person to look at, and how it counts, compares and names."""

from __future__ import annotations

import time
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fluxmaint.core.clock import parse_utc, utc_text
from fluxmaint.logs.report import findings, words
from fluxmaint.logs.report.findings import BLIND, LOOK, NOTE, QUIET, judge
from fluxmaint.logs.summary import Document

from tests.support.log_report_example import at, empty, example, message, quiet


def told(document: Document, kind: str) -> list[str]:
    return [finding.text for finding in judge(document).findings if finding.kind == kind]


def test_what_is_not_known_comes_first() -> None:
    kinds = [finding.kind for finding in judge(example()).findings]
    assert kinds == sorted(kinds, key=[BLIND, LOOK, NOTE].index)
    assert told(example(), BLIND)[0].startswith("fluxhero-frontend.service has no event at all")
    assert (
        "removed before it was read (after Fri 20 Nov 07:00 and before Fri 20 Nov 10:00)" in told(example(), BLIND)[1]
    )
    assert judge(example()).headline == "6 things need a look this week, and not everything is known"


def test_a_quiet_week_needs_no_look() -> None:
    assert judge(quiet()).kind == QUIET
    assert judge(quiet()).findings == []


def test_no_event_is_no_good_news() -> None:
    assert judge(empty()).kind == BLIND
    document = quiet()
    document["sources"].append({**document["sources"][0], "name": "access.log", "events": 0})
    verdict = judge(document)
    assert verdict.kind == BLIND
    assert verdict.headline == "No trouble in what was read, but not everything is known about this week"


def changed(**facts: Any) -> Document:
    document = quiet()
    document["previous_totals"] = document["totals"].copy()
    document["totals"].update(facts)  # type: ignore[typeddict-item]
    return document


@pytest.mark.parametrize(
    ("facts", "kind", "text"),
    [
        ({"failed_trades": 1}, LOOK, "1 trade failed: +1, none the week before."),
        ({"errors": 5}, LOOK, "Errors increased to 5: +5, none the week before."),
        ({"warnings": 5}, NOTE, "Warnings increased to 5: +5, none the week before."),
        ({"api_errors": 400}, LOOK, "400 API errors (1.1 % of the requests)."),
        ({"unparsed": 1}, NOTE, "1 line (less than 0.1 %) fits no known form; samples are shown."),
        ({"unparsed": 2000}, BLIND, "2,000 lines (1.5 %) fit no known form; samples are shown."),
    ],
)
def test_each_count_is_told(facts: dict[str, int], kind: str, text: str) -> None:
    assert told(changed(**facts), kind) == [text]


def test_small_changes_are_not_told() -> None:
    document = changed(errors=104)
    assert document["previous_totals"] is not None
    document["previous_totals"]["errors"] = 100
    assert judge(document).kind == QUIET


def test_critical_messages_are_quoted() -> None:
    document = quiet()
    document["messages"] = [message("CRITICAL", "Trading halted" + "!" * 300, 2)]
    (text,) = told(document, LOOK)
    assert text.startswith("2 critical events: Trading halted!!!")
    assert len(text) < 180


def test_errors_that_are_new_are_told_apart_from_those_of_the_deploy() -> None:
    document = quiet()
    document["messages"] = [
        message("ERROR", "a", 3, new_since_deploy=True, first_seen=at(70)),
        message("ERROR", "b", 1, first_seen=at(3)),
        message("ERROR", "c", 1, first_seen="2026-01-05T00:00:00Z"),
        message("ERROR", "d", 0, first_seen=at(3), new_since_deploy=True),
        message("INFO", "e", 9, first_seen=at(3), new_since_deploy=True),
    ]
    assert told(document, LOOK) == [
        "1 kind of error is new since the last deploy (3 events).",
        "1 kind of error was seen for the first time, and not because of the deploy.",
    ]


def test_a_new_warning_is_only_a_note() -> None:
    document = quiet()
    document["messages"] = [message("WARNING", "a", 3, new_since_deploy=True, first_seen=at(70))]
    assert told(document, NOTE) == ["1 kind of warning is new since the last deploy."]
    assert judge(document).kind == QUIET


def test_a_restart_belongs_to_the_deploy_only_shortly_after_it() -> None:
    document = quiet()
    assert document["release"] is not None
    restart = {"time": "2026-11-18T18:13:59Z", "unit": "fluxhero-backend.service", "what": "started"}
    document["restarts"] = [restart]  # type: ignore[list-item]
    assert told(document, NOTE) == ["1 restart, with the deploy."]
    restart["time"] = "2026-11-18T18:14:01Z"
    assert told(document, LOOK) == ["1 restart that no deploy explains, the last on Wed 18 Nov 18:14:01."]
    document["release"] = None
    assert len(told(document, LOOK)) == 1


def test_hours_without_an_event_are_told_with_the_longest_run() -> None:
    document = quiet()
    for index in (3, 10, 11, 12, 167):
        document["hourly"][index]["events"] = 0
    assert told(document, NOTE) == ["No event at all for 3 hours from Mon 16 Nov 10:00; 5 such hours in all."]
    assert findings.longest_silence([]) is None


def test_without_an_earlier_week_there_is_nothing_to_compare_with() -> None:
    document = quiet()
    document["previous_totals"] = None
    assert told(document, NOTE) == ["Nothing is known of the week before: there is nothing to compare with."]
    assert words.change(3, None) == "nothing known of the week before"


@pytest.mark.parametrize(
    ("now", "before", "text"),
    [
        (0, 0, "none, as the week before"),
        (4, 4, "±0, as many as the week before"),
        (5, 0, "+5, none the week before"),
        (0, 5, "\u22125, 100 % fewer than the week before"),
        (1001, 1000, "+1, less than 1 % more than the week before"),
        (1200, 100, "+1,100, 12 times as many as the week before"),
    ],
)
def test_changes(now: int, before: int, text: str) -> None:
    assert words.change(now, before) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(1, 10_000, "less than 0.1 %"), (9999, 10_000, "more than 99.9 %"), (0, 5, "0.0 %"), (5, 5, "100.0 %")],
)
def test_a_share_is_never_rounded_to_nothing_or_all(part: int, whole: int, text: str) -> None:
    assert words.share(part, whole) == text


@pytest.mark.parametrize(
    ("begin", "end", "text"),
    [
        ("2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z", "Week 47 of 2026"),
        ("2026-11-16T04:00:00Z", "2026-11-23T04:00:00Z", "Week 47 of 2026"),
        # Midnight in a time zone east of UTC lies in the week before.
        ("2026-11-15T23:00:00Z", "2026-11-22T23:00:00Z", "Week 47 of 2026"),
        ("2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z", "Week 53 of 2026"),
        # Clocks change within the week.
        ("2026-10-18T22:00:00Z", "2026-10-25T23:00:00Z", "Week 43 of 2026"),
        ("2026-11-16T00:00:00Z", "2026-11-18T00:00:00Z", "Mon 16 Nov 2026 00:00 to Wed 18 Nov 2026 00:00 UTC"),
        # Seven days, but not those of a week: another report than that of the week.
        ("2026-11-18T10:00:00Z", "2026-11-25T10:00:00Z", "Wed 18 Nov 2026 10:00 to Wed 25 Nov 2026 10:00 UTC"),
    ],
)
def test_a_week_has_a_number(begin: str, end: str, text: str) -> None:
    document = quiet()
    document["period"] = {"begin": begin, "end": end}
    assert words.title(document) == text


def test_a_time_that_is_not_known_is_called_so() -> None:
    assert words.time_text("") == "unknown"
    assert words.time_text("<script>") == "unknown"


@pytest.mark.parametrize(
    ("now", "zone", "begin", "end"),
    [
        ("2026-11-23T05:00:08Z", "UTC", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"),
        ("2026-11-29T23:59:59Z", "UTC", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"),
        ("2026-11-30T04:00:00Z", "America/New_York", "2026-11-16T05:00:00Z", "2026-11-23T05:00:00Z"),
        ("2026-10-26T04:00:00Z", "Europe/Berlin", "2026-10-18T22:00:00Z", "2026-10-25T23:00:00Z"),
    ],
)
def test_the_last_week_is_whole_in_its_time_zone(now: str, zone: str, begin: str, end: str) -> None:
    assert tuple(map(utc_text, words.last_week(parse_utc(now), ZoneInfo(zone)))) == (begin, end)


def test_without_a_time_zone_it_is_that_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert words.last_week(parse_utc("2026-11-25T12:00:00Z"))[1] == parse_utc("2026-11-23T05:00:00Z")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_reports_are_complete_only_when_every_source_has_spoken() -> None:
    assert findings.complete(quiet())
    assert not findings.complete(example())
    assert not findings.complete({**quiet(), "sources": []})
