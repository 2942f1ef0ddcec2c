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
from functools import lru_cache
from io import BytesIO
from itertools import compress, islice, repeat
from operator import attrgetter, eq, getitem, itemgetter, ne
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
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
# What a line is, in bits: without a form of its own; one of which each has to be looked at; without a time of its own;
# of a kind that is not known yet.
_LOOSE, _SINGLE, _BARE, _NEW = 1, 2, 4, 8
# From flags to 1 for those with the bit _SINGLE, and to 0 for others.
_SINGLES = bytes(bool(flag & _SINGLE) for flag in range(256))
_LOOSE_RUN = re.compile(b"%c+" % _LOOSE)
_FLAG: Callable[[Any], int] = attrgetter("flag")
_HOUR: Callable[[Any], slice] = attrgetter("hour")
_LATENCY: Callable[[Any], slice] = attrgetter("latency")
# For mypy: the pieces are bytes, as the places are slices.
_GET: Callable[[bytes, slice], bytes] = getitem  # type: ignore[assignment]
# Lines without a form that are remembered as what follows a line.
_MOST_FOLLOWING = 64
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
        "counts", "exact", "flag", "hour", "id", "kind", "latency", "latency_ms", "level", "means", "message", "pick",
        "request", "restart", "text", "time", "timed", "type", "uvicorn", "zone",
    )  # fmt: skip

    def __init__(self, line: Line, rules: Rules, *, exact: bool = True) -> None:
        self.kind = line.kind
        self.timed = line.hour != forms.NOWHERE
        self.hour, self.time, self.zone = line.hour, line.time, line.zone
        self.message = line.message
        # What of a line decides.
        self.pick: Callable[[bytes], Any] = itemgetter(*line.decides) if line.decides else _nothing
        self.latency, self.latency_ms = line.latency, line.latency_ms
        self.uvicorn = line.logger.startswith("uvicorn")
        self.level = line.level
        self.request = (line.method, route(line.target), line.status) if line.status else None
        self.text = normalise(line.text)
        self.restart = _search(rules.restart, self.text)
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
        if _search(rules.failed_trade, self.text):
            names.append("failed_trades")
        if _search(rules.api_error, self.text):
            names.append("api_errors")
        self.counts = tuple(names)
        self.id = "" if self.request and not serious else fingerprint(self.level, self.type, self.text)
        # The first kind of lines that means the same.
        self.means = self
        # Whether all lines of the kind are the same but for their digits: no id was taken out.
        self.exact = exact
        if line.kind is not Kind.HEAD:
            self.flag = _LOOSE
        else:
            # As uvicorn's own handler writes it: without a time, or with that of systemd's journal alone.
            self.flag = _BARE if not self.timed or line.logger == forms.JOURNAL else 0
            if self.pick is not _nothing or self.latency is not None or self.restart:
                self.flag |= _SINGLE

    def alike(self, decides: tuple[slice, ...]) -> tuple[Any, ...]:
        """What two kinds of lines have in common that need not be told apart."""
        pairs = self.flag & _BARE or self.uvicorn or self.restart
        places = self.hour, self.time, self.latency, self.message if pairs else None, *decides
        found = [(place.start, place.stop) if place is not None else None for place in places]
        return self.means, self.flag, self.latency_ms, self.uvicorn, *found

    @property
    def meaning(self) -> tuple[Any, ...]:
        """What its lines are counted as."""
        return self.id, self.level, self.type, self.text, self.counts, self.request, self.zone, self.timed


def _search(pattern: str, text: str) -> bool:
    return re.search(pattern, text) is not None


def _with_cause(text: str, last: str) -> str:
    return text if not last or last in text else f"{text} [{last}]" if text else last


