# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count the events of a log at the speed of memory.

Lines that are the same but for their digits are the same to every reader here (`forms`, `fingerprint`, `redaction`).
So the digits of a whole block become zeros at once, its lines are counted at once, and only one line of each kind is
really read; what it is stays known for the next block. Only where digits decide (a status, a duration, the start of
the service) is each line looked at, at a place that is known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timezone, tzinfo
from itertools import accumulate, compress
from operator import eq, ne

from . import forms
from .fingerprint import fingerprint, masked, normalise, route
from .forms import Following, Kind, Line
from .latency import bucket
from .redaction import clean
from .times import Times

SAMPLES = 3
_MOST_SAMPLE = 2000
_MOST_SAMPLE_LINES = 30
# What is known of lines is forgotten when it takes so much.
_MOST_KNOWN = 300_000
_MOST_KNOWN_BYTES = 32_000_000
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_DIGITS_IN_NAMES = re.compile(r"\d+")


@dataclass(frozen=True)
class Rules:
    """What the service's logs mean: patterns that are searched in normalised messages, and their time zone."""

    failed_trade: str = "Trade execution failed"
    api_error: str = "API request failed"
    restart: str = "Started server process"
    zone: tzinfo = timezone.utc


@dataclass
class Message:
    """A normalised message in a tally: when it was seen first and last, in seconds since 1970, and samples of it."""

    level: str
    type: str
    text: str
    first: int
    last: int
    samples: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """What has been counted and is not stored yet.

    `facts` are counts by hour since 1970 and name: events, errors, warnings, tracebacks, failed_trades, api_errors,
    requests, restarts, unparsed, doubles_dropped, untimed, bytes.
    """

    facts: Counter[tuple[int, str]] = field(default_factory=Counter)
    counts: Counter[tuple[int, str]] = field(default_factory=Counter)
    messages: dict[str, Message] = field(default_factory=dict)
    requests: Counter[tuple[int, str, str, str]] = field(default_factory=Counter)
    latencies: Counter[tuple[int, str, str, int]] = field(default_factory=Counter)
    restarts: list[tuple[int, str]] = field(default_factory=list)
    unparsed: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return len(self.counts) + len(self.requests) + len(self.latencies) + len(self.restarts)


class Info:
    """What is known of all lines of one kind."""

    __slots__ = (
        "apart", "counts", "decides", "hour", "id", "kind", "latency", "latency_ms", "level", "loose",
        "message", "plain", "request", "restart", "single", "text", "time", "timed", "type", "uvicorn", "zone",
    )  # fmt: skip

    def __init__(self, line: Line, rules: Rules) -> None:
        self.kind = line.kind
        self.loose = line.kind is not Kind.HEAD
        self.timed = line.hour != forms.NOWHERE
        self.hour, self.time, self.zone = line.hour, line.time, line.zone
        self.message = line.message
        self.decides = line.decides
        self.latency, self.latency_ms = line.latency, line.latency_ms
        self.uvicorn = line.logger.startswith("uvicorn")
        # As uvicorn's own handler writes it: without a time, or with that of systemd's journal alone.
        self.plain = not self.loose and (not self.timed or line.logger == forms.JOURNAL)
        self.level = line.level
        self.request = (line.method, route(line.target), line.status) if line.status else None
        self.text = normalise(line.text)
        self.restart = bool(re.search(rules.restart, self.text))
        self.type = _type(line)
        names = ["events"]
        serious = line.level in ("CRITICAL", "ERROR", "WARNING")
        if line.traceback:
            last = normalise(line.traceback)
            self.text = _with_cause(self.text, last)
            names.append("tracebacks")
        if line.level in ("CRITICAL", "ERROR"):
            names.append("errors")
        if line.level == "WARNING":
            names.append("warnings")
        if self.request:
            names.append("requests")
        if self.restart:
            names.append("restarts")
        if re.search(rules.failed_trade, self.text):
            names.append("failed_trades")
        if re.search(rules.api_error, self.text):
            names.append("api_errors")
        self.counts = tuple(names)
        self.id = "" if self.request and not serious else fingerprint(self.level, self.type, self.text)
        # Whether each of its lines has to be looked at.
        self.single = not self.loose and (self.decides is not None or self.latency is not None or self.restart)
        self.apart = self.loose or self.single


def _with_cause(text: str, last: str) -> str:
    return text if not last or last in text else f"{text} [{last}]" if text else last


