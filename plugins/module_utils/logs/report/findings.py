# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person has to look at, from the numbers of a log report: pure decisions, each with its reason.

What was not read comes first, because nothing else can be believed as far as it reaches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from ..summary import Document, Gap, Hour, Message, Restart, Source
from .markup import visible
from .words import UNKNOWN, change, counted, moment, number, share, span, time_text

# Kinds of findings, the gravest first.
BLIND = "not known"
LOOK = "look"
NOTE = "note"
QUIET = "quiet"
KINDS = (BLIND, LOOK, NOTE)

ERRORS = ("CRITICAL", "ERROR")
WARNING = "WARNING"
SERIOUS = (*ERRORS, WARNING, "UNKNOWN")

# An increase that is told: so many more, and so much more in proportion.
_MORE = 5
_GROWTH = 1.2
# From this share on, lines that no form fits may hide something.
_UNPARSED_SHARE = 0.01
# So much of a message is quoted.
_QUOTED = 120
# The service starts anew when a release is deployed.
_DEPLOY_TAKES = timedelta(minutes=10)


@dataclass(frozen=True)
class Finding:
    """One sentence about the period. `anchor` names the part of the report that tells more."""

    kind: str
    text: str
    anchor: str


@dataclass(frozen=True)
class Verdict:
    """The whole report in one line, and why. `kind` is that of the gravest finding, or `quiet`."""

    kind: str
    headline: str
    findings: Sequence[Finding]

    def as_dict(self) -> dict[str, Any]:
        """The verdict as JSON-serialisable data."""
        return asdict(self)


def judge(document: Document) -> Verdict:
    """What has to be looked at."""
    found = [*_blind(document), *_trouble(document)]
    found.sort(key=lambda finding: KINDS.index(finding.kind))
    blind = sum(finding.kind == BLIND for finding in found)
    looks = sum(finding.kind == LOOK for finding in found)
    this = f"this {span(document)}"
    if not document["totals"]["events"]:
        return Verdict(BLIND, f"No data: nothing is known about {this}", found)
    if looks:
        trouble = f"{counted(looks, 'thing')} {'needs' if looks == 1 else 'need'} a look {this}"
        return Verdict(LOOK, f"{trouble}, and not everything is known" if blind else trouble, found)
    if blind:
        return Verdict(BLIND, f"No trouble in what was read, but not everything is known about {this}", found)
    return Verdict(QUIET, f"Nothing needs a look {this}", found)


def silent(source: Source) -> bool:
    """Whether a source said nothing: that is no good news."""
    return not source["events"]


def complete(document: Document) -> bool:
    """Whether there are sources, and every one of them said something."""
    return bool(document["sources"]) and not any(map(silent, document["sources"]))


def serious(document: Document) -> list[Message]:
    """Messages of the period that are warnings, worse, or of no known level; the gravest and most frequent first."""
    return [item for item in document["messages"] if item["count"] and item["level"] in SERIOUS]


def new_since_deploy(document: Document) -> list[Message]:
    """Those of them that were first seen after the present release began."""
    return [item for item in serious(document) if item["new_since_deploy"]]


def first_seen_here(document: Document) -> list[Message]:
    """Errors of the period that were never seen before it, without those that are new since the deploy."""
    begin = moment(document["period"]["begin"])
    return [
        item
        for item in serious(document)
        if item["level"] in ERRORS and not item["new_since_deploy"] and _at_or_after(item["first_seen"], begin)
    ]


def with_the_deploy(document: Document, restart: Restart) -> bool:
    """Whether a restart belongs to the deployment of the present release."""
    when = moment(restart["time"])
    deployed = moment(document["release"]["deployed"]) if document["release"] else None
    return when is not None and deployed is not None and abs(when - deployed) <= _DEPLOY_TAKES


def _at_or_after(text: str, begin: datetime | None) -> bool:
    when = moment(text)
    return when is not None and begin is not None and when >= begin


