# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data document of a log report, format 1: what a period of the service's logs says, as plain JSON.

Everything that is shown to people (HTML, text) is made from this document alone. Times are UTC texts such as
`2026-01-05T14:03:22Z`; an hour is the time of its beginning. Texts come from logs: they are redacted, without control
characters, and otherwise hostile; whoever renders them escapes them.
"""

from __future__ import annotations

import fnmatch
import json
import math
import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Any, TypedDict

from ..core.clock import Clock, from_timestamp, utc_text
from ..core.config import Config
from ..core.errors import InputError, PreconditionError
from ..sqlite.connect import reading
from .fingerprint import OTHER
from .forms import LEVELS
from .latency import percentile
from .reading import database_file
from .redaction import shown

FORMAT = 1
DAYS = 7


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
    `files` counts the files of the source that have been read so far, whatever the period. A pattern of the contract
    that no file has ever fitted, and a unit whose journal was never read, are sources too: their names, and no event.
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
    The fingerprint `other` stands for the messages beyond the number that is kept apart. Requests are messages only
    from the level WARNING on; all of them are in `routes`.
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


def summarise(
    config: Config,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    clock: Clock | None = None,
) -> Document:
    """The document of a period: by default the seven days before now, from the totals that `reading.read` has stored.

    Args:
        since, until: the period; whole hours count, the ones in which it begins and ends included.

    Raises InputError for a period that is none, and PreconditionError when nothing was ever read.
    """
    clock = clock or Clock()
    end = until or clock.now()
    begin = since or end - timedelta(days=DAYS)
    if begin >= end:
        raise InputError(f"the period from {utc_text(begin)} to {utc_text(end)} holds nothing")
    path = database_file(config)
    if not path.exists():
        raise PreconditionError(
            "no log was read yet on this host", subject=str(path), remedy="run fluxmaint logs read first"
        )
    with reading(path) as con:
        return _Summary(config, con, begin, end).document(utc_text(clock.now()))


class _Hours:
    """Whole hours since 1970, from `first` up to but not including `end`."""

    def __init__(self, first: int, end: int) -> None:
        self.first, self.end = first, end

    @property
    def period(self) -> Period:
        return {"begin": _text(self.first * 3600), "end": _text(self.end * 3600)}


class _Summary:
    """Reads one document's numbers."""

    def __init__(self, config: Config, con: sqlite3.Connection, begin: datetime, end: datetime) -> None:
        self._config = config
        self._con = con
        con.execute("BEGIN")  # one state of the totals for every number
        first, last = math.floor(begin.timestamp() / 3600), math.ceil(end.timestamp() / 3600)
        self._now = _Hours(first, last)
        self._before = _Hours(2 * first - last, first)
        self._releases = [
            (str(name), int(deployed))
            for name, deployed in con.execute("SELECT name, deployed FROM releases ORDER BY deployed, rowid")
        ]

    def document(self, generated: str) -> Document:
        """The whole document."""
        totals, before = self._totals(self._now), self._totals(self._before)
        messages = self._messages()
        sources = self._sources()
        return {
            "format": FORMAT,
            "service": self._config.service,
            "host": self._config.host,
            "generated": generated,
            "period": self._now.period,
            "previous_period": self._before.period,
            "release": self._release(),
            "sources": sources,
            "totals": totals,
            "previous_totals": before if any(before.values()) else None,
            "hourly": self._hourly(),
            "errors_by_type": _errors_by_type(messages),
            "messages": [message for message in messages if message["count"]],
            "routes": self._routes(),
            "restarts": self._restarts(),
            "notes": self._notes(sources, totals),
        }

    def _rows(self, statement: str, hours: _Hours, *values: Any) -> list[Any]:
        return self._con.execute(statement, (hours.first, hours.end, *values)).fetchall()

    def _totals(self, hours: _Hours) -> Totals:
        found = dict(self._rows("SELECT name, sum(count) FROM facts WHERE hour >= ? AND hour < ? GROUP BY name", hours))
        return {
            "events": found.get("events", 0),
            "errors": found.get("errors", 0),
            "warnings": found.get("warnings", 0),
            "tracebacks": found.get("tracebacks", 0),
            "failed_trades": found.get("failed_trades", 0),
            "api_errors": found.get("api_errors", 0),
            "requests": found.get("requests", 0),
            "restarts": found.get("restarts", 0),
            "unparsed": found.get("unparsed", 0),
            "doubles_dropped": found.get("doubles_dropped", 0),
            "bytes": found.get("bytes", 0),
        }

    def _release(self) -> Release | None:
        if not self._releases:
            return None
        current, deployed = self._releases[-1]
        others = [name for name, _deployed in self._releases if name != current]
        return {"current": current, "deployed": _text(deployed), "previous": others[-1] if others else ""}

    def _sources(self) -> list[Source]:
        sources: list[Source] = []
        for number, kind, name in self._con.execute(
            "SELECT id, kind, name FROM sources ORDER BY kind, name"
        ).fetchall():
            facts = dict(
                self._rows(
                    "SELECT name, sum(count) FROM facts WHERE hour >= ? AND hour < ? AND source = ? GROUP BY name",
                    self._now,
                    number,
                )
            )
            files = self._con.execute(
                "SELECT count(*) FROM streams WHERE source = ? AND NOT gone", (number,)
            ).fetchone()
            samples = self._con.execute("SELECT text FROM unparsed WHERE source = ? ORDER BY rowid DESC", (number,))
            sources.append(
                {
                    "name": name,
                    "kind": kind,
                    "files": files[0] if kind == "file" else 0,
                    "bytes_read": facts.get("bytes", 0),
                    "events": facts.get("events", 0),
                    "unparsed": facts.get("unparsed", 0),
                    "doubles_dropped": facts.get("doubles_dropped", 0),
                    "gaps": self._gaps(number),
                    "unparsed_samples": [row[0] for row in samples] if facts.get("unparsed") else [],
                }
            )
        wanted = self._config.logs
        if wanted is not None:
            files = [source["name"] for source in sources if source["kind"] == "file"]
            units = [source["name"] for source in sources if source["kind"] == "journal"]
            lacking = [("file", name) for name in wanted.patterns if not any(_fits(file, name) for file in files)]
            lacking += [("journal", unit) for unit in wanted.journal_units if unit not in units]
            sources += [_nothing(kind, name) for kind, name in dict.fromkeys(lacking)]
        return sources

    def _gaps(self, source: int) -> list[Gap]:
        """Those that touch the period, or of which only is known that they were noticed in it."""
        rows = self._con.execute(
            "SELECT file, reason, after, before FROM gaps WHERE source = ?1"
            " AND coalesce(after, noticed) < ?3 AND coalesce(before, noticed) >= ?2 ORDER BY rowid",
            (source, self._now.first * 3600, self._now.end * 3600),
        )
        return [
            {"file": file, "reason": reason, "after": _text(after), "before": _text(before)}
            for file, reason, after, before in rows
        ]

    def _hourly(self) -> list[Hour]:
        names = ("events", "errors", "warnings")
        found: dict[int, dict[str, int]] = {}
        for hour, name, count in self._rows(
            "SELECT hour, name, sum(count) FROM facts WHERE hour >= ? AND hour < ? GROUP BY hour, name", self._now
        ):
            found.setdefault(hour, {})[name] = count
        hours: list[Hour] = []
        for hour in range(self._now.first, self._now.end):
            events, errors, warnings = (found.get(hour, {}).get(name, 0) for name in names)
            hours.append({"hour": _text(hour * 3600), "events": events, "errors": errors, "warnings": warnings})
        return hours

    def _messages(self) -> list[Message]:
        """Every message of the two periods; those of the earlier one alone have the count 0."""
        statement = "SELECT message, hour, count FROM counts WHERE hour >= ? AND hour < ? ORDER BY hour"
        hourly: dict[int, dict[str, int]] = {}
        for number, hour, count in self._rows(statement, self._now):
            hourly.setdefault(number, {})[_text(hour * 3600)] = count
        previous: Counter[int] = Counter()
        for number, _hour, count in self._rows(statement, self._before):
            previous[number] += count
        messages: list[Message] = []
        deployed = self._releases[-1][1] if self._releases else None
        for number, name, level, kind, text, first, last, samples in self._con.execute(
            "SELECT id, fingerprint, level, type, text, first_time, last_time, samples FROM messages ORDER BY id"
        ):
            if number not in hourly and number not in previous:
                continue
            by_hour = hourly.get(number, {})
            messages.append(
                {
                    "fingerprint": name,
                    "level": level,
                    "text": text,
                    "type": kind,
                    "count": sum(by_hour.values()),
                    "previous": previous[number],
                    "first_seen": _text(first),
                    "last_seen": _text(last),
                    "hourly": by_hour,
                    "samples": json.loads(samples),
                    "release": self._release_at(first),
                    "new_since_deploy": deployed is not None and first >= deployed and name != OTHER,
                }
            )
        return sorted(messages, key=lambda message: (LEVELS.index(message["level"]), -message["count"]))

    def _release_at(self, seconds: int) -> str:
        return next((name for name, deployed in reversed(self._releases) if deployed <= seconds), "")

    def _routes(self) -> list[Route]:
        buckets: dict[tuple[str, str], dict[int, int]] = {}
        for method, route, number, count in self._rows(
            "SELECT method, route, bucket, sum(count) FROM latencies WHERE hour >= ? AND hour < ? GROUP BY 1, 2, 3",
            self._now,
        ):
            buckets.setdefault((method, route), {})[number] = count
        statuses: dict[tuple[str, str], dict[str, int]] = {}
        for method, route, status, count in self._rows(
            "SELECT method, route, status, sum(count) FROM requests WHERE hour >= ? AND hour < ? GROUP BY 1, 2, 3",
            self._now,
        ):
            statuses.setdefault((method, route), {})[status] = count
        routes: list[Route] = []
        for (method, route), counts in statuses.items():
            durations = buckets.get((method, route), {})
            routes.append(
                {
                    "method": method,
                    "route": route,
                    "requests": sum(counts.values()),
                    "errors": sum(count for status, count in counts.items() if status >= "500"),
                    "statuses": counts,
                    "p50_ms": percentile(durations, 0.50),
                    "p95_ms": percentile(durations, 0.95),
                    "p99_ms": percentile(durations, 0.99),
                }
            )
        return sorted(routes, key=lambda route: (-route["errors"], -route["requests"], route["route"]))

    def _restarts(self) -> list[Restart]:
        rows = self._con.execute(
            "SELECT time, sources.name, what FROM restarts JOIN sources ON sources.id = source"
            " WHERE time >= ? AND time < ? ORDER BY time",
            (self._now.first * 3600, self._now.end * 3600),
        )
        return [{"time": _text(time), "unit": unit, "what": what} for time, unit, what in rows]

    def _notes(self, sources: list[Source], totals: Totals) -> list[str]:
        notes = [
            f"{count_text(source['unparsed'], 'event')} of {source['name']} fit no known form"
            for source in sources
            if source["unparsed"]
        ]
        notes += [f"{source['name']} has a gap: {gap['reason']}" for source in sources for gap in source["gaps"]]
        untimed = self._rows(
            "SELECT coalesce(sum(count), 0) FROM facts WHERE hour >= ? AND hour < ? AND name = 'untimed'", self._now
        )[0][0]
        if untimed:
            notes.append(
                f"{count_text(untimed, 'event')} had no time of their own and count at the time of the line before"
            )
        if totals["doubles_dropped"]:
            notes.append(f"{count_text(totals['doubles_dropped'], 'event')} stood there twice and count once")
        oldest = self._con.execute("SELECT min(hour) FROM facts").fetchone()[0]
        if oldest is None:
            notes.append("no log was read: nothing here means that nothing happened")
        elif oldest > self._before.first:
            notes.append(f"what was read begins at {_text(oldest * 3600)}; earlier hours are not empty but unknown")
        logs = self._config.logs
        coarse = self._now.end - (logs.hourly_days * 24 if logs else 0)
        if self._con.execute(
            "SELECT 1 FROM facts WHERE hour >= ? AND hour < ? AND hour < ?", (self._now.first, self._now.end, coarse)
        ).fetchone():
            notes.append("older hours are kept by the day: their counts stand in the first hour of it")
        return notes


