# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A log report as one HTML file that needs nothing else: no script, no font, no picture, no network.

It may hold hostile text. Everything is escaped where it becomes an element (`markup.tag`), and the page's policy
forbids whatever could run or be fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ...core.human import size_text
from ..summary import Document, Message, Route, Source, Totals
from . import plots
from .findings import (
    BLIND,
    LOOK,
    NOTE,
    QUIET,
    WARNING,
    Verdict,
    gap_text,
    judge,
    new_since_deploy,
    serious,
    silent,
    with_the_deploy,
)
from .markup import Markup, foreign, foreign_lines, join, tag
from .style import STYLE
from .words import (
    change,
    counted,
    milliseconds,
    moment,
    number,
    period_text,
    share,
    short_change,
    span,
    time_text,
    title,
)

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
TOP = 10
# So many rows are shown; the JSON has all of them.
_MOST_TYPES = 20
_MOST_NEW = 20
_MOST_ROUTES = 40
_MOST_RESTARTS = 40
_MOST_GAPS = 20

_CLASSES = {BLIND: "blind", LOOK: "look", NOTE: "note", QUIET: "quiet"}
_ICONS = {
    BLIND: "M8 0.8L15.2 8L8 15.2L0.8 8ZM5 8H11",
    LOOK: "M8 1.2L15.2 14.8H0.8ZM8 6V10.4M8 11.8V13",
    NOTE: "M3.5 8A4.5 4.5 0 1 1 12.5 8A4.5 4.5 0 1 1 3.5 8",
    QUIET: "M1.5 8.5L6 13L14.5 3",
}
_WORDS = {BLIND: "Not known", LOOK: "Look", NOTE: "Note"}
_ANCHORS = {
    "sources": "what was read",
    "hours": "the hours",
    "new": "new messages",
    "top": "the top ten",
    "routes": "the routes",
    "restarts": "restarts",
    "numbers": "the numbers",
}


def render(document: Document) -> str:
    """The whole page."""
    verdict = judge(document)
    heading = f"Log report: {title(document)}, {document['service']} on {document['host']}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", heading),
        tag("style", Markup(STYLE)),
    )
    main = tag(
        "main",
        _verdict(verdict),
        _numbers(document),
        _hours(document),
        _sources(document),
        _types(document),
        _new(document),
        _top(document),
        _warnings(document),
        _routes(document),
        _restarts(document),
        _notes(document),
    )
    body = tag("body", _header(document), main, _footer(document))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _header(document: Document) -> Markup:
    release = document["release"]
    running = join("Release: not known.")
    if release:
        before = join(", the one before was ", foreign(release["previous"], "b")) if release["previous"] else Markup("")
        deployed = f", deployed {time_text(release['deployed'])}"
        running = join("Release ", foreign(release["current"], "b"), deployed, before, ".")
    return tag(
        "header",
        tag("p", "Log report · ", foreign(document["service"]), " on ", foreign(document["host"]), class_="over"),
        tag("h1", title(document)),
        tag("p", period_text(document["period"]), ". All times are UTC.", class_="facts"),
        tag("p", running, class_="facts"),
    )


def _section(anchor: str, heading: str, *content: str, lead: str = "") -> Markup:
    parts = [tag("h2", heading, id=f"{anchor}-h")]
    if lead:
        parts.append(tag("p", lead, class_="lead"))
    return tag("section", *parts, *content, id=anchor, aria_labelledby=f"{anchor}-h")


def _none(text: str) -> Markup:
    return tag("p", text, class_="none")


def _icon(kind: str, size: int = 14) -> Markup:
    """A shape of its own for each kind: triangle, diamond, circle, tick."""
    outline = tag("path", d=_ICONS[kind], class_="icon")
    return tag("svg", outline, viewBox="0 0 16 16", width=size, height=size, aria_hidden="true")


def _verdict(verdict: Verdict) -> Markup:
    items = [
        tag(
            "li",
            tag("span", _icon(item.kind), _WORDS[item.kind], class_=f"kind {_CLASSES[item.kind]}"),
            tag("span", foreign(item.text), " ", tag("a", f"See {_ANCHORS[item.anchor]}", href=f"#{item.anchor}")),
        )
        for item in verdict.findings
    ]
    findings = tag("ul", *items, class_="findings") if items else Markup("")
    heading = tag("h2", _icon(verdict.kind, 22), tag("span", verdict.headline), id="verdict-h")
    kind = f"verdict {_CLASSES[verdict.kind]}"
    return tag("section", heading, findings, id="verdict", class_=kind, aria_labelledby="verdict-h")