def _blind(document: Document) -> Iterator[Finding]:
    if not document["sources"]:
        yield Finding(BLIND, "No source of logs was read.", "sources")
    for source in filter(silent, document["sources"]):
        yield Finding(BLIND, f"{source['name']} has no event at all: that is no data, not good health.", "sources")
    for source in document["sources"]:
        if source["gaps"]:
            gaps = counted(len(source["gaps"]), "gap")
            yield Finding(BLIND, f"{gaps} in {source['name']}: {gap_text(source['gaps'][0])}.", "sources")
    unparsed, events = document["totals"]["unparsed"], document["totals"]["events"]
    if unparsed:
        kind = BLIND if unparsed >= _UNPARSED_SHARE * events else NOTE
        lines = counted(unparsed, "line")
        fits = "fits" if unparsed == 1 else "fit"
        yield Finding(kind, f"{lines} ({share(unparsed, events)}) {fits} no known form; samples are shown.", "sources")
    gap = longest_silence(document["hourly"])
    if gap and events:
        hours = counted(gap[0], "hour")
        text = f"No event at all for {hours} from {time_text(gap[1])}; {counted(gap[2], 'such hour')} in all."
        yield Finding(NOTE, text, "hours")


def gap_text(gap: Gap) -> str:
    """What is missing, and between which times."""
    ends = [("after", time_text(gap["after"])), ("before", time_text(gap["before"]))]
    times = " and ".join(f"{word} {text}" for word, text in ends if text != UNKNOWN)
    return f"{gap['file']}: {gap['reason']}" + (f" ({times})" if times else "")


def longest_silence(hours: Sequence[Hour]) -> tuple[int, str, int] | None:
    """The longest run of hours without an event, when it began, and how many such hours there are in all."""
    longest, run, since, at, total = 0, 0, "", "", 0
    for hour in hours:
        if hour["events"]:
            run = 0
            continue
        since = hour["hour"] if not run else since
        run, total = run + 1, total + 1
        if run > longest:
            longest, at = run, since
    return (longest, at, total) if longest else None


def _trouble(document: Document) -> Iterator[Finding]:
    totals, before = document["totals"], document["previous_totals"]
    than = f"the {span(document)} before"
    critical = [item for item in serious(document) if item["level"] == "CRITICAL"]
    if critical:
        times = counted(sum(item["count"] for item in critical), "critical event")
        yield Finding(LOOK, f"{times}: {visible(critical[0]['text'], _QUOTED)}", "top")
    if totals["failed_trades"]:
        failed = counted(totals["failed_trades"], "trade")
        compared = change(totals["failed_trades"], before["failed_trades"] if before else None, than)
        yield Finding(LOOK, f"{failed} failed: {compared}.", "top")
    yield from _new(document)
    if before is None:
        yield Finding(NOTE, f"Nothing is known of {than}: there is nothing to compare with.", "numbers")
    else:
        yield from _increase("Errors", totals["errors"], before["errors"], than, LOOK)
        yield from _increase("Warnings", totals["warnings"], before["warnings"], than, NOTE)
    if totals["api_errors"]:
        worst = max(document["routes"], key=lambda route: route["errors"], default=None)
        where = f"; most of them at {worst['method']} {worst['route']}" if worst and worst["errors"] else ""
        part = f" ({share(totals['api_errors'], totals['requests'])} of the requests)" if totals["requests"] else ""
        yield Finding(LOOK, f"{counted(totals['api_errors'], 'API error')}{part}{where}.", "routes")
    unplanned = [restart for restart in document["restarts"] if not with_the_deploy(document, restart)]
    if unplanned:
        times = counted(len(unplanned), "restart")
        last = time_text(unplanned[-1]["time"])
        yield Finding(LOOK, f"{times} that no deploy explains, the last on {last}.", "restarts")
    elif document["restarts"]:
        yield Finding(NOTE, f"{counted(len(document['restarts']), 'restart')}, with the deploy.", "restarts")


def _new(document: Document) -> Iterator[Finding]:
    new = new_since_deploy(document)
    graver = [item for item in new if item["level"] in ERRORS]
    if graver:
        kinds = counted(len(graver), "kind of error is", "kinds of errors are")
        times = counted(sum(item["count"] for item in graver), "event")
        yield Finding(LOOK, f"{kinds} new since the last deploy ({times}).", "new")
    elif new:
        kinds = counted(len(new), "kind of warning is", "kinds of warnings are")
        yield Finding(NOTE, f"{kinds} new since the last deploy.", "new")
    first = first_seen_here(document)
    if first:
        kinds = counted(len(first), "kind of error was", "kinds of errors were")
        yield Finding(LOOK, f"{kinds} seen for the first time, and not because of the deploy.", "top")


def _increase(name: str, now: int, before: int, than: str, kind: str) -> Iterator[Finding]:
    if now >= before + _MORE and now >= before * _GROWTH:
        yield Finding(kind, f"{name} increased to {number(now)}: {change(now, before, than)}.", "numbers")
