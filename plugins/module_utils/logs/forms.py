# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The forms of log lines: the guide's text, loguru, JSON, uvicorn's access lines, and what may follow a line.

A line is read as bytes, and what is found in it is told as places (slices) in these bytes: lines that are the same
but for their digits have the same places. Which digits they are changes nothing of what is read, except at the places
that are called `decides`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

MOST_LINE = 256 * 1024
NOWHERE = slice(0, 0)
UNKNOWN = "UNKNOWN"
# The logger of lines without a time in systemd's journal.
JOURNAL = "journal"
LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG", UNKNOWN)
_ALIASES = {
    "FATAL": "CRITICAL", "CRIT": "CRITICAL", "EMERG": "CRITICAL", "ALERT": "CRITICAL", "ERR": "ERROR",
    "WARN": "WARNING", "NOTICE": "INFO", "SUCCESS": "INFO", "TRACE": "DEBUG",
}  # fmt: skip
_WORDS = "|".join(sorted((*LEVELS[:-1], *_ALIASES), key=len, reverse=True)).encode()

_TIME = rb"(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)(?P<zone>Z|[+-]\d\d:?\d\d| UTC)?"
_TEXT = [
    # 2026-01-05 14:03:22,123 - backend.trading - ERROR - message
    re.compile(rb"%s - (?P<logger>\S+(?: \S+)??) - (?P<level>%s) - (?P<message>.*)" % (_TIME, _WORDS), re.DOTALL),
    # 2026-01-05 14:03:22.123 | ERROR    | backend.trading:trade_once:93 - message
    re.compile(rb"%s \| (?P<level>[A-Z]+) *\| (?P<logger>\S+) - (?P<message>.*)" % _TIME, re.DOTALL),
    # 2026-01-05 14:03:22,123 ERROR message; [2026-01-05 14:03:22] [ERROR] message; with uvicorn's `INFO:     `
    re.compile(rb"\[?%s\]?[ -]+\[?(?P<level>%s)\b\]?:?[ -]*(?P<message>.*)" % (_TIME, _WORDS), re.DOTALL),
    re.compile(rb"\[?%s\]?:?(?: -)? (?P<message>.*)" % _TIME, re.DOTALL),
]
# uvicorn's own handler, and Python's `LEVEL:logger:message`
_BARE = re.compile(rb"(?P<level>%s):(?: +|(?P<logger>[\w.]+):)(?P<message>.*)" % _WORDS, re.DOTALL)
_ACCESS = re.compile(
    rb'(?P<client>\S+) - "(?P<method>[A-Z]{3,10}) (?P<target>[^"]+) HTTP/\d(?:\.\d)?" (?P<status>\d{3})\b'
    rb"(?P<rest>[ \w'.-]*)$"
)
_LATENCY = re.compile(rb"\b(?P<value>\d+(?:\.\d+)?) ?(?P<unit>ms|s)$")
_JSON_TIME = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)(Z|[+-]\d\d:?\d\d)?", re.ASCII)
_EPOCH = re.compile(r"\d{10}(?:\d{3})?(?=\.|$)")
# JSON forbids them, but which digits there are must not matter.
_LEADING_ZEROS = re.compile(rb"([:\[,]\s*-?)0+(?=\d)")
_ERROR_ENDS = ("Error", "Exception", "Timeout", "Interrupt", "Group")
_ERROR_TYPE = re.compile(rf"\b((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:{'|'.join(_ERROR_ENDS)}))(?=[:(]|$)")

TRACEBACK = b"Traceback (most recent call last):"
_OPENER = re.compile(rb"\s*(?:\+ Exception Group )?" + re.escape(TRACEBACK))
_LAST_OF_TRACEBACK = re.compile(rb"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?::|\s*$)")
_IN_GROUP = re.compile(rb"\s+\| (?P<line>(?:[A-Za-z_]\w*\.)*[A-Z]\w*: .*)", re.DOTALL)
_CHAIN = (
    b"During handling of the above exception, another exception occurred:",
    b"The above exception was the direct cause of the following exception:",
)

