# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A log report as plain text, for mail and terminals; no character of a log can steer the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from ...core.human import size_text, table_lines
from ..summary import Document, Message
from .findings import WARNING, gap_text, judge, new_since_deploy, serious, silent, with_the_deploy
from .markup import visible
from .words import change, counted, milliseconds, number, period_text, share, short_change, span, time_text, title

TOP = 10
_MOST_ROWS = 20
_WIDTH = 100
_TEXT = 160


def render(document: Document) -> str:
    """The whole report, with a final newline."""
    verdict = judge(document)
    heading = f"Log report of {_one_line(document['service'])} on {_one_line(document['host'])}: {title(document)}"
    release = document["release"]
    lines = [heading, "=" * len(heading), period_text(document["period"])]
    if release:
        lines.append(f"Release {_one_line(release['current'])}, deployed {time_text(release['deployed'])}")
    lines += ["All times are UTC.", "", verdict.headline.upper()]
    for finding in verdict.findings:
        begin = f"  {finding.kind.upper() + ':':11}"
        lines += textwrap.wrap(
            begin + visible(finding.text), _WIDTH, subsequent_indent=" " * len(begin), break_on_hyphens=False
        )
    for part in (_numbers, _sources, _types, _new, _top, _warnings, _routes, _restarts, _notes):
        lines += ["", *part(document)]
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return visible(text, _TEXT)


def _part(heading: str, lines: Iterable[str]) -> list[str]:
    return [heading, "-" * len(heading), *lines]


def _table(heading: str, heads: Sequence[str], rows: Sequence[Sequence[str]], there: int | None = None) -> list[str]:
    left = (len(rows) if there is None else there) - len(rows)
    more = [f"and {number(left)} more in the JSON report"] if left > 0 else []
    return _part(heading, [*table_lines([heads, *rows]), *more])


def _no_data(document: Document, otherwise: str) -> list[str]:
    known = document["totals"]["events"] and not all(map(silent, document["sources"]))
    return [otherwise if known else "No data: nothing was read, so nothing is known."]


def _numbers(document: Document) -> list[str]:
    now, before = document["totals"], document["previous_totals"]
    if not now["events"]:
        return _part("In numbers", ["No data: no event was read, so there is nothing to count."])
    than = f"the {span(document)} before"
    rows = [
        (label, number(value), change(value, earlier, than))
        for label, value, earlier in (
            ("Errors", now["errors"], before and before["errors"]),
            ("Warnings", now["warnings"], before and before["warnings"]),
            ("Failed trades", now["failed_trades"], before and before["failed_trades"]),
            ("API errors", now["api_errors"], before and before["api_errors"]),
            ("Tracebacks", now["tracebacks"], before and before["tracebacks"]),
            ("Restarts", now["restarts"], before and before["restarts"]),
            ("API requests", now["requests"], before and before["requests"]),
            ("All events", now["events"], before and before["events"]),
        )
    ]
    return _part("In numbers", table_lines(rows))


def _sources(document: Document) -> list[str]:
    if not document["sources"]:
        return _part("What was read", ["No data: no source of logs was read."])
    rows = [
        (
            _one_line(source["name"]),
            "NO DATA"
            if silent(source)
            else "gaps"
            if source["gaps"]
            else "unparsed"
            if source["unparsed"]
            else "complete",
            number(source["events"]),
            number(source["unparsed"]),
            number(source["doubles_dropped"]),
            number(len(source["gaps"])),
            size_text(source["bytes_read"]),
        )
        for source in document["sources"]
    ]
    heads = ("source", "state", "events", "unparsed", "doubles dropped", "gaps", "read")
    lines = _table("What was read", heads, rows)
    for source in document["sources"]:
        lines += [
            f"gap in {_one_line(source['name'])}: {_one_line(gap_text(gap))}" for gap in source["gaps"][:_MOST_ROWS]
        ]
        lines += [f"unparsed in {_one_line(source['name'])}: {_one_line(text)}" for text in source["unparsed_samples"]]
    return lines