# Label, key, and whether more of it is worse.
_TILES: Sequence[tuple[str, str, bool]] = (
    ("Errors", "errors", True),
    ("Warnings", "warnings", True),
    ("Failed trades", "failed_trades", True),
    ("API errors", "api_errors", True),
    ("Tracebacks", "tracebacks", True),
    ("Restarts", "restarts", True),
    ("API requests", "requests", False),
    ("All events", "events", False),
)


def _numbers(document: Document) -> Markup:
    before = document["previous_totals"]
    than = f"the {span(document)} before"
    tiles = [
        _tile(label, _total(document["totals"], key), _total(before, key) if before else None, than, worse)
        for label, key, worse in _TILES
    ]
    if not document["totals"]["events"]:
        return _section("numbers", "In numbers", _none("No data: no event was read, so there is nothing to count."))
    lead = f"Compared with {period_text(document['previous_period'])}." if before else f"Nothing is known of {than}."
    return _section("numbers", "In numbers", tag("dl", *tiles, class_="tiles"), lead=lead)


def _total(totals: Totals, key: str) -> int:
    counts: dict[str, int] = {**totals}  # type: ignore[dict-item]
    return counts[key]


def _tile(label: str, now: int, before: int | None, than: str, worse: bool) -> Markup:
    direction = ""
    if worse and before is not None and now != before:
        direction = " worse" if now > before else " better"
    return tag(
        "div",
        tag("dt", label),
        tag("dd", number(now), class_="value"),
        tag("dd", change(now, before, than), class_=f"change{direction}"),
        class_="some" if worse and now else None,
    )


def _hours(document: Document) -> Markup:
    chart = plots.hours_chart(document)
    legend = [
        _legend(tag("path", d="M8 2L14 13H2Z", class_="restart"), "restart that no deploy explains"),
        _legend(tag("path", d="M8 2L14 13H2Z", class_="restart planned"), "restart with the deploy"),
        _legend(tag("path", d="M2 2H13L9 7L13 12H2Z", class_="flag"), "deploy"),
        _legend(tag("rect", x="1", y="1", width="14", height="13", class_="silent"), "no event at all: not known"),
    ]
    drawn = (chart, tag("ul", *legend, class_="legend"), _days(document)) if document["hourly"] else (chart,)
    return _section("hours", "By the hour", *drawn, lead="Each lane has a scale of its own; its highest hour is named.")


def _legend(shape: Markup, text: str) -> Markup:
    return tag("li", tag("svg", shape, width=16, height=16, aria_hidden="true"), text)


def _days(document: Document) -> Markup:
    """The chart in numbers, a row for each day."""
    days: dict[str, list[int]] = {}
    for hour in document["hourly"]:
        when = moment(hour["hour"])
        sums = days.setdefault(time_text(f"{when:%Y-%m-%d}T00:00:00Z").rsplit(" ", 1)[0] if when else "", [0, 0, 0, 0])
        for index, value in enumerate((hour["errors"], hour["warnings"], hour["events"], int(not hour["events"]))):
            sums[index] += value
    rows = [[_head(day), *(_count(value) for value in sums)] for day, sums in days.items()]
    heads = ("Day", "#Errors", "#Warnings", "#All events", "#Hours without an event")
    return tag("details", tag("summary", "The same by the day, in numbers"), _table("Sums of each day", heads, rows))


# A cell is made when it is known under which heading it stands.
_Cell = Callable[[str], Markup]


def _head(content: str) -> _Cell:
    return lambda label: tag("th", content, scope="row")


def _cell(content: str, kind: str | None = None) -> _Cell:
    return lambda label: tag("td", content, class_=kind, data_label=label)


def _count(value: int) -> _Cell:
    return _cell(number(value), "n")


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[_Cell]], trouble: Sequence[bool] = ()) -> Markup:
    """A table that scrolls by itself where there is no room. `#` before a heading: the column holds numbers."""
    labels = [head.lstrip("#") for head in heads]
    cells = [
        tag("th", label, scope="col", class_="n" if head.startswith("#") else None)
        for head, label in zip(heads, labels)
    ]
    body = [
        tag(
            "tr",
            *(cell(label) for cell, label in zip(row, labels)),
            class_="trouble" if index < len(trouble) and trouble[index] else None,
        )
        for index, row in enumerate(rows)
    ]
    table = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *cells)),
        tag("tbody", *body),
        class_="cards",
    )
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _more(shown: int, there: int, what: str) -> Markup:
    left = there - shown
    return _none(f"{counted(left, what)} more in the JSON report.") if left > 0 else Markup("")