_TIMES = ("timestamp", "time", "ts", "@timestamp", "asctime", "datetime")
_JSON_LEVELS = ("level", "levelname", "severity", "log.level", "loglevel")
_MESSAGES = ("message", "msg", "event")
_LOGGERS = ("logger", "name", "logger_name", "module")
_TRACES = ("exc_info", "exception", "exc_text", "traceback", "stack_trace")
_PATHS = ("path", "route", "url", "uri")
_STATUSES = ("status", "status_code")
_LATENCIES = {
    **dict.fromkeys(("duration_ms", "latency_ms", "elapsed_ms", "response_time_ms", "process_time_ms"), 1.0),
    **dict.fromkeys(("duration_s", "latency_s", "elapsed_s", "response_time_s", "process_time_s"), 1000.0),
}

_ESCAPE = re.compile(rb"\\u[0-9A-Fa-f]{4}")
_MOST_PLACES = 8
_METHOD, _STATUS = re.compile("[A-Z]{3,10}"), re.compile("[0-9]{3}")
# Up to the value behind a name.
_NAME_IN_JSON = {
    name: re.compile(rb'"%s"\s*:\s*"?' % re.escape(name.encode()))
    for name in (*_TIMES, "repr", *_JSON_LEVELS, *_STATUSES, *_LATENCIES)
}


def _nowhere() -> slice:
    return NOWHERE


class Kind(Enum):
    """What a line is by itself. Only a `HEAD` begins an event that is understood."""

    HEAD = "head"
    OPENER = "opener"
    INDENTED = "indented"
    BLANK = "blank"
    STRANGE = "strange"


@dataclass
class Line:
    """A line that has been read.

    Attributes:
        time: the place of its time, or of seconds since 1970; empty when it has none. `hour`: of that time's beginning
            that names the hour.
        zone: the offset of its time in minutes east of UTC; None means that of the log.
        text: the message, as it stands in the log.
        message: the place of the message; None where it does not stand there as it is.
        traceback: the last line of the traceback that it holds.
        decides: the places where it matters which digits stand there.
    """

    kind: Kind
    level: str = UNKNOWN
    logger: str = ""
    text: bytes = b""
    time: slice = field(default_factory=_nowhere)
    hour: slice = field(default_factory=_nowhere)
    zone: int | None = None
    message: slice | None = None
    traceback: bytes = b""
    method: str = ""
    target: str = ""
    status: str = ""
    latency: slice | None = None
    latency_ms: float = 1.0
    decides: tuple[slice, ...] = ()

    @property
    def bare(self) -> bool:
        """Whether it is understood but has no time of its own."""
        return self.kind is Kind.HEAD and self.hour == NOWHERE


_INDENTED, _BLANK, _STRANGE = Line(Kind.INDENTED), Line(Kind.BLANK), Line(Kind.STRANGE)
_OPENS = Line(Kind.OPENER)


def parse(line: bytes) -> Line:
    """Read one line, without its line end. Never fails: what fits no form is `STRANGE`."""
    if len(line) > MOST_LINE:
        return _STRANGE
    if line.endswith(b"\r"):
        line = line[:-1]
    found = None
    if line[:1].isdigit() or line[:1] == b"[":
        found = _text(line)
    elif line[:1] == b"{":
        found = _json(line)
    elif line[:1].isupper():
        found = _bare(line)
    return found or _without_form(line)


def error_type(text: str) -> str:
    """The class of the exception that a message names; empty when it names none."""
    if not any(end in text for end in _ERROR_ENDS):
        return ""
    match = _ERROR_TYPE.search(text[:1000])  # each place costs what is behind it
    return match[1] if match else ""


class Following:
    """Which lines without a form belong to the event before them. Give it each line in turn.

    Blank and indented lines do; `Traceback ...` does, with all that Python prints below it.
    """

    def __init__(self) -> None:
        self._traceback = ""
        self.last = b""

    def head(self) -> None:
        """An event has begun."""
        self._traceback = ""
        self.last = b""

    @property
    def in_traceback(self) -> bool:
        """Whether the event has a traceback."""
        return self._traceback != ""

    def belongs(self, kind: Kind, line: bytes) -> bool:
        """Whether a line belongs to the event; `last` is the newest line of a traceback that names an exception."""
        if kind is Kind.OPENER:
            if self._traceback in ("", "chained") or line[:1].isspace():
                self._traceback = "open"
                return True
            return False
        if kind is Kind.INDENTED:
            match = _IN_GROUP.match(line[:MOST_LINE]) if self._traceback and not self.last else None
            if match:
                self.last = match["line"]
            return True
        if kind is Kind.BLANK:
            return True
        if self._traceback == "open" and _LAST_OF_TRACEBACK.match(line[:MOST_LINE]):
            self._traceback, self.last = "ended", line
            return True
        if self._traceback in ("open", "ended") and line.startswith(_CHAIN):
            self._traceback = "chained"
            return True
        return False