def _fits(name: str, pattern: str) -> bool:
    """Whether a pattern finds a file of this name below the log directory."""

    def fit(parts: Sequence[str], wanted: Sequence[str]) -> bool:
        if not parts or not wanted:
            return not parts and all(part == "**" for part in wanted)
        if wanted[0] == "**":
            return fit(parts, wanted[1:]) or fit(parts[1:], wanted)
        return fnmatch.fnmatchcase(parts[0], wanted[0]) and fit(parts[1:], wanted[1:])

    return fit(PurePosixPath(name).parts, PurePosixPath(pattern).parts)


def _nothing(kind: str, name: str) -> Source:
    """What the contract names, and nobody has ever read: no data, which must not look like silence."""
    return {
        "name": shown(name),
        "kind": kind,
        "files": 0,
        "bytes_read": 0,
        "events": 0,
        "unparsed": 0,
        "doubles_dropped": 0,
        "gaps": [],
        "unparsed_samples": [],
    }


def _errors_by_type(messages: list[Message]) -> list[ErrorType]:
    now: Counter[str] = Counter()
    before: Counter[str] = Counter()
    for message in messages:
        if message["level"] in ("CRITICAL", "ERROR"):
            now[message["type"]] += message["count"]
            before[message["type"]] += message["previous"]
    found: list[ErrorType] = [{"type": kind, "count": now[kind], "previous": before[kind]} for kind in before]
    return sorted(found, key=lambda item: (-item["count"], -item["previous"], item["type"]))


def count_text(count: int, noun: str) -> str:
    """Such as `1 event` or `3 events`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _text(seconds: int | None) -> str:
    return "" if seconds is None else utc_text(from_timestamp(seconds))