def _types(document: Document) -> list[str]:
    types = [item for item in document["errors_by_type"] if item["count"] or item["previous"]]
    if not types:
        return _part("Errors by type", _no_data(document, "No error in what was read."))
    known = document["previous_totals"] is not None
    rows = [
        (
            number(item["count"]),
            number(item["previous"]) if known else "unknown",
            short_change(item["count"], item["previous"] if known else None),
            _one_line(item["type"]),
        )
        for item in types[:_MOST_ROWS]
    ]
    return _table("Errors by type", ("now", "before", "change", "type"), rows, len(types))


def _messages(heading: str, messages: Sequence[Message], document: Document, most: int) -> list[str]:
    known = document["previous_totals"] is not None
    lines = []
    for item in messages[:most]:
        new = ", NEW" if item["new_since_deploy"] else ""
        compared = short_change(item["count"], item["previous"] if known else None)
        seen = f"first seen {time_text(item['first_seen'])}, last seen {time_text(item['last_seen'])}"
        lines.append(f"{number(item['count']):>8}  {item['level']}{new}: {_one_line(item['text'])}")
        lines.append(f"{'':10}{compared}; {seen}")
    left = len(messages) - most
    if left > 0:
        lines.append(f"and {number(left)} more in the JSON report")
    return _part(heading, lines)


def _new(document: Document) -> list[str]:
    heading = "New since the last deploy"
    if not document["release"]:
        return _part(heading, ["Not known: no release is known to this report."])
    new = new_since_deploy(document)
    if not new:
        return _part(heading, _no_data(document, "No warning or error that had not been seen before the deploy."))
    return _messages(heading, new, document, _MOST_ROWS)


def _top(document: Document) -> list[str]:
    top = serious(document)
    if not top:
        return _part("Top ten messages", _no_data(document, "No warning and no error in what was read."))
    return _messages("Top ten messages", top[:TOP], document, TOP)


def _warnings(document: Document) -> list[str]:
    warnings = [item for item in serious(document) if item["level"] == WARNING]
    if not warnings:
        return _part("Warnings", _no_data(document, "No warning in what was read."))
    return _messages("Warnings", warnings, document, TOP)


def _routes(document: Document) -> list[str]:
    heading = "API errors and latency by route"
    routes = sorted(document["routes"], key=lambda route: (-route["errors"], -route["requests"]))
    if not routes:
        return _part(heading, ["No data: no request of the API was read."])
    rows = [
        (
            number(route["requests"]),
            f"{number(route['errors'])} ({share(route['errors'], route['requests'])})" if route["errors"] else "0",
            milliseconds(route["p50_ms"]),
            milliseconds(route["p95_ms"]),
            milliseconds(route["p99_ms"]),
            _one_line(f"{route['method']} {route['route']}"),
        )
        for route in routes[:_MOST_ROWS]
    ]
    heads = ("requests", "errors", "median", "p95", "p99", "route")
    return _table(heading, heads, rows, len(routes))


def _restarts(document: Document) -> list[str]:
    restarts = document["restarts"]
    if not restarts:
        return _part("Restarts", _no_data(document, "No start of the service in what was read."))
    rows = [
        (
            time_text(item["time"]),
            "with the deploy" if with_the_deploy(document, item) else "not explained",
            _one_line(item["unit"]),
            _one_line(item["what"]),
        )
        for item in restarts[-_MOST_ROWS:]
    ]
    return _table("Restarts", ("time", "why", "unit", "what"), rows, len(restarts))


def _notes(document: Document) -> list[str]:
    made = (
        f"Made {time_text(document['generated'])} UTC from {size_text(document['totals']['bytes'])} of logs, without "
    )
    made += f"{counted(document['totals']['doubles_dropped'], 'line')} that double handlers wrote twice."
    return _part("What the numbers cannot say", [*(f"- {_one_line(note)}" for note in document["notes"]), made])
