# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drawings of a log report as inline SVG: as wide as there is room, with letters that keep their size.

Horizontal places are shares of the width, vertical ones pixels. Nothing is said by colour alone: series have lanes of
their own, kinds of marks have shapes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

from ..summary import Document, Hour, Route
from .findings import with_the_deploy
from .markup import Markup, join, tag
from .words import counted, day_text, milliseconds, moment, number, time_text

_LANE = 62
_GAP = 30
_AXIS = 22
_MOST_LABELS = 8
_SPARK_BARS = 56
_HEIGHT_SPARK = 26


def hours_chart(document: Document) -> Markup:
    """Errors, warnings and all events in each hour, one lane below the other; restarts and the deploy above them."""
    hours = document["hourly"]
    if not hours:
        return tag("p", "No hour of this period was read: there is nothing to draw.", class_="none")
    series = (
        ("Errors", [hour["errors"] for hour in hours], "bad"),
        ("Warnings", [hour["warnings"] for hour in hours], "warn"),
        ("All events", [hour["events"] for hour in hours], "all"),
    )
    top = 26
    bottom = top + len(series) * (_LANE + _GAP) - _GAP + 18
    parts: list[str] = [_ticks(hours, top, bottom)]
    y = top
    for name, values, kind in series:
        y += 18
        parts += [_lane_title(name, values, hours, y - 6), _bars(values, y, _LANE, kind), _base(y + _LANE)]
        y += _LANE + _GAP - 18
    silent = [index for index, hour in enumerate(hours) if not hour["events"]]
    parts += [_silent(run, len(hours), bottom) for run in _runs(silent)]
    parts.append(_marks(document, bottom))
    described = (
        f"{counted(len(hours), 'hour')} from {time_text(hours[0]['hour'])} UTC. "
        + " ".join(f"{name}: {_peak(values, hours)}." for name, values, _kind in series)
        + (f" {counted(len(silent), 'hour')} without any event." if silent else "")
    )
    return tag(
        "svg",
        _pattern(),
        tag("title", "Errors, warnings and events by the hour"),
        tag("desc", described),
        *parts,
        class_="chart",
        role="img",
        width="100%",
        height=bottom + _AXIS,
    )


def _peak(values: Sequence[int], hours: Sequence[Hour]) -> str:
    if not any(hour["events"] for hour in hours):
        return "no data"
    most = max(values)
    return f"at most {number(most)} an hour, {time_text(hours[values.index(most)]['hour'])}" if most else "none"


def _lane_title(name: str, values: Sequence[int], hours: Sequence[Hour], y: float) -> Markup:
    return join(
        tag("text", name, x="0", y=str(y), class_="lane"),
        tag("text", _peak(values, hours), x="100%", y=str(y), class_="peak", text_anchor="end"),
    )


def _bars(values: Sequence[int], y: float, height: float, kind: str) -> Markup:
    most = max(values, default=0)
    if not most:
        return Markup("")
    width = 100 / len(values)
    drawn = []
    for index, value in enumerate(values):
        if value:
            tall = max(1.5, height * value / most)
            drawn.append(_rect(index * width, y + height - tall, width * 0.84, tall, f"bar {kind}"))
    return join(*drawn)


def _rect(left: float, y: float, width: float, height: float, kind: str) -> Markup:
    return tag("rect", x=f"{left:.3f}%", y=f"{y:.1f}", width=f"{width:.3f}%", height=f"{height:.1f}", class_=kind)


def _base(y: float) -> Markup:
    return tag("line", x1="0", x2="100%", y1=f"{y + 0.5:.1f}", y2=f"{y + 0.5:.1f}", class_="base")


