# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counting logs the slow way: line by line, each line read by itself, nothing remembered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fluxmaint.logs import forms
from fluxmaint.logs.counting import Info, Rules
from fluxmaint.logs.forms import Kind, Line
from fluxmaint.logs.latency import bucket
from fluxmaint.logs.times import Times

_CHAIN = ("During handling of the above", "The above exception was the direct")


@dataclass
class Event:
    lines: list[bytes]
    first: Line
    hour: int
    traceback: bool = False
    exception: bytes = b""
    dropped: bool = False


@dataclass
class Totals:
    facts: Counter[tuple[int, str]] = field(default_factory=Counter)
    counts: Counter[tuple[int, str]] = field(default_factory=Counter)
    requests: Counter[tuple[int, str, str, str]] = field(default_factory=Counter)
    latencies: Counter[tuple[int, str, str, int]] = field(default_factory=Counter)
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)


def grouped(lines: Sequence[bytes], fallback: int) -> list[Event]:
    """The events of a log, each with its hour."""
    times, hour, state = Times(), fallback, ""
    events: list[Event] = []
    for line in lines:
        read = forms.parse(line)
        if read.kind is Kind.HEAD:
            found = times.hour(line[read.hour], read.zone) if read.hour != forms.NOWHERE else None
            hour = hour if found is None else found
            events.append(Event([line], read, hour))
            state = ""
            continue
        last = events[-1] if events else None
        text = line.decode("utf-8", "replace")
        belongs = last is not None and read.kind in (Kind.INDENTED, Kind.BLANK)
        group = forms._IN_GROUP.match(line) if read.kind is Kind.INDENTED and state else None
        if group and last is not None and not last.exception:
            last.exception = group["line"]
        if read.kind is Kind.OPENER:
            begun = state in ("", "chain") or line[:1].isspace()
            belongs = last is not None and begun and (last.first.kind is Kind.HEAD)
            state = "open"
        elif read.kind is Kind.STRANGE and state == "open" and forms._LAST_OF_TRACEBACK.match(line):
            belongs, state = True, "ended"
        elif read.kind is Kind.STRANGE and state in ("open", "ended") and text.startswith(_CHAIN):
            belongs, state = True, "chain"
        if belongs and last is not None:
            last.lines.append(line)
            last.traceback = last.traceback or state != ""
            if read.kind is Kind.STRANGE and state == "ended":
                last.exception = line
        elif read.kind is Kind.OPENER:
            events.append(Event([line], Line(Kind.HEAD, level="ERROR"), hour, traceback=True))
        elif read.kind is not Kind.BLANK:
            events.append(Event([line], read, hour))
            state = ""
    return events


def _timed(event: Event) -> bool:
    return event.first.kind is Kind.HEAD and event.first.hour != forms.NOWHERE


def _pair(one: Event, two: Event) -> bool:
    if _timed(one):
        one, two = two, one
    if _timed(one) or not _timed(two) or one.first.kind is not Kind.HEAD or one.first.message is None:
        return False
    if not two.first.logger.startswith("uvicorn") or two.first.message is None or one.lines[1:] != two.lines[1:]:
        return False
    return one.first.level == two.first.level and one.lines[0][one.first.message] == two.lines[0][two.first.message]


def count(lines: Sequence[bytes], fallback: int = 0, rules: Rules | None = None) -> Totals:
    """The totals of a log."""
    rules = rules or Rules()
    events, totals = grouped(lines, fallback), Totals()
    before: Event | None = None
    for event in events:
        if before is not None and event.lines == before.lines and _timed(event):
            event.dropped = True
        before = event
    left = [event for event in events if not event.dropped]
    index = 0
    while index < len(left) - 1:
        one, two = left[index], left[index + 1]
        if _pair(one, two):
            (two if _timed(one) else one).dropped = True
            index += 1
        index += 1
    for event in events:
        if event.dropped:
            totals.facts[event.hour, "doubles_dropped"] += 1
            continue
        if event.first.kind is not Kind.HEAD:
            totals.facts[event.hour, "events"] += 1
            totals.facts[event.hour, "unparsed"] += 1
            continue
        line = event.first
        if event.traceback:
            line = replace(line, traceback=event.exception or forms.TRACEBACK)
        info = Info(line, rules)
        for name in info.counts:
            totals.facts[event.hour, name] += 1
        if info.request:
            totals.requests[(event.hour, *info.request)] += 1
        if info.id:
            totals.counts[event.hour, info.id] += 1
            found = Times().seconds(event.lines[0][line.time], line.zone) if _timed(event) else None
            seconds = event.hour * 3600 if found is None else found
            first, last = totals.seen.get(info.id, (seconds, seconds))
            totals.seen[info.id] = min(first, seconds), max(last, seconds)
        if line.latency is not None and info.request and not event.traceback:
            took = float(event.lines[0][line.latency]) * line.latency_ms
            totals.latencies[event.hour, info.request[0], info.request[1], bucket(took)] += 1
    return totals
