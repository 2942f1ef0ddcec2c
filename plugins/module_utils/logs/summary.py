# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data document of a log report, format 1: what a period of the service's logs says, as plain JSON.

Everything that is shown to people (HTML, text) is made from this document alone. Times are UTC texts such as
`2026-01-05T14:03:22Z`; an hour is the time of its beginning. Texts come from logs: they are redacted, without control
characters, and otherwise hostile; whoever renders them escapes them.
"""

from __future__ import annotations

from typing import TypedDict

FORMAT = 1


class Period(TypedDict):
    """From `begin` up to but not including `end`."""

    begin: str
    end: str


class Release(TypedDict):
    """The release that runs, since when, and the one before it; `previous` is empty when none is known."""

    current: str
    deployed: str
    previous: str


class Gap(TypedDict):
    """What is missing from a source: between the times `after` and `before`, where they are known (else empty)."""

    file: str
    reason: str
    after: str
    before: str


class Source(TypedDict):
    """What was read from one source, in the report's period.

    `kind` is `file` or `journal`. `events` are lines, or tracebacks with all their lines, without the doubles that
    were dropped. `unparsed` are those of the events that no known form fits; up to three stand in `unparsed_samples`.
    `files` counts the files of the source that have been read so far, whatever the period.
    """

    name: str
    kind: str
    files: int
    bytes_read: int
    events: int
    unparsed: int
    doubles_dropped: int
    gaps: list[Gap]
    unparsed_samples: list[str]


class Totals(TypedDict):
    """Counts of events; an event may count in several of them. `bytes` are those of the lines read."""

    events: int
    errors: int
    warnings: int
    tracebacks: int
    failed_trades: int
    api_errors: int
    requests: int
    restarts: int
    unparsed: int
    doubles_dropped: int
    bytes: int


class Hour(TypedDict):
    """One hour of the period; hours without an event are in the list too. `errors` includes critical ones."""

    hour: str
    events: int
    errors: int
    warnings: int


class ErrorType(TypedDict):
    """Errors of one type: the exception's class where there is one, else the logger. `previous`: the period before."""

    type: str
    count: int
    previous: int


class Message(TypedDict):
    """Events that are the same but for numbers, ids, times and symbols.

    `text` has `<n>`, `<id>`, `<time>` ... in their places. `level` is CRITICAL, ERROR, WARNING, INFO, DEBUG, or
    UNKNOWN. `type` is as in ErrorType. `first_seen` and `last_seen` are over everything ever read; `count`, `hourly`
    and `previous` as their names say, within the periods. `release` is the one that ran when the message was first
    seen, empty when that is not known. `new_since_deploy` says that it was first seen after the present release began.
    The fingerprint `other` stands for the messages beyond the number that is kept apart.
    """

    fingerprint: str
    level: str
    text: str
    type: str
    count: int
    previous: int
    first_seen: str
    last_seen: str
    hourly: dict[str, int]
    samples: list[str]
    release: str
    new_since_deploy: bool


class Route(TypedDict):
    """Requests of one route of the API, ids in its path replaced. `errors` are answers of 500 and above.

    Latencies are None where the log has none; else within `LATENCY_ERROR` of the true percentile.
    """

    method: str
    route: str
    requests: int
    errors: int
    statuses: dict[str, int]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Restart(TypedDict):
    """A start of the service, as its logs tell it; `unit` is the source's name where no unit is known."""

    time: str
    unit: str
    what: str


class Document(TypedDict):
    """The whole report. `messages` are sorted by severity, then by count, the most first.

    `previous_period` is as long as `period` and ends where it begins; `previous_totals` is None when nothing had been
    read of it. `release` is None when none is known. `notes` are sentences for people: what the numbers cannot say.
    """

    format: int
    service: str
    host: str
    generated: str
    period: Period
    previous_period: Period
    release: Release | None
    sources: list[Source]
    totals: Totals
    previous_totals: Totals | None
    hourly: list[Hour]
    errors_by_type: list[ErrorType]
    messages: list[Message]
    routes: list[Route]
    restarts: list[Restart]
    notes: list[str]