def _type(line: Line) -> str:
    """The class of the exception that an event is about, else its logger; without digits that could differ."""
    found = forms.error_type(line.traceback.decode("utf-8", "replace")) or _class_of(line.traceback)
    found = found or forms.error_type(line.text[:1000].decode("utf-8", "replace")) or line.logger[:100]
    return _DIGITS_IN_NAMES.sub("<n>", found.replace("sqlite3.", "sqlite<n>.")).replace("sqlite<n>.", "sqlite3.")


def _class_of(last: bytes) -> str:
    """The name before the colon in the last line of a traceback, such as `KeyboardInterrupt`."""
    name = last.partition(b":")[0].strip().decode("utf-8", "replace")
    return name if name.replace(".", "").isidentifier() else ""


class Counting:
    """Counts blocks of lines of one log, one after the other, into `tally`.

    Args:
        fallback: the hour since 1970 of lines before the first one with a time.
        begun: whether lines of the log have been counted before.
    """

    def __init__(self, rules: Rules) -> None:
        self.tally = Tally()
        self._rules = rules
        self._times = Times(rules.zone)
        self._infos: dict[bytes, Info] = {}
        self._hours: dict[bytes, slice] = {}
        self._loose: set[bytes] = set()
        self._bare: set[bytes] = set()
        self._single: set[bytes] = set()
        self._templates: dict[bytes, Info] = {}
        self._decided: dict[tuple[bytes, bytes], Info] = {}
        self._caused: dict[tuple[bytes, bytes, bytes], Info] = {}
        self._forget()
        self.begin(0, "", begun=False)

    def begin(self, fallback: int, last_hour: str, *, begun: bool) -> None:
        """Go to another log, or to a place in it.

        Args:
            fallback: the hour since 1970 of lines before the first one with a time.
            last_hour: what `last_hour` was behind the line before.
            begun: whether lines of the log have been counted before.
        """
        self._fallback = fallback
        self._following = Following()
        self._begun = begun
        text, _separator, zone = last_hour.partition("|")
        self._text = text.encode()
        self._zone = int(zone) if zone else None

    @property
    def last_hour(self) -> str:
        """The hour of the newest line with a time, to go on from later; empty when there was none."""
        return f"{self._text.decode()}|{'' if self._zone is None else self._zone}" if self._text else ""

    def separable(self, before: bytes, line: bytes) -> bool:
        """Whether two lines can be counted apart: each is an event's first line, and they are no doubles."""
        first, second = self.info(before), self.info(line)
        if first.loose or second.loose or line == before:
            return False
        return first.plain == second.plain or not self._pair(first, before, second, line)

    def seconds(self, line: bytes) -> int | None:
        """The time of a line, in seconds since 1970; None when it has none."""
        info = self.info(line)
        if info.decides is not None and info.decides != slice(None):
            info = Info(forms.parse(line), self._rules)
        return self._times.seconds(line[info.time], info.zone) if info.timed else None

    def info(self, line: bytes) -> Info:
        """What is known of a line, which is read when it is the first of its kind."""
        key = line.translate(_DIGITS)
        if key not in self._infos:
            self._learn({key}, [key], [line])
        return self._infos[key]

    def too_long(self, beginning: bytes) -> None:
        """Count a line that is too long to be held; `beginning` is enough of it for a sample."""
        self._begun = True
        self._following.head()
        self._strange(_Hours(self._times, self._fallback, only=self._text).at(0, self._zone), [beginning])

    def block(self, block: bytes) -> None:
        """Count lines, which are separated by line feeds, from the beginning of an event up to the end of one."""
        lines = block.split(b"\n")
        keys = block.translate(_DIGITS).split(b"\n")
        counts = Counter(keys)
        self._learn(counts.keys() - self._infos.keys(), keys, lines)
        loose = counts.keys() & self._loose
        events = self._grouped(lines, keys, loose)
        doubles = self._doubles(events, lines, keys, loose, counts.keys() & self._bare)
        hours = self._hours_of(lines, keys)
        for index in doubles:
            self.tally.facts[hours.at(index, self._zone), "doubles_dropped"] += 1
            events.traces.pop(index, None)
        for index in events.strange:
            self._strange(hours.at(index, self._zone), events.of(index, lines))
        for index, last in events.traces.items():
            self._traceback(keys[index], events.of(index, lines), last, hours, index)
        single = counts.keys() & self._single
        # What has been counted by itself is not counted with the others: it becomes a blank line.
        for index in [*doubles, *events.traces]:
            counts[keys[index]] -= 1
            keys[index] = b""
        if single:
            self._singles([index for index, key in enumerate(keys) if key in single], keys, lines, hours)
        if hours.only is not None:
            self._add(counts, hours.only, keys, lines)
        else:
            for begin, end in hours.runs():
                part = keys[begin:end]
                self._add(Counter(part), hours.texts[begin], part, lines[begin:end])
        self.tally.facts[hours.at(-1, self._zone), "bytes"] += len(block) + 1
        self._text = hours.text(-1)
        self._fallback = hours.at(-1, self._zone)
        if len(self._infos) > _MOST_KNOWN or self._known_bytes > _MOST_KNOWN_BYTES:
            self._forget()

    def _forget(self) -> None:
        for known in (self._infos, self._hours, self._loose, self._bare, self._single, self._templates):
            known.clear()
        self._decided.clear()
        self._caused.clear()
        self._known_bytes = 0
        self._learn([b""], [b""], [b""])

    def _learn(self, new: Iterable[bytes], keys: Sequence[bytes], lines: Sequence[bytes]) -> None:
        """Read the first line of each new kind."""
        ordered = list(new)
        if not ordered:
            return
        first = dict(zip(reversed(keys), reversed(lines)))
        for key, mask in zip(ordered, masked(b"\n".join(ordered)).split(b"\n")):
            info = self._templates.get(mask)
            if info is None:
                info = self._templates[mask] = Info(forms.parse(first[key]), self._rules)
            self._infos[key] = info
            self._hours[key] = info.hour
            if info.loose:
                self._loose.add(key)
            elif info.plain:
                self._bare.add(key)
            if info.single:
                self._single.add(key)
            self._known_bytes += len(key) + len(mask)

    def _grouped(self, lines: Sequence[bytes], keys: Sequence[bytes], loose: set[bytes]) -> _Events:
        """Find which lines belong to the event before them."""
        events = _Events()
        begin = -1 if self._begun else None  # an event of the block before
        self._begun = True
        closed = {-1}
        expected = 0
        for index in [index for index, key in enumerate(keys) if key in loose] if loose else []:
            if index != expected:
                self._following.head()
                begin = index - 1
            expected = index + 1
            kind, line = self._infos[keys[index]].kind, lines[index]
            # A traceback never becomes part of a line that is not understood, nor of what has been counted before.
            alone = begin is None or (kind is Kind.OPENER and not self._following.in_traceback and begin in closed)
            if not alone and self._following.belongs(kind, line):
                if begin is not None and begin >= 0:
                    events.extend(begin, index + 1)
                    if self._following.in_traceback:
                        events.traces[begin] = self._following.last
                continue
            if kind is Kind.BLANK:
                continue
            self._following.head()
            begin = index
            events.extend(begin, index + 1)
            if kind is Kind.OPENER:
                self._following.belongs(kind, line)
                events.traces[begin] = b""
            else:
                events.strange.append(begin)
                closed.add(begin)
        if expected != len(lines):
            self._following.head()
        return events

    def _doubles(
        self, events: _Events, lines: list[bytes], keys: list[bytes], loose: set[bytes], bare: set[bytes]
    ) -> set[int]:
        """The events that are there twice, by their first lines.

        Two handlers write the same line twice; or uvicorn's own handler, without a time, and another with one.
        """
        dropped: set[int] = set()
        same = list(map(eq, lines[1:], lines))
        if True in same:
            for index in compress(range(1, len(lines)), same):
                if index not in events.ends and keys[index] not in loose and keys[index] not in bare:
                    dropped.add(index)
        for begin, end in events.ends.items():
            before = events.starts.get(begin)
            timed = keys[begin] not in loose and keys[begin] not in bare
            if timed and before is not None and lines[before:begin] == lines[begin:end]:
                dropped.add(begin)
        if bare:
            self._pairs(events, lines, keys, bare, dropped)
        return dropped

    def _pairs(
        self, events: _Events, lines: list[bytes], keys: list[bytes], bare: set[bytes], dropped: set[int]
    ) -> None:
        paired: set[int] = set()
        for index in [index for index, key in enumerate(keys) if key in bare]:
            before = events.before(index)
            while before in dropped:
                before = events.before(before)
            after = events.after(index)
            while after in dropped:
                after = events.after(after)
            for other in (before, after):
                if 0 <= other < len(lines) and other not in paired:
                    one, two = self._infos[keys[index]], self._infos[keys[other]]
                    if self._pair(one, lines[index], two, lines[other]) and (
                        lines[index + 1 : events.after(index)] == lines[other + 1 : events.after(other)]
                    ):
                        paired.add(other)
                        dropped.add(index)
                        break

    @staticmethod
    def _pair(one: Info, line: bytes, two: Info, other: bytes) -> bool:
        """Whether two lines, one of them from uvicorn's own handler, are the same event."""
        if not one.plain:
            one, line, two, other = two, other, one, line
        if not one.plain or two.plain or not two.uvicorn or one.level != two.level:
            return False
        return one.message is not None and two.message is not None and line[one.message] == other[two.message]

    def _hours_of(self, lines: list[bytes], keys: list[bytes]) -> _Hours:
        """The text of the hour of each line; a line without a time has that of the line before it."""
        texts = [line[place] for line, place in zip(lines, map(self._hours.__getitem__, keys))]
        # A time that no calendar has is none.
        same = {text: b"" if self._times.hour(text, None) is None else _one_form(text) for text in {b"", *texts}}
        distinct = set(same.values()) - {b""}
        if not distinct:
            return _Hours(self._times, self._fallback, only=self._text)
        if len(distinct) == 1 and (same[texts[0]] or distinct == {self._text}):
            return _Hours(self._times, self._fallback, only=distinct.pop())
        filled = [self._text]
        filled += map(same.__getitem__, texts)
        return _Hours(self._times, self._fallback, texts=list(accumulate(filled, _latest))[1:])

    def _add(self, counts: Counter[bytes], text: bytes, keys: Sequence[bytes], lines: Sequence[bytes]) -> None:
        """Count lines of one hour, by their keys."""
        found: dict[Info, int] = {}
        newest: dict[Info, bytes] = {}
        last = dict(zip(keys, lines))
        infos = self._infos
        for key, count in counts.items():
            info = infos[key]
            if info.apart or count <= 0:
                continue
            line = last[key]
            if info not in found:
                found[info] = count
                newest[info] = line
                continue
            found[info] += count
            if line[info.time] > newest[info][info.time]:
                newest[info] = line
        new = {info for info in found if info.id and info.id not in self.tally.messages}
        oldest: dict[Info, bytes] = {}
        for key, line in zip(keys, lines) if new else ():
            info = infos[key]
            if info in new:
                oldest[info] = line
                new.remove(info)
                if not new:
                    break
        hours = _Hours(self._times, self._fallback, only=text)
        for info, count in found.items():
            if info.timed:
                self._zone = info.zone
            self._count(info, hours.at(0, self._zone), count, newest[info], oldest.get(info, newest[info]))

    def _singles(self, indexes: list[int], keys: list[bytes], lines: list[bytes], hours: _Hours) -> None:
        """Count lines where digits decide, one by one."""
        found: dict[tuple[Info, bytes], int] = {}
        newest: dict[Info, bytes] = {}
        oldest: dict[Info, bytes] = {}
        infos, decided_by, only, texts = self._infos, self._decided, hours.only, hours.texts
        took: Counter[tuple[Info, bytes, int]] = Counter()
        for index in indexes:
            key, line = keys[index], lines[index]
            info = infos[key]
            if info.decides is not None:
                pair = key, line[info.decides]
                decided = decided_by.get(pair)
                if decided is None:
                    decided = self._decide(pair, line)
                info = decided
            hour = texts[index] if only is None else only
            if (info, hour) in found:
                found[info, hour] += 1
            else:
                found[info, hour] = 1
                oldest.setdefault(info, line)
            newest[info] = line
            if info.latency is not None:
                took[info, hour, bucket(float(line[info.latency]) * info.latency_ms)] += 1
            if info.restart:
                self._restart(info, line, hours.at(index, info.zone if info.timed else self._zone))
        for (info, text), count in found.items():
            if info.timed:
                self._zone = info.zone
            hour_number = _Hours(self._times, self._fallback, only=text).at(0, self._zone)
            self._count(info, hour_number, count, newest[info], oldest[info])
        for (info, text, number), count in took.items():
            if info.request is not None:
                hour_number = _Hours(self._times, self._fallback, only=text).at(0, info.zone)
                self.tally.latencies[hour_number, info.request[0], info.request[1], number] += count

    def _decide(self, pair: tuple[bytes, bytes], line: bytes) -> Info:
        info = self._decided[pair] = Info(forms.parse(line), self._rules)
        self._known_bytes += len(pair[0]) + len(pair[1])
        return info

    def _restart(self, info: Info, line: bytes, hour: int) -> None:
        text = line[info.message].strip() if info.message is not None else forms.parse(line).text
        self.tally.restarts.append((self._seconds(info, line, hour), clean(text, 300)))

    def _traceback(self, key: bytes, lines: list[bytes], last: bytes, hours: _Hours, index: int) -> None:
        """Count an event with a traceback; one without a line before it is an error by itself."""
        pair = key, masked(last.translate(_DIGITS)), b""
        head = self._infos[key]
        if head.decides is not None:
            pair = key, pair[1], lines[0][head.decides]
        info = self._caused.get(pair)
        if info is None:
            line = forms.parse(lines[0])
            if line.kind is not Kind.HEAD:
                line = Line(Kind.HEAD, level="ERROR")
            info = self._caused[pair] = Info(replace(line, traceback=last or forms.TRACEBACK), self._rules)
            self._known_bytes += sum(map(len, pair))
        hour = hours.at(index, info.zone if info.timed else self._zone)
        self._count(info, hour, 1, lines[0], lines[0], whole=lines)
        if info.restart:
            self._restart(info, lines[0], hour)

    def _count(
        self, info: Info, hour: int, count: int, newest: bytes, oldest: bytes, whole: Sequence[bytes] = ()
    ) -> None:
        """Add events of one kind and hour to the tally."""
        facts = self.tally.facts
        for name in info.counts:
            facts[hour, name] += count
        if info.request is not None:
            method, target, status = info.request
            self.tally.requests[hour, method, target, status] += count
        if not info.id:
            return
        self.tally.counts[hour, info.id] += count
        last = self._seconds(info, newest, hour)
        message = self.tally.messages.get(info.id)
        if message is None:
            first = self._seconds(info, oldest, hour)
            message = self.tally.messages[info.id] = Message(info.level, info.type, info.text, first, last)
            if oldest is not newest:
                message.samples.append(clean(oldest, _MOST_SAMPLE))
        message.last = max(message.last, last)
        message.first = min(message.first, last)
        if len(message.samples) < SAMPLES:
            lines = [clean(line, _MOST_SAMPLE) for line in (whole or [newest])[:_MOST_SAMPLE_LINES]]
            sample = "\n".join(lines)[:_MOST_SAMPLE]
            if sample not in message.samples:
                message.samples.append(sample)

    def _seconds(self, info: Info, line: bytes, hour: int) -> int:
        seconds = self._times.seconds(line[info.time], info.zone) if info.timed else None
        return hour * 3600 if seconds is None else seconds

    def _strange(self, hour: int, lines: Sequence[bytes]) -> None:
        """Count an event that no form fits."""
        self.tally.facts[hour, "events"] += 1
        self.tally.facts[hour, "unparsed"] += 1
        if len(self.tally.unparsed) < SAMPLES:
            self.tally.unparsed.append(clean(lines[0], 300))