def _sources(document: Document) -> Markup:
    sources = document["sources"]
    if not sources:
        return _section("sources", "What was read", _none("No data: no source of logs was read."))
    rows = [
        [
            _head(foreign(source["name"])),
            _cell(_source_state(source), "long"),
            _count(source["events"]),
            _count(source["unparsed"]),
            _count(source["doubles_dropped"]),
            _count(len(source["gaps"])),
            _count(source["files"]),
            _cell(size_text(source["bytes_read"]), "n"),
        ]
        for source in sources
    ]
    heads = ("Source", "State", "#Events", "#Unparsed", "#Doubles dropped", "#Gaps", "#Files", "#Read")
    parts = [_table("Sources of this report, and how completely they were read", heads, rows)]
    gaps = [(source["name"], gap) for source in sources for gap in source["gaps"]]
    if gaps:
        items = [tag("li", foreign(name), ": ", foreign(gap_text(gap))) for name, gap in gaps[:_MOST_GAPS]]
        parts += [tag("h3", "Gaps"), tag("ul", *items, class_="plain"), _more(_MOST_GAPS, len(gaps), "gap")]
    for source in sources:
        if source["unparsed_samples"]:
            summary = tag("summary", "Unparsed lines of ", foreign(source["name"]))
            parts.append(tag("details", summary, *map(foreign_lines, source["unparsed_samples"])))
    return _section("sources", "What was read", *parts)


def _source_state(source: Source) -> Markup:
    if silent(source):
        return tag("span", _icon(BLIND), " no data", class_="kind blind")
    wrong = [
        text for text, there in (("has gaps", source["gaps"]), ("has unparsed lines", source["unparsed"])) if there
    ]
    if not wrong:
        return Markup("complete")
    kind = BLIND if source["gaps"] else NOTE
    return tag("span", _icon(kind), " ", " and ".join(wrong), class_=f"kind {_CLASSES[kind]}")


def _no_data(document: Document, otherwise: str) -> Markup:
    """An empty part in words: there is none, or nobody knows."""
    known = document["totals"]["events"] and not all(map(silent, document["sources"]))
    return _none(otherwise if known else "No data: nothing was read, so nothing is known.")


def _types(document: Document) -> Markup:
    types = [item for item in document["errors_by_type"] if item["count"] or item["previous"]]
    if not types:
        return _section("types", "Errors by type", _no_data(document, "No error in what was read."))
    known = document["previous_totals"] is not None
    most = max(max(item["count"], item["previous"]) for item in types)
    rows = [
        [
            _head(foreign(item["type"], class_="route")),
            _count(item["count"]),
            _cell(number(item["previous"]) if known else "unknown", "n"),
            _cell(short_change(item["count"], item["previous"] if known else None)),
            _cell(plots.pair_of_bars(item["count"], item["previous"], most), "plot"),
        ]
        for item in types[:_MOST_TYPES]
    ]
    this, than = f"#This {span(document)}", f"#The {span(document)} before"
    table = _table("Filled bar: now; hollow bar: before", ("Type", this, than, "Change", "Compared"), rows)
    return _section("types", "Errors by type", table, _more(_MOST_TYPES, len(types), "type"))


def _new(document: Document) -> Markup:
    release = document["release"]
    heading = "New since the last deploy"
    if not release:
        return _section("new", heading, _none("Not known: no release is known to this report."))
    new = new_since_deploy(document)
    if not new:
        text = "No warning or error that had not been seen before the deploy."
        return _section("new", heading, _no_data(document, text))
    lead = f"First seen after {time_text(release['deployed'])}, when {release['current']} was deployed."
    return _section(
        "new", heading, _messages(new[:_MOST_NEW], document), _more(_MOST_NEW, len(new), "message"), lead=lead
    )


def _top(document: Document) -> Markup:
    top = serious(document)
    if not top:
        return _section("top", "Top ten messages", _no_data(document, "No warning and no error in what was read."))
    lead = "The gravest first, then the most frequent. Numbers, ids, times and symbols are taken out of the text."
    return _section("top", "Top ten messages", _messages(top[:TOP], document), lead=lead)


def _messages(messages: Sequence[Message], document: Document) -> Markup:
    return tag("ol", *(_message(item, document) for item in messages), class_="messages")