def _runs(indices: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of neighbours among ascending numbers: where each begins, and how long it is."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and sum(runs[-1]) == index:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((index, 1))
    return runs


def _silent(run: tuple[int, int], hours: int, bottom: float) -> Markup:
    """Hours without an event: hatched from top to bottom, because an empty place looks like good news."""
    return _rect(100 * run[0] / hours, 26, 100 * run[1] / hours, bottom - 26, "silent")


def _pattern() -> Markup:
    line = tag("path", d="M-2 2L2 -2M0 8L8 0M6 10L10 6", class_="hatch")
    return tag("defs", tag("pattern", line, id="hatch", width="8", height="8", patternUnits="userSpaceOnUse"))


def _ticks(hours: Sequence[Hour], top: float, bottom: float) -> Markup:
    """A line at each midnight with its day below, or every six hours of at most two days; not more than fit."""
    short = len(hours) <= 48
    marks: list[tuple[int, str]] = []
    for index, hour in enumerate(hours):
        when = moment(hour["hour"])
        if when is not None and when.hour % (6 if short else 24) == 0:
            marks.append((index, f"{when:%H:%M}" if short else day_text(when)))
    step = math.ceil(len(marks) / _MOST_LABELS) or 1
    drawn: list[str] = []
    for index, text in marks[::step]:
        place = f"{100 * index / len(hours):.3f}%"
        drawn.append(tag("line", x1=place, x2=place, y1=str(top), y2=str(bottom + 4), class_="tick"))
        drawn.append(tag("text", text.rsplit(" ", 1)[0] if not short else text, x=place, y=str(bottom + 17), dx="3"))
    return join(*drawn)


def _marks(document: Document, bottom: float) -> Markup:
    """Triangles for restarts, a flag for the deploy; each has a tooltip."""
    begin, end = moment(document["period"]["begin"]), moment(document["period"]["end"])
    if begin is None or end is None or end <= begin:
        return Markup("")

    def place(text: str) -> str | None:
        when = moment(text)
        if when is None or not begin - timedelta(seconds=1) <= when < end:
            return None
        return f"{100 * ((when - begin) / (end - begin)):.3f}%"

    drawn: list[str] = []
    release = document["release"]
    at = place(release["deployed"]) if release else None
    if release and at:
        told = tag("title", f"{time_text(release['deployed'])} UTC: deploy of {release['current']}")
        late = float(at.rstrip("%")) > 80
        drawn += [
            tag("line", x1=at, x2=at, y1="6", y2=str(bottom), class_="deploy"),
            tag("svg", tag("path", told, d="M0 4H12L8 9L12 14H0Z", class_="flag"), x=at, y="0", overflow="visible"),
            tag("text", "deploy", x=at, y="14", dx="-5" if late else "16", text_anchor="end" if late else None),
        ]
    for restart in document["restarts"]:
        at = place(restart["time"])
        if at:
            told = tag("title", f"{time_text(restart['time'])} UTC: {restart['unit']}: {restart['what']}")
            kind = "restart planned" if with_the_deploy(document, restart) else "restart"
            shape = tag("path", told, d="M0 15L6 25H-6Z", class_=kind)
            drawn.append(tag("svg", shape, x=at, y="0", overflow="visible"))
    return join(*drawn)


def spark(hourly: dict[str, int], hours: Sequence[Hour]) -> Markup:
    """How a message is spread over the period, in a few bars."""
    values = [hourly.get(hour["hour"], 0) for hour in hours]
    if not any(values):
        return Markup("")
    wide = math.ceil(len(values) / _SPARK_BARS)
    sums = [sum(values[index : index + wide]) for index in range(0, len(values), wide)]
    told = f"By the hour: {_peak(values, hours)}"
    return tag(
        "svg",
        tag("title", told),
        _bars(sums, 0, _HEIGHT_SPARK, "all"),
        _base(_HEIGHT_SPARK),
        class_="spark",
        role="img",
        width="100%",
        height=_HEIGHT_SPARK + 1,
    )


def pair_of_bars(now: int, before: int, most: int) -> Markup:
    """This period filled, the one before hollow; the numbers stand beside it."""
    bars = [
        _rect(0, y, max(0.5, 100 * value / most), height, kind)
        for value, y, height, kind in ((now, 1, 11, "bar bad"), (before, 14, 5, "bar before"))
        if value and most
    ]
    return tag("svg", *bars, class_="pair", width="100%", height=20, aria_hidden="true")


def latencies(route: Route, slowest: float) -> Markup:
    """A line from the median (circle) over p95 (bar) to p99 (triangle), on a logarithmic scale up to `slowest` ms."""
    values = [route["p50_ms"], route["p95_ms"], route["p99_ms"]]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return Markup("")

    def place(value: float) -> float:
        return 4 + 90 * math.log1p(max(0.0, value)) / (math.log1p(slowest) or 1)

    median, high, highest = (f"{place(value):.2f}%" for value in known)
    told = f"median {milliseconds(known[0])}, p95 {milliseconds(known[1])}, p99 {milliseconds(known[2])}"
    return tag(
        "svg",
        tag("title", told),
        tag("line", x1=median, x2=highest, y1="10", y2="10", class_="range"),
        tag("circle", cx=median, cy="10", r="4", class_="p50"),
        tag("line", x1=high, x2=high, y1="4", y2="16", class_="p95"),
        tag("svg", tag("path", d="M0 4L6 15H-6Z", class_="p99"), x=highest, y="0", overflow="visible"),
        class_="latency",
        role="img",
        width="100%",
        height=20,
    )