def _one_form(hour: bytes) -> bytes:
    """The same text for the same hour, however it is written."""
    return b"%d" % (int(hour) // 3600 * 3600) if hour.isdigit() else hour.replace(b"T", b" ")


def _latest(before: bytes, text: bytes) -> bytes:
    return text or before


class _Events:
    """The events of a block that are more than one understood line, by the indexes of their first lines.

    `ends` and `starts` tell where they end and, by that, where they begin; `traces` the line that names the exception
    of those with a traceback; `strange` are those that no form fits.
    """

    def __init__(self) -> None:
        self.ends: dict[int, int] = {}
        self.starts: dict[int, int] = {}
        self.traces: dict[int, bytes] = {}
        self.strange: list[int] = []

    def extend(self, begin: int, end: int) -> None:
        self.starts.pop(self.ends.get(begin, -1), None)
        self.ends[begin] = end
        self.starts[end] = begin

    def before(self, index: int) -> int:
        """Where the event before the one at `index` begins."""
        return self.starts.get(index, index - 1)

    def after(self, index: int) -> int:
        """Where the event after the one at `index` begins."""
        return self.ends.get(index, index + 1)

    def of(self, index: int, lines: Sequence[bytes]) -> list[bytes]:
        return list(lines[index : self.after(index)])


class _Hours:
    """The hours of the lines of a block: of all of them (`only`), or of each (`texts`)."""

    def __init__(self, times: Times, fallback: int, *, only: bytes | None = None, texts: Sequence[bytes] = ()) -> None:
        self._times = times
        self._fallback = fallback
        self.only = only
        self.texts = texts

    def text(self, index: int) -> bytes:
        return self.texts[index] if self.only is None else self.only

    def at(self, index: int, zone: int | None) -> int:
        """The hour since 1970 of a line, whose zone is `zone` minutes east of UTC, or that of its log."""
        text = self.texts[index] if self.only is None else self.only
        hour = self._times.hour(text, zone) if text else None
        return self._fallback if hour is None else hour

    def runs(self) -> Iterable[tuple[int, int]]:
        """From where to where lines of the same hour stand together."""
        changes = [*compress(range(1, len(self.texts)), map(ne, self.texts[1:], self.texts))]
        return zip([0, *changes], [*changes, len(self.texts)])