def _message(item: Message, document: Document) -> Markup:
    level = item["level"].lower()
    badges = [tag("span", item["level"], class_=f"badge {level if level.isalpha() else ''}")]
    if item["new_since_deploy"]:
        badges.append(tag("span", "NEW", class_="badge new"))
    known = item["previous"] if document["previous_totals"] is not None else None
    release = join(", in release ", foreign(item["release"])) if item["release"] else Markup("")
    kind = join(foreign(item["type"], class_="route"), ". ") if item["type"] else Markup("")
    samples = item["samples"]
    return tag(
        "li",
        tag("p", *badges, foreign(item["text"], class_="log"), class_="what"),
        tag(
            "div",
            plots.spark(item["hourly"], document["hourly"]),
            tag("b", number(item["count"])),
            " ",
            change(item["count"], known, "before"),
            class_="much",
        ),
        tag(
            "p",
            kind,
            f"First seen {time_text(item['first_seen'])}",
            release,
            f"; last seen {time_text(item['last_seen'])}.",
            class_="when",
        ),
        tag(
            "details",
            tag("summary", counted(len(samples), "sample")),
            *map(foreign_lines, samples),
            tag("p", "Fingerprint ", foreign(item["fingerprint"], class_="route"), class_="small"),
        )
        if samples
        else Markup(""),
    )


def _warnings(document: Document) -> Markup:
    warnings = [item for item in serious(document) if item["level"] == WARNING]
    if not warnings:
        return _section("warnings", "Warnings", _no_data(document, "No warning in what was read."))
    known = document["previous_totals"] is not None
    rows = [
        [
            _head(foreign(item["text"], class_="log")),
            _count(item["count"]),
            _cell(short_change(item["count"], item["previous"] if known else None)),
            _cell(time_text(item["last_seen"])),
        ]
        for item in warnings[:TOP]
    ]
    table = _table("The most frequent warnings", ("Warning", "#Count", "Change", "Last seen"), rows)
    return _section("warnings", "Warnings", table, _more(TOP, len(warnings), "warning"))


def _routes(document: Document) -> Markup:
    heading = "API errors and latency by route"
    routes = sorted(document["routes"], key=lambda route: (-route["errors"], -route["requests"]))
    if not routes:
        return _section("routes", heading, _none("No data: no request of the API was read."))
    slowest = max((route["p99_ms"] or 0 for route in routes), default=0)
    rows = [_route(route, slowest) for route in routes[:_MOST_ROUTES]]
    heads = ("Route", "#Requests", "#Errors", "Answers", "#Median", "#p95", "#p99", "Latency")
    caption = "Errors are answers of 500 and above. Circle: median; bar: p95; triangle: p99, on a logarithmic scale"
    table = _table(caption, heads, rows, [bool(route["errors"]) for route in routes])
    return _section("routes", heading, table, _more(_MOST_ROUTES, len(routes), "route"))


def _route(route: Route, slowest: float) -> list[_Cell]:
    answers = ", ".join(f"{number(count)} \u00d7 {status}" for status, count in sorted(route["statuses"].items()))
    errors = f"{number(route['errors'])} ({share(route['errors'], route['requests'])})" if route["errors"] else "0"
    return [
        _head(foreign(f"{route['method']} {route['route']}", class_="route")),
        _count(route["requests"]),
        _cell(errors, "n mark"),
        _cell(foreign(answers), "long"),
        *(_cell(milliseconds(value), "n") for value in (route["p50_ms"], route["p95_ms"], route["p99_ms"])),
        _cell(plots.latencies(route, slowest), "plot"),
    ]


def _restarts(document: Document) -> Markup:
    restarts = document["restarts"]
    if not restarts:
        return _section("restarts", "Restarts", _no_data(document, "No start of the service in what was read."))
    rows = [
        [
            _head(time_text(item["time"])),
            _cell(foreign(item["unit"])),
            _cell(foreign(item["what"]), "long"),
            _cell("with the deploy" if with_the_deploy(document, item) else "not explained by a deploy", "mark"),
        ]
        for item in restarts[-_MOST_RESTARTS:]
    ]
    trouble = [not with_the_deploy(document, item) for item in restarts[-_MOST_RESTARTS:]]
    table = _table("Starts of the service, as its logs tell them", ("Time, UTC", "Unit", "What", "Why"), rows, trouble)
    return _section("restarts", "Restarts", table, _more(_MOST_RESTARTS, len(restarts), "earlier restart"))


def _notes(document: Document) -> Markup:
    if not document["notes"]:
        return Markup("")
    items = [tag("li", foreign(note)) for note in document["notes"]]
    return _section("notes", "What the numbers cannot say", tag("ul", *items, class_="plain"))


def _footer(document: Document) -> Markup:
    dropped, size = document["totals"]["doubles_dropped"], size_text(document["totals"]["bytes"])
    return tag(
        "footer",
        tag(
            "p",
            f"Made {time_text(document['generated'])} UTC from {size} of logs by fluxmaint, without "
            f"{counted(dropped, 'line')} that double handlers wrote twice. This file needs no network and runs no "
            "script; secrets were blanked out before it was written.",
        ),
    )
