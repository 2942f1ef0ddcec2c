# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes two messages the same: everything but numbers, times, ids and symbols.

Which digit stands somewhere never matters, only whether one does: counting relies on it (`counting.py`).
"""

from __future__ import annotations

import hashlib
import re

from .redaction import clean

OTHER = "other"
MOST_TEXT = 400
_MOST_READ = 1000
# Patterns that begin with one of some characters are searched several times faster than those that begin with a
# condition: what must not stand before comes behind the first character.
_TIME = re.compile(
    r"\d(?:\d{3}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?(?:Z|[+-]\d\d:?\d\d\b)?"
    r"|(?<!\w\d)\d:\d\d:\d\d(?:[.,]\d+)?)"
)
_ID_PATTERN = (
    r"(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{8,})(?![0-9A-Za-z_])"
)
_ID = re.compile("(?<![0-9A-Za-z_])" + _ID_PATTERN)
_ID_BYTES = re.compile(_ID_PATTERN.encode())
_HEX = bytes.maketrans(b"123456789abcdef", b"0" * 15)
_LEAST_ID = b"0" * 8
_LONG_RUN = re.compile(_LEAST_ID + b"0*")
_WORD_BYTES = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_NUMBER = re.compile(r"[-+\d](?:(?<![\w)\]].)(?:(?<=\d)\d*|\d+)(?:[.,:]\d+)*(?:[eE][-+]?\d+)?|(?<=\d)\d*(?:[.,:]\d+)*)")
_SYMBOL = re.compile(r"[A-Z](?<![\w<].)[A-Z]{1,4}(?:[/_.-][A-Z]{1,5})?(?![\w>])")
# Words in capitals that are no symbols.
_WORDS = frozenset(
    {
        "ACK", "API", "ASGI", "BUY", "CPU", "CRLF", "CSV", "DB", "DELETE", "DNS", "EOF", "ERROR", "FATAL", "FIFO",
        "GET", "GNU", "HALT", "HEAD", "HTML", "HTTP", "HTTPS", "ID", "INFO", "IO", "IP", "IPV", "JSON", "JWT",
        "KILL", "LONG", "MB", "GB", "KB", "NAN", "NO", "NONE", "NULL", "OFF", "OK", "ON", "OPEN", "OPTIONS", "OS",
        "PATCH", "PID", "POST", "PUT", "RAM", "RPC", "SELL", "SHORT", "SIGHUP", "SIGINT", "SQL", "SSH", "SSL",
        "STOP", "TCP", "TERM", "TLS", "TTL", "UDP", "URI", "URL", "USD", "UTC", "UTF", "UUID", "WAL", "WARN", "WS",
        "WSS", "XML", "YES",
    }
)  # fmt: skip


def normalise(data: bytes) -> str:
    """The text of a message with `<time>`, `<id>`, `<n>` and `<symbol>` for what differs from one to the next."""
    text = clean(data, _MOST_READ)
    text = _TIME.sub("<time>", text)
    if _LEAST_ID in text.encode("utf-8", "surrogatepass").translate(_HEX):
        text = _ID.sub("<id>", text)
    text = _NUMBER.sub("<n>", text)
    text = _SYMBOL.sub(_symbol, text)
    text = " ".join(text.split())
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"


def fingerprint(level: str, kind: str, text: str) -> str:
    """The name of a normalised message: 16 hexadecimal digits."""
    return hashlib.sha256(f"{level}\0{kind}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def route(target: str) -> str:
    """The path of a request, without its query, with `<n>`, `<id>` and `<symbol>` for what stands for one thing."""
    path = target.partition("?")[0].partition("#")[0][:MOST_TEXT]
    return normalise(path.encode("utf-8", "surrogatepass")) or "/"


_UUID_MASK = b"f0000000-0000-0000-0000-000000000000"


def masked(lines: bytes) -> bytes:
    """Lines of the same lengths in which every id that `normalise` replaces is the same."""
    # A fixed text is found a hundred times faster than a pattern.
    runs = lines.translate(_HEX)
    if _LEAST_ID not in runs:
        return lines
    parts: list[bytes] = []
    done = 0
    for run in _LONG_RUN.finditer(runs):
        begin, end = run.span()
        if begin < done or (begin and lines[begin - 1] in _WORD_BYTES):
            continue
        found = lines[begin:end]
        if len(found) > len(_LEAST_ID):
            if found.isdigit() or found.isalpha() or (end < len(lines) and lines[end] in _WORD_BYTES):
                continue
            mask = _mask(len(found))
        else:
            match = _ID_BYTES.match(lines, begin)
            if match is None:
                continue
            end = match.end()
            mask = _mask(end - begin) if end - begin == len(found) else _UUID_MASK
        parts += lines[done:begin], mask
        done = end
    return b"".join([*parts, lines[done:]]) if parts else lines


def _mask(size: int) -> bytes:
    return b"f" + b"0" * (size - 1)


def _symbol(match: re.Match[str]) -> str:
    return match[0] if match[0] in _WORDS else "<symbol>"