def _type(line: Line) -> str:
    """The class of the exception that an event is about, else its logger; without digits that could differ."""
    found = ""
    if line.traceback:
        found = forms.error_type(line.traceback.decode("utf-8", "replace")) or _class_of(line.traceback)
    return _type_shown((found or forms.error_type(line.text[:1000].decode("utf-8", "replace")) or line.logger)[:200])


@lru_cache(maxsize=1000)
def _type_shown(found: str) -> str:
    found = clean(found.encode("utf-8", "surrogatepass"), 100)
    return _DIGITS_IN_NAMES.sub("<n>", found.replace("sqlite3.", "sqlite<n>.")).replace("sqlite<n>.", "sqlite3.")


def _class_of(last: bytes) -> str:
    """The name before the colon in the last line of a traceback, such as `KeyboardInterrupt`."""
    name = last.partition(b":")[0].strip().decode("utf-8", "replace")
    return name if name.replace(".", "").isidentifier() else ""


class Counting:
    """Counts blocks of lines, one after the other: `begin` a log, count each `block`, `take` what has been counted.

    Lines of one hour wait, counted by their kinds, until the hour ends or somebody takes what has been counted.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._times = Times(rules.zone)
        self._infos: dict[bytes, Info] = {}
        self._alike: dict[tuple[Any, ...], Info] = {}
        self._meanings: dict[tuple[Any, ...], Info] = {}
        self._decided: dict[tuple[Info, Any], Info] = {}
        self._caused: dict[tuple[Info, Any, Any], Info] = {}
        self._followed: dict[tuple[Info, ...], int | None] = {}
        self._forget()
        self.begin(0, "", begun=False)

    def begin(self, fallback: int, last_hour: str, *, begun: bool) -> None:
        """Go to another log, or to a place in it. What has been counted and not taken is forgotten.

        Args:
            fallback: the hour since 1970 of lines before the first one with a time.
            last_hour: what `last_hour` was behind the line before.
            begun: whether lines of the log have been counted before.
        """
        self._tally, self._waiting = Tally(), _Waiting(b"")
        self._fallback = fallback
        self._following = Following()
        self._begun = begun
        text, _separator, zone = last_hour.partition("|")
        self._text = text.encode()
        self._zone: int | None = int(zone) if zone else None

    def take(self) -> Tally:
        """What has been counted since the last time."""
        self._settle()
        tally, self._tally = self._tally, Tally()
        return tally

    @property
    def size(self) -> int:
        """How many numbers `take` would give, at the most."""
        return self._tally.size + len(self._waiting.counts)

    @property
    def last_hour(self) -> str:
        """The hour of the newest line with a time, to go on from later; empty when there was none."""
        return f"{self._text.decode()}|{'' if self._zone is None else self._zone}" if self._text else ""

    def separable(self, before: bytes, line: bytes) -> bool:
        """Whether two lines can be counted apart: each is an event's first line, and they are no doubles."""
        first, second = self.info(before), self.info(line)
        if (first.flag | second.flag) & _LOOSE or line == before:
            return False
        return not (first.flag ^ second.flag) & _BARE or not self._pair(first, before, second, line)

    def seconds(self, line: bytes) -> int | None:
        """The time of a line, in seconds since 1970; None when it has none."""
        info = self.info(line)
        zone = info.zone if info.pick is _nothing else forms.parse(line).zone
        return self._times.seconds(line[info.time], zone) if info.timed else None

    def info(self, line: bytes) -> Info:
        """What is known of a line without its end, which is read when it is the first of its kind."""
        key = line.translate(_DIGITS) + b"\n"
        return self._infos.get(key) or self._of_mask(masked(key), key, line)

    def too_long(self, beginning: bytes) -> None:
        """Count a line that is too long to be held; `beginning` is enough of it for a sample."""
        self._begun = True
        self._following.head()
        self._strange(_Hours(self._times, self._fallback, only=self._text).at(0, self._zone), [beginning])

    def block(self, block: bytes) -> None:
        """Count lines, each with its line feed, from the beginning of an event up to the end of one."""
        size = len(block)
        if not block.endswith(b"\n"):
            block += b"\n"
        lines = BytesIO(block).readlines()
        kinds, flags = self._kinds(block, lines)
        events = self._grouped(lines, kinds, flags)
        doubles = self._doubles(events, lines, kinds, flags)
        hours = self._hours_of(lines, kinds)
        for index in doubles:
            self._tally.facts[hours.at(index, self._zone), "doubles_dropped"] += 1
            events.traces.pop(index, None)
        for index in events.strange:
            self._strange(hours.at(index, self._zone), events.of(index, lines))
        self._tracebacks(events, lines, kinds, hours)
        # What has been counted by itself is not counted with the others: it becomes a blank line.
        blank = self._infos[b"\n"]
        for index in [*doubles, *events.traces]:
            kinds[index], flags[index] = blank, blank.flag
        if hours.only is not None:
            self._add(hours.only, kinds, flags, lines)
        else:
            for begin, end in hours.runs():
                self._add(hours.texts[begin], kinds[begin:end], flags[begin:end], lines[begin:end])
        self._tally.facts[hours.at(-1, self._zone), "bytes"] += size
        self._text = hours.text(-1)
        self._fallback = hours.at(-1, self._zone)
        if len(self._infos) > _MOST_KNOWN or self._known_bytes > _MOST_KNOWN_BYTES:
            self._settle()
            self._forget()

    def _forget(self) -> None:
        for known in (self._infos, self._alike, self._meanings, self._decided, self._caused, self._followed):
            known.clear()
        self._known_bytes = 0
        self.info(b"")

    def _kinds(self, block: bytes, lines: list[bytes]) -> tuple[list[Info], bytearray]:
        """What each line is, and its flags."""
        keys = BytesIO(block.translate(_DIGITS)).readlines()
        found: list[Any] = list(map(self._infos.get, keys, repeat(_UNKNOWN)))
        flags = bytearray(map(_FLAG, found))
        indexes = _at(flags, _NEW)
        if indexes:
            new = [keys[index] for index in indexes]
            for index, key, mask in zip(indexes, new, BytesIO(masked(b"".join(new))).readlines()):
                found[index] = info = self._infos.get(mask) or self._of_mask(mask, key, lines[index][:-1])
                flags[index] = info.flag
        return found, flags

    def _of_mask(self, mask: bytes, key: bytes, line: bytes) -> Info:
        """What is known of lines whose keys without ids are `mask`; the first of them is read."""
        info = self._infos.get(mask)
        if info is None:
            read = forms.parse(line)
            info = Info(read, self._rules, exact=mask == key)
            info = self._infos[mask] = info if info.flag & _LOOSE else self._same(info, read)
            self._known_bytes += len(mask)
        return info

    def _same(self, info: Info, line: Line) -> Info:
        """The kind that needs not be told apart from this one, when there is one already."""
        info.means = self._meanings.setdefault(info.meaning, info)
        return self._alike.setdefault(info.alike(line.decides), info)

    def _grouped(self, lines: Sequence[bytes], kinds: Sequence[Info], flags: bytearray) -> _Events:
        """Find which lines belong to the event before them."""
        events, followed = _Events(), self._followed
        before = -1 if self._begun else None  # an event of the block before
        self._begun = True
        for match in _LOOSE_RUN.finditer(flags):
            begin, end = match.span()
            if begin == 0:
                self._follow(events, lines, kinds, before, range(end))
                continue
            known = tuple(kinds[begin:end]) if end - begin <= _MOST_FOLLOWING and end < len(lines) else ()
            cause = followed.get(known, -1)
            if cause != -1:
                events.ends[begin - 1], events.starts[end] = end, begin - 1
                if cause is not None:
                    events.traces[begin - 1] = begin + cause
                continue
            self._following.head()
            whole = self._follow(events, lines, kinds, begin - 1, range(begin, end))
            cause = events.traces.get(begin - 1)
            # Only what the kinds of the lines tell: no id, no cause that is a part of a line.
            if known and whole and (cause is None or cause >= 0) and all(kind.exact for kind in known):
                self._followed[known] = None if cause is None else cause - begin
                self._known_bytes += 8 * len(known)
        if not flags or flags[-1] != _LOOSE:
            self._following.head()
        return events

    def _follow(
        self, events: _Events, lines: Sequence[bytes], kinds: Sequence[Info], before: int | None, run: range
    ) -> bool:
        """Give lines without a form, which stand together, to their events: the one that begins at `before`, or others.

        Returns whether all belong to that one.
        """
        begin, whole = before, True
        closed = {-1}
        following = self._following
        for index in run:
            kind, line = kinds[index].kind, lines[index][:-1]
            # A traceback never becomes part of a line that is not understood, nor of what has been counted before.
            alone = begin is None or (kind is Kind.OPENER and not following.in_traceback and begin in closed)
            if not alone and following.belongs(kind, line):
                if begin is not None and begin >= 0:
                    events.extend(begin, index + 1)
                    if following.in_traceback:
                        events.cause(begin, following.last, index, line)
                continue
            whole = False
            if kind is Kind.BLANK:
                continue
            following.head()
            begin = index
            events.extend(begin, index + 1)
            if kind is Kind.OPENER:
                following.belongs(kind, line)
                events.cause(begin, b"", index, line)
            else:
                events.strange.append(begin)
                closed.add(begin)
        return whole

    def _doubles(self, events: _Events, lines: list[bytes], kinds: list[Info], flags: bytearray) -> set[int]:
        """The events that are there twice, by their first lines.

        Two handlers write the same line twice; or uvicorn's own handler, without a time, and another with one.
        """
        dropped: set[int] = set()
        untimed = _LOOSE | _BARE
        for before in _at(bytes(map(eq, islice(lines, 1, None), lines)), True):
            if before + 1 not in events.ends and not flags[before + 1] & untimed:
                dropped.add(before + 1)
        for begin, end in events.ends.items():
            start = events.starts.get(begin)
            if start is not None and not flags[begin] & untimed and lines[start:begin] == lines[begin:end]:
                dropped.add(begin)
        plain = sorted([*_at(flags, _BARE), *_at(flags, _BARE | _SINGLE)])
        self._pairs(events, lines, kinds, plain, dropped)
        return dropped

    def _pairs(
        self, events: _Events, lines: list[bytes], kinds: list[Info], plain: Sequence[int], dropped: set[int]
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
                if not 0 <= other < len(lines) or other in paired:
                    continue
                if self._pair(kinds[index], lines[index], kinds[other], lines[other]) and (
                    lines[index + 1 : events.after(index)] == lines[other + 1 : events.after(other)]
                ):
                    paired.add(other)
                    dropped.add(index)
                    break

    @staticmethod
    def _pair(one: Info, line: bytes, two: Info, other: bytes) -> bool:
        """Whether two lines, one of them from uvicorn's own handler, are the same event."""
        if not one.flag & _BARE:
            one, line, two, other = two, other, one, line
        if not one.flag & _BARE or two.flag & _BARE or not two.uvicorn or one.level != two.level:
            return False
        return one.message is not None and two.message is not None and line[one.message] == other[two.message]

    def _hours_of(self, lines: list[bytes], kinds: list[Info]) -> _Hours:
        """The text of the hour of each line; a line without a time has that of the line before it."""
        found = list(map(_GET, lines, map(_HOUR, kinds)))
        # A time that no calendar has is none.
        same = {text: b"" if self._times.hour(text, None) is None else _one_form(text) for text in {b"", *found}}
        known = set(same.values()) - {b""}
        if not known or (len(known) == 1 and (self._text in known or same[found[0]])):
            return _Hours(self._times, self._fallback, only=known.pop() if known else self._text)
        texts = list(map(same.__getitem__, found))
        for index in [index for index, text in enumerate(texts) if not text]:
            texts[index] = texts[index - 1] if index else self._text
        return _Hours(self._times, self._fallback, texts=texts)

    def _add(self, text: bytes, kinds: list[Info], flags: bytearray, lines: list[bytes]) -> None:
        """Count lines of one hour."""
        if text != self._waiting.text:
            self._settle()
            self._waiting = _Waiting(text)
        self._waiting.add(kinds, lines)
        single = flags.translate(_SINGLES)
        if 1 in single:
            self._add_singles(list(compress(kinds, single)), list(compress(lines, single)))
        newest = next(((kind, line) for kind, line in zip(reversed(kinds), reversed(lines)) if kind.timed), None)
        if newest is not None:
            kind, line = newest
            self._zone = (self._decided[kind, kind.pick(line)] if kind.flag & _SINGLE else kind).zone

    def _add_singles(self, kinds: list[Info], lines: list[bytes]) -> None:
        """Count lines of one hour where digits decide."""
        pairs = list(zip(kinds, [kind.pick(line) for kind, line in zip(kinds, lines)]))
        decided, waiting = self._decided, self._waiting
        counts = Counter(pairs)
        if not counts.keys() <= decided.keys():
            for pair, line in zip(pairs, lines):
                if pair not in decided:
                    self._decide(pair, line)
        infos = [decided[pair] for pair in counts]
        waiting.counts.update(counts)
        # The first and the last line of each kind are only looked for where they are needed.
        if any(info.id for info in infos):
            waiting.note(pairs, lines)
        if any(info.latency is not None or info.restart for info in infos):
            hours = _Hours(self._times, self._fallback, only=waiting.text)
            self._each([decided[pair] for pair in pairs], lines, hours)

    def _settle(self) -> None:
        """Add the lines that wait to the tally."""
        waiting, self._waiting = self._waiting, _Waiting(self._waiting.text)
        hours = _Hours(self._times, self._fallback, only=waiting.text)
        found: Counter[Info] = Counter()
        oldest: dict[Info, tuple[int, bytes, Info]] = {}
        newest: dict[Info, tuple[int, bytes, Info]] = {}
        names: Counter[tuple[int, tuple[str, ...]]] = Counter()
        for kind, count in waiting.counts.items():
            info = self._decided[kind] if isinstance(kind, tuple) else kind
            if info is kind and info.flag & (_LOOSE | _SINGLE):
                continue
            means = info.means
            found[means] += count
            if not means.id:
                continue
            hour = hours.at(0, info.zone if info.timed else self._zone)
            for line, known, sign in ((waiting.first[kind], oldest, -1), (waiting.last[kind], newest, 1)):
                at = self._seconds(info, line, hour) * sign
                if means not in known or at > known[means][0]:
                    known[means] = at, line, info
        for info, count in found.items():
            hour = hours.at(0, info.zone if info.timed else self._zone)
            names[hour, info.counts] += count
            self._requested(info, hour, count)
            if info.id:
                first, last = oldest[info], newest[info]
                samples = [[first[1]], [last[1]]] if first[1] is not last[1] else [[first[1]]]
                self._seen(info, hour, count, -first[0], last[0], samples)
        self._note(names)

    def _each(self, infos: list[Info], lines: list[bytes], hours: _Hours) -> None:
        """Note the durations of requests, and the starts of the service."""
        with_latency = [info.latency is not None and info.request is not None for info in infos]
        timed = list(compress(infos, with_latency))
        took = Counter(zip(timed, map(_GET, compress(lines, with_latency), map(_LATENCY, timed))))
        for (info, text), count in took.items():
            if info.request is not None:
                hour = hours.at(0, info.zone if info.timed else self._zone)
                number = bucket(float(text) * info.latency_ms)
                self._tally.latencies[hour, info.request[0], info.request[1], number] += count
        for info, line in zip(infos, lines):
            if info.restart:
                self._restart(info, line, hours.at(0, info.zone if info.timed else self._zone))

    def _decide(self, pair: tuple[Info, Any], line: bytes) -> None:
        """Read the first line of a kind with this in the places that decide."""
        info = pair[0]
        if info.pick is not _nothing:
            read = forms.parse(_end_off(line))
            info = self._same(Info(read, self._rules), read)
        self._decided[pair] = info
        self._known_bytes += 300 + len(pair[1])

    def _restart(self, info: Info, line: bytes, hour: int) -> None:
        text = line[info.message].strip() if info.message is not None else forms.parse(_end_off(line)).text
        self._tally.restarts.append((self._seconds(info, line, hour), clean(text, 300)))

    def _tracebacks(self, events: _Events, lines: list[bytes], kinds: list[Info], hours: _Hours) -> None:
        """Count the events with a traceback."""
        same: dict[tuple[Info, Any, Any, bytes], list[int]] = {}
        for index, cause in events.traces.items():
            head = kinds[index]
            if cause >= 0 and kinds[cause].exact:
                known: Any = kinds[cause]
            else:
                known = events.last(index, lines).translate(_DIGITS)
            same.setdefault((head, head.pick(lines[index]), known, hours.text(index)), []).append(index)
        names: Counter[tuple[int, tuple[str, ...]]] = Counter()
        for (head, value, known, _text), indexes in same.items():
            index = indexes[-1]
            info = self._caused.get((head, value, known))
            if info is None:
                last = events.last(index, lines)
                info = self._caused[head, value, known] = self._with_traceback(lines[index][:-1], last)
                self._known_bytes += 300 + len(last)
            hour = hours.at(index, info.zone if info.timed else self._zone)
            names[hour, info.counts] += len(indexes)
            self._requested(info, hour, len(indexes))
            for index in indexes if info.restart else ():
                self._restart(info, lines[index], hour)
            self._samples(info, hour, indexes, events, lines)
        self._note(names)

    def _samples(self, info: Info, hour: int, indexes: list[int], events: _Events, lines: list[bytes]) -> None:
        """Count events with tracebacks, which are messages but for those of requests below the level WARNING."""
        if not info.id:
            return
        samples: dict[bytes, list[bytes]] = {}
        message = self._tally.messages.get(info.id)
        if message is None or len(message.samples) < SAMPLES:
            for index in indexes:
                whole = events.of(index, lines)
                samples.setdefault(b"".join(whole[:_MOST_SAMPLE_LINES]), whole)
        seconds = [self._seconds(info, lines[index], hour) for index in (indexes[0], indexes[-1])]
        self._seen(info, hour, len(indexes), min(seconds), max(seconds), samples.values())

    def _with_traceback(self, first: bytes, last: bytes) -> Info:
        """An event with a traceback; one without a line before it is an error by itself."""
        line = forms.parse(first)
        if line.kind is not Kind.HEAD:
            line = Line(Kind.HEAD, level="ERROR")
        return Info(replace(line, traceback=last or forms.TRACEBACK), self._rules)

    def _note(self, names: Mapping[tuple[int, tuple[str, ...]], int]) -> None:
        """Add the facts of events to the tally."""
        for (hour, several), count in names.items():
            for name in several:
                self._tally.facts[hour, name] += count

    def _requested(self, info: Info, hour: int, count: int) -> None:
        """Add the requests that events of one kind and hour are about to the tally."""
        if info.request is not None:
            method, target, status = info.request
            self._tally.requests[hour, method, target, status] += count

    def _seen(
        self, info: Info, hour: int, count: int, first: int, last: int, samples: Iterable[Sequence[bytes]]
    ) -> None:
        """Add events of one message and hour to the tally, but for its facts; their lines if they may be samples."""
        self._tally.counts[hour, info.id] += count
        message = self._tally.messages.get(info.id)
        if message is None:
            message = self._tally.messages[info.id] = Message(info.level, info.type, info.text, first, last)
        message.first, message.last = min(message.first, first), max(message.last, last)
        for lines in samples:
            if len(message.samples) < SAMPLES:
                # Together: a key may go over several lines.
                sample = clean(_end_off(b"".join(lines[:_MOST_SAMPLE_LINES])), _MOST_SAMPLE)
                if sample not in message.samples:
                    message.samples.append(sample)

    def _seconds(self, info: Info, line: bytes, hour: int) -> int:
        seconds = self._times.seconds(line[info.time], info.zone) if info.timed else None
        return hour * 3600 if seconds is None else seconds

    def _strange(self, hour: int, lines: Sequence[bytes]) -> None:
        """Count an event that no form fits."""
        self._tally.facts[hour, "events"] += 1
        self._tally.facts[hour, "unparsed"] += 1
        if len(self._tally.unparsed) < SAMPLES:
            self._tally.unparsed.append(clean(_end_off(lines[0]), 300))


def _one_form(hour: bytes) -> bytes:
    """The same text for the same hour, however it is written."""
    return b"%d" % (int(hour) // 3600 * 3600) if hour.isdigit() else hour.replace(b"T", b" ")


def _nothing(_line: bytes) -> bytes:
    return b""


def _end_off(line: bytes) -> bytes:
    return line[:-1] if line.endswith(b"\n") else line


def _at(flags: bytes | bytearray, value: int) -> list[int]:
    """The indexes of a value, which is rare."""
    found: list[int] = []
    index = flags.find(value)
    while index >= 0:
        found.append(index)
        index = flags.find(value, index + 1)
    return found


class _Waiting:
    """Lines of one hour, counted by their kinds, or by kinds and what decides; with the first and last line of each."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.counts: Counter[Any] = Counter()
        self.first: dict[Any, bytes] = {}
        self.last: dict[Any, bytes] = {}

    def add(self, kinds: Sequence[Any], lines: Sequence[bytes]) -> None:
        """Count lines."""
        self.counts.update(kinds)
        self.note(kinds, lines)

    def note(self, kinds: Sequence[Any], lines: Sequence[bytes]) -> None:
        """Remember the first and last lines of kinds."""
        known = len(self.last)
        self.last.update(zip(kinds, lines))
        if len(self.last) > known:
            first = dict(zip(reversed(kinds), reversed(lines)))
            self.first.update((kind, first[kind]) for kind in first.keys() - self.first.keys())


class _Unknown:
    """Stands for a kind that is not known yet."""

    flag = _NEW


_UNKNOWN = _Unknown()


class _Events:
    """The events of a block that are more than one understood line, by the indexes of their first lines.

    `ends` and `starts` tell where they end and, by that, where they begin; `traces`, of those with a traceback, the
    index of the line that names the exception, or -1; `parts` what names it where that is a part of a line; `strange`
    are those that no form fits.
    """

    def __init__(self) -> None:
        self.ends: dict[int, int] = {}
        self.starts: dict[int, int] = {}
        self.traces: dict[int, int] = {}
        self.parts: dict[int, bytes] = {}
        self.strange: list[int] = []

    def cause(self, begin: int, last: bytes, index: int, line: bytes) -> None:
        """Note what names the exception of an event, `last`, after its line at `index`."""
        if last and last is line:
            self.traces[begin] = index
            self.parts.pop(begin, None)
        elif self.traces.setdefault(begin, -1) < 0 and last:
            self.parts[begin] = last

    def last(self, begin: int, lines: Sequence[bytes]) -> bytes:
        """What names the exception of an event."""
        cause = self.traces[begin]
        return lines[cause][:-1] if cause >= 0 else self.parts.get(begin, b"")

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