def _without_form(line: bytes) -> Line:
    if _OPENER.match(line):
        return _OPENS
    if not line.strip():
        return _BLANK
    return _INDENTED if line[:1].isspace() else _STRANGE


def _text(line: bytes) -> Line | None:
    for form in _TEXT:
        match = form.match(line)
        if match:
            break
    else:
        return None
    names = match.groupdict()
    begin, end = match.span("time")
    word, logger = names.get("level") or b"", names.get("logger") or b""
    level = _level(word.decode())
    if word and level == UNKNOWN:
        return None
    return _head(
        line,
        level=level,
        logger=logger.decode("utf-8", "replace"),
        message=slice(match.start("message"), len(line)),
        time=slice(begin, end),
        hour=slice(begin, begin + 13),
        zone=match.span("zone"),
    )


def _bare(line: bytes) -> Line | None:
    match = _BARE.match(line)
    if match is None:
        return None
    logger = match["logger"] or b""
    return _head(
        line,
        level=_level(match["level"].decode()),
        logger=logger.decode("utf-8", "replace"),
        message=slice(match.start("message"), len(line)),
    )


def _head(
    line: bytes,
    *,
    level: str,
    logger: str,
    message: slice,
    time: slice = NOWHERE,
    hour: slice = NOWHERE,
    zone: tuple[int, int] = (-1, -1),
) -> Line:
    """A line whose message stands in it as it is: perhaps a request."""
    decides = [] if zone[0] < 0 or zone[1] - zone[0] < 5 else [slice(*zone)]
    text = line[message]
    access = _ACCESS.match(text)
    request: dict[str, Any] = {}
    if access is not None:
        offset = message.start
        status = slice(offset + access.start("status"), offset + access.end("status"))
        decides.append(status)
        request = {"method": access["method"].decode(), "target": access["target"].decode("utf-8", "replace")}
        request["status"] = access["status"].decode()
        message = slice(offset, status.stop)
        took = _LATENCY.search(access["rest"])
        if took:
            begin = offset + access.start("rest")
            request["latency"] = slice(begin + took.start("value"), begin + took.end("value"))
            request["latency_ms"] = 1.0 if took["unit"] == b"ms" else 1000.0
    return Line(
        Kind.HEAD,
        level=level,
        logger=logger.partition(":")[0],
        text=text,
        time=time,
        hour=hour,
        zone=_zone(line[slice(*zone)]) if zone[0] >= 0 else None,
        message=message,
        decides=tuple(decides),
        **request,
    )


def _level(word: str) -> str:
    word = word.upper()
    word = _ALIASES.get(word, word)
    return word if word in LEVELS else UNKNOWN


def _zone(text: bytes) -> int | None:
    if not text:
        return None
    if text in (b"Z", b" UTC"):
        return 0
    minutes = int(text[1:3]) * 60 + int(text[-2:])
    return -minutes if text[:1] == b"-" else minutes


def _json(line: bytes) -> Line | None:
    document = _loaded(line) or _loaded(_LEADING_ZEROS.sub(rb"\1", line))
    if not isinstance(document, dict):
        return None
    record = document.get("record")  # loguru's `serialize`
    if isinstance(record, dict) and isinstance(record.get("message"), str):
        document = record
    text = _first(document, _MESSAGES)
    level = document.get("level") if isinstance(document.get("level"), dict) else _first(document, _JSON_LEVELS)
    decides: list[slice] = []
    if isinstance(level, dict):
        level = level.get("name")
    if isinstance(level, (int, float)):
        decides.append(_deciding(line, _JSON_LEVELS, _place(line, _JSON_LEVELS, repr(level))))
        level = _level_of_number(level)
    if not isinstance(text, str) and not isinstance(level, str):
        return None
    if b"\\u" in line:
        decides += _escapes(line)
    trace = _trace(document)
    request = _request(document, line, decides)
    time, hour, zone, zone_place = _json_time(document, line)
    if zone_place is not None:
        decides.append(zone_place)
    logger = _first(document, _LOGGERS)
    return Line(
        Kind.HEAD,
        level=_level(level) if isinstance(level, str) else UNKNOWN,
        logger=logger if isinstance(logger, str) else "",
        text=(text if isinstance(text, str) else "").encode("utf-8", "surrogatepass"),
        time=time,
        hour=hour,
        zone=zone,
        traceback=trace.encode("utf-8", "surrogatepass"),
        decides=tuple(decides),
        **request,
    )


