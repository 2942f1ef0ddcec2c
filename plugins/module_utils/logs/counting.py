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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timezone, tzinfo
from itertools import accumulate, compress, islice
from operator import eq, getitem, ne
from typing import Any

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
_MOST_KNOWN = 40_000
_MOST_KNOWN_BYTES = 32_000_000
# Beyond that, the hour of each line is looked at.
_MOST_BEGINNINGS = 6
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
# For mypy: the pieces are bytes, as the places are slices.
_GET: Callable[[bytes, slice], bytes] = getitem  # type: ignore[assignment]
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
        "means", "message", "odd", "plain", "request", "restart", "single", "text", "time", "timed", "type",
        "uvicorn", "zone",
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
        # The first kind of lines that means the same.
        self.means = self
        self.apart = self.loose or self.single
        self.odd = self.loose or self.plain

    @property
    def meaning(self) -> tuple[Any, ...]:
        """What its lines are counted as."""
        return self.id, self.level, self.type, self.text, self.counts, self.request, self.zone, self.timed


def _with_cause(text: str, last: str) -> str:
    return text if not last or last in text else f"{text} [{last}]" if text else last


def _type(line: Line) -> str:
    """The class of the exception that an event is about, else its logger; without digits that could differ."""
    found = forms.error_type(line.traceback.decode("utf-8", "replace")) or _class_of(line.traceback)
    found = found or forms.error_type(line.text[:1000].decode("utf-8", "replace")) or line.logger
    found = clean(found[:200].encode("utf-8", "surrogatepass"), 100)
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
        self._beginnings: dict[bytes, bytes] = {}
        self._odd: set[bytes] = set()
        self._loose: set[bytes] = set()
        self._bare: set[bytes] = set()
        self._single: dict[bytes, slice] = {}
        self._meanings: dict[tuple[Any, ...], Info] = {}
        self._same_beginnings: dict[bytes, bytes] = {}
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
        key = masked(line.translate(_DIGITS))
        if key not in self._infos:
            self._learn({key: line})
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
        new = counts.keys() - self._infos.keys()
        if new:
            indexes = self._mask(new, counts, keys)
            first = {keys[index]: lines[index] for index in reversed(indexes)}
            self._learn({key: line for key, line in first.items() if key not in self._infos})
        last = dict(zip(keys, lines))
        odd = counts.keys() & self._odd
        indexes = list(compress(range(len(keys)), map(odd.__contains__, keys))) if odd else []
        loose, bare = odd & self._loose, odd & self._bare
        events = self._grouped(lines, keys, [index for index in indexes if keys[index] in loose] if loose else [])
        doubles = self._doubles(
            events, lines, keys, loose, bare, [index for index in indexes if keys[index] in bare] if bare else []
        )
        hours = self._hours_of(block, lines, keys, counts, last)
        for index in doubles:
            self.tally.facts[hours.at(index, self._zone), "doubles_dropped"] += 1
            events.traces.pop(index, None)
        for index in events.strange:
            self._strange(hours.at(index, self._zone), events.of(index, lines))
        for index, cause in events.traces.items():
            self._traceback(keys[index], events.of(index, lines), cause, hours, index)
        # What has been counted by itself is not counted with the others: it becomes a blank line.
        for index in [*doubles, *events.traces]:
            counts[keys[index]] -= 1
            keys[index] = b""
        if hours.only is not None:
            self._add(counts, hours.only, keys, lines, last)
        else:
            for begin, end in hours.runs():
                part, those = keys[begin:end], lines[begin:end]
                self._add(Counter(part), hours.texts[begin], part, those, dict(zip(part, those)))
        self.tally.facts[hours.at(-1, self._zone), "bytes"] += len(block) + 1
        self._text = hours.text(-1)
        self._fallback = hours.at(-1, self._zone)
        if len(self._infos) > _MOST_KNOWN or self._known_bytes > _MOST_KNOWN_BYTES:
            self._forget()

    def _forget(self) -> None:
        self._infos.clear()
        self._beginnings.clear()
        for known in (self._odd, self._loose, self._bare):
            known.clear()
        self._single.clear()
        self._meanings.clear()
        self._same_beginnings.clear()
        self._decided.clear()
        self._caused.clear()
        self._known_bytes = 0
        self._learn({b"": b""})

    @staticmethod
    def _mask(new: set[bytes], counts: Counter[bytes], keys: list[bytes]) -> list[int]:
        """Take the ids out of keys that are not known, so that lines with ids are of one kind as well.

        Returns the indexes of these keys.
        """
        indexes = list(compress(range(len(keys)), map(new.__contains__, keys)))
        masks = masked(b"\n".join([keys[index] for index in indexes])).split(b"\n")
        for index, mask in zip(indexes, masks):
            keys[index] = mask
        for key in new:
            del counts[key]
        counts.update(masks)
        return indexes

    def _learn(self, first: Mapping[bytes, bytes]) -> None:
        """Read the first line of each new kind."""
        for key, line in first.items():
            info = Info(forms.parse(line), self._rules)
            info.means = self._meanings.setdefault(info.meaning, info)
            self._infos[key] = info
            beginning = key[: info.hour.stop]
            self._beginnings[key] = self._same_beginnings.setdefault(beginning, beginning)
            if info.odd:
                self._odd.add(key)
                if info.loose:
                    self._loose.add(key)
                if info.plain:
                    self._bare.add(key)
            if info.single:
                self._single[key] = info.decides or forms.NOWHERE
            self._known_bytes += len(key)

    def _grouped(self, lines: Sequence[bytes], keys: Sequence[bytes], loose: Sequence[int]) -> _Events:
        """Find which lines belong to the event before them, among those at the indexes `loose`."""
        events = _Events()
        begin = -1 if self._begun else None  # an event of the block before
        self._begun = True
        closed = {-1}
        expected = 0
        for index in loose:
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
        self,
        events: _Events,
        lines: list[bytes],
        keys: list[bytes],
        loose: set[bytes],
        bare: set[bytes],
        plain: Sequence[int],
    ) -> set[int]:
        """The events that are there twice, by their first lines.

        Two handlers write the same line twice; or uvicorn's own handler, without a time, and another with one.
        """
        dropped: set[int] = set()
        if any(map(eq, islice(lines, 1, None), lines)):
            for index in compress(range(1, len(lines)), map(eq, lines[1:], lines)):
                if index not in events.ends and keys[index] not in loose and keys[index] not in bare:
                    dropped.add(index)
        for begin, end in events.ends.items():
            before = events.starts.get(begin)
            timed = keys[begin] not in loose and keys[begin] not in bare
            if timed and before is not None and lines[before:begin] == lines[begin:end]:
                dropped.add(begin)
        self._pairs(events, lines, keys, plain, dropped)
        return dropped

    def _pairs(
        self, events: _Events, lines: list[bytes], keys: list[bytes], plain: Sequence[int], dropped: set[int]
    ) -> None:
        paired: set[int] = set()
        for index in plain:
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

    def _hours_of(
        self, block: bytes, lines: list[bytes], keys: list[bytes], counts: Counter[bytes], last: dict[bytes, bytes]
    ) -> _Hours:
        """The text of the hour of each line; a line without a time has that of the line before it."""
        only = self._only_hour(block, counts, last)
        if only is not None and (not only or only == self._text or self._infos[keys[0]].timed):
            return _Hours(self._times, self._fallback, only=only or self._text)
        infos = self._infos
        texts = [line[infos[key].hour] for line, key in zip(lines, keys)]
        # A time that no calendar has is none.
        same = {text: b"" if self._times.hour(text, None) is None else _one_form(text) for text in {b"", *texts}}
        filled = [self._text]
        filled += map(same.__getitem__, texts)
        return _Hours(self._times, self._fallback, texts=list(accumulate(filled, _latest))[1:])

    def _only_hour(self, block: bytes, counts: Counter[bytes], last: dict[bytes, bytes]) -> bytes | None:
        """The hour of all lines that have a time; empty when none has one, None when they differ.

        Lines of one kind have everything up to the hour in common, but for digits. If as many lines begin with the
        very text of one of them as there are such lines, all of them have its hour.
        """
        beginnings = self._beginnings
        sums: dict[bytes, int] = {}
        examples: dict[bytes, bytes] = {}
        for key, count in counts.items():
            beginning = beginnings[key]
            if beginning in sums:
                sums[beginning] += count
            else:
                sums[beginning] = count
                examples[beginning] = key
        sums.pop(b"", None)
        found: set[bytes] = set()
        if len(sums) > _MOST_BEGINNINGS:
            return None
        for beginning, count in sums.items():
            line, info = last[examples[beginning]], self._infos[examples[beginning]]
            text = line[: len(beginning)]
            if block.count(b"\n" + text) + block.startswith(text) != count:
                return None
            hour = line[info.hour]
            if self._times.hour(hour, None) is None:
                return None
            found.add(_one_form(hour))
        if any(key.startswith(beginning) for key in counts.keys() & self._loose for beginning in sums):
            return None
        return next(iter(found), b"") if len(found) < 2 else None

    def _add(
        self, counts: Counter[bytes], text: bytes, keys: list[bytes], lines: list[bytes], last: dict[bytes, bytes]
    ) -> None:
        """Count lines of one hour, by their keys. `last` is the last line of each key."""
        found: dict[Info, int] = {}
        newest: dict[Info, tuple[bytes, Info]] = {}
        infos = self._infos
        for key, count in counts.items():
            info = infos[key]
            if info.apart or count <= 0:
                continue
            line, means = last[key], info.means
            if means not in found:
                found[means] = count
                newest[means] = line, info
                continue
            found[means] += count
            before, its = newest[means]
            if line[info.time] > before[its.time]:
                newest[means] = line, info
        hours = _Hours(self._times, self._fallback, only=text)
        single = counts.keys() & self._single.keys()
        if single:
            chosen = list(map(single.__contains__, keys))
            self._add_singles(list(compress(keys, chosen)), list(compress(lines, chosen)), hours, found, newest)
        oldest: dict[Info, tuple[bytes, Info]] = {}
        new = {info for info in found if info.id and info.id not in self.tally.messages and not info.single}
        for key, line in zip(keys, lines) if new else ():
            means = infos[key].means
            if means in new:
                oldest[means] = line, infos[key]
                new.remove(means)
                if not new:
                    break
        for info, count in found.items():
            if info.timed:
                self._zone = info.zone
            self._count(info, hours.at(0, self._zone), count, newest[info], oldest.get(info, newest[info]))

    def _add_singles(
        self,
        keys: list[bytes],
        lines: list[bytes],
        hours: _Hours,
        found: dict[Info, int],
        newest: dict[Info, tuple[bytes, Info]],
    ) -> None:
        """Count lines of one hour where digits decide; `found` and `newest` are added to."""
        infos, decided = self._infos, self._decided
        values = [*map(_GET, lines, map(self._single.__getitem__, keys))]
        counts = Counter(zip(keys, values))
        # The newest line of each kind is only looked for where it is needed.
        last = dict(zip(zip(keys, values), lines)) if any(self._needs_line(pair) for pair in counts) else {}
        each = False
        for pair, count in counts.items():
            info = infos[pair[0]]
            if info.decides is not None:
                info = decided.get(pair) or self._decide(pair, last[pair])
            each = each or info.latency is not None or info.restart
            found[info.means] = found.get(info.means, 0) + count
            newest[info.means] = last.get(pair, b""), info
        if each:
            self._each(list(zip(keys, values)), lines, hours)

    def _needs_line(self, pair: tuple[bytes, bytes]) -> bool:
        """Whether a line is needed to know what such lines are, or when they were seen last."""
        info = self._infos[pair[0]]
        decided = info if info.decides is None else self._decided.get(pair)
        return decided is None or decided.id != ""

    def _each(self, pairs: list[tuple[bytes, bytes]], lines: list[bytes], hours: _Hours) -> None:
        """Note the durations of requests, and the starts of the service."""
        took: Counter[tuple[Info, int]] = Counter()
        infos, decided = self._infos, self._decided
        for pair, line in zip(pairs, lines):
            info = infos[pair[0]]
            if info.decides is not None:
                info = decided[pair]
            if info.latency is not None:
                took[info, bucket(float(line[info.latency]) * info.latency_ms)] += 1
            if info.restart:
                self._restart(info, line, hours.at(0, info.zone if info.timed else self._zone))
        for (info, number), count in took.items():
            if info.request is not None:
                hour = hours.at(0, info.zone if info.timed else self._zone)
                self.tally.latencies[hour, info.request[0], info.request[1], number] += count

    def _decide(self, pair: tuple[bytes, bytes], line: bytes) -> Info:
        info = self._decided[pair] = Info(forms.parse(line), self._rules)
        info.means = self._meanings.setdefault(info.meaning, info)
        self._known_bytes += len(pair[0]) + len(pair[1])
        return info

    def _restart(self, info: Info, line: bytes, hour: int) -> None:
        text = line[info.message].strip() if info.message is not None else forms.parse(line).text
        self.tally.restarts.append((self._seconds(info, line, hour), clean(text, 300)))

    def _traceback(self, key: bytes, lines: list[bytes], last: bytes, hours: _Hours, index: int) -> None:
        """Count an event with a traceback; one without a line before it is an error by itself."""
        pair = key, last.translate(_DIGITS), b""
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
        first = lines[0], info
        self._count(info, hour, 1, first, first, whole=lines)
        if info.restart:
            self._restart(info, lines[0], hour)

    def _count(
        self,
        info: Info,
        hour: int,
        count: int,
        newest: tuple[bytes, Info],
        oldest: tuple[bytes, Info],
        whole: Sequence[bytes] = (),
    ) -> None:
        """Add events of one meaning and hour to the tally."""
        facts = self.tally.facts
        for name in info.counts:
            facts[hour, name] += count
        if info.request is not None:
            method, target, status = info.request
            self.tally.requests[hour, method, target, status] += count
        if not info.id:
            return
        self.tally.counts[hour, info.id] += count
        last = self._seconds(newest[1], newest[0], hour)
        message = self.tally.messages.get(info.id)
        if message is None:
            first = self._seconds(oldest[1], oldest[0], hour)
            message = self.tally.messages[info.id] = Message(info.level, info.type, info.text, first, last)
            if oldest[0] is not newest[0]:
                message.samples.append(clean(oldest[0], _MOST_SAMPLE))
        message.last = max(message.last, last)
        message.first = min(message.first, last)
        if len(message.samples) < SAMPLES:
            # Together: a key may go over several lines.
            sample = clean(b"\n".join((whole or [newest[0]])[:_MOST_SAMPLE_LINES]), _MOST_SAMPLE)
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