def _escapes(line: bytes) -> list[slice]:
    """The places of characters that are named by their numbers; the whole line when those are many."""
    places = [slice(*match.span()) for match in _ESCAPE.finditer(line)]
    return places if len(places) <= _MOST_PLACES else [slice(None)]


def _loaded(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _level_of_number(number: float) -> str:
    """The level that Python's numbers have; those of other loggers (10 is trace) are near."""
    for least, level in ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO")):
        if number >= least:
            return level
    return "DEBUG"


def _first(document: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((document[name] for name in names if document.get(name) is not None), None)


def _trace(document: dict[str, Any]) -> str:
    """The line that names the exception of a JSON line; empty when it has none."""
    trace = _first(document, _TRACES)
    if isinstance(trace, dict):  # loguru
        return f"{trace.get('type')}: {trace.get('value')}" if trace.get("type") else ""
    if isinstance(trace, list):
        trace = "\n".join(str(item) for item in trace)
    if not isinstance(trace, str) or not trace.strip():
        return ""
    lines = [line for line in trace.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line[:1].isspace()), lines[-1].strip())


def _place(line: bytes, names: tuple[str, ...], value: str) -> slice | None:
    """Where a JSON value stands in its line: behind one of these names."""
    text = value.encode("utf-8", "replace")
    for name in names:
        for match in _NAME_IN_JSON[name].finditer(line):
            begin, end = match.end(), match.end() + len(text)
            if line.startswith(text, begin) and not line[end : end + 1].isalnum() and line[end : end + 1] != b".":
                return slice(begin, end)
    return None


def _deciding(line: bytes, names: tuple[str, ...], place: slice | None) -> slice:
    """The place of a JSON value that decides; the whole line without one, or when something else has such a name."""
    named = sum(len(_NAME_IN_JSON[name].findall(line)) for name in names)
    return place if place is not None and named == 1 else slice(None)


def _json_time(document: dict[str, Any], line: bytes) -> tuple[slice, slice, int | None, slice | None]:
    """The place of the time, that of its hour, the zone's minutes, and the place of a zone whose digits matter."""
    names: tuple[str, ...] = _TIMES
    value = _first(document, names)
    if isinstance(value, dict):  # loguru
        names, value = ("repr",), value.get("repr")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = repr(value)
    if not isinstance(value, str):
        return NOWHERE, NOWHERE, None, None
    place = _place(line, names, value)
    if place is None:
        return NOWHERE, NOWHERE, None, None
    begin = place.start
    if _EPOCH.match(value):  # seconds, or milliseconds, since 1970
        seconds = slice(begin, begin + 10)
        return seconds, seconds, 0, None
    match = _JSON_TIME.match(value)
    if match is None:
        return NOWHERE, NOWHERE, None, None
    zone = match[2] or ""
    zone_place = slice(begin + match.start(2), begin + match.end(2)) if len(zone) > 1 else None
    return slice(begin, begin + match.end(1)), slice(begin, begin + 13), _zone(zone.encode()), zone_place


def _request(document: dict[str, Any], line: bytes, decides: list[slice]) -> dict[str, Any]:
    """What a JSON line says of a request, when it has a method, a path and a status."""
    method, target, status = document.get("method"), _first(document, _PATHS), _first(document, _STATUSES)
    if not isinstance(method, str) or not _METHOD.fullmatch(method) or not isinstance(target, str):
        return {}
    code = str(status)
    place = _place(line, _STATUSES, code) if _STATUS.fullmatch(code) else None
    if place is None:
        return {}
    decides.append(_deciding(line, _STATUSES, place))
    request: dict[str, Any] = {"method": method, "target": target, "status": code}
    for name, factor in _LATENCIES.items():
        took = document.get(name)
        if isinstance(took, (int, float)) and not isinstance(took, bool):
            request["latency"], request["latency_ms"] = _place(line, (name,), repr(took)), factor
            break
    return request
