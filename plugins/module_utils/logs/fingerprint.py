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
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?(?:Z|[+-]\d\d:?\d\d\b)?"
    r"|\b\d\d:\d\d:\d\d(?:[.,]\d+)?"
)
# Whether it is an id is decided in `_mask`: a pattern that begins with a set of characters is found several times
# faster than one that looks around.
_ID_PATTERN = r"[0-9a-f]{8}(?:-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]*)"
_ID = re.compile(_ID_PATTERN)
_ID_BYTES = re.compile(_ID_PATTERN.encode())
_WORD = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_WORD_BYTES = frozenset("".join(_WORD).encode())
_NUMBER = re.compile(r"(?<![\w)\]])[-+]?\d+(?:[.,:]\d+)*(?:[eE][-+]?\d+)?|\d+(?:[.,:]\d+)*")
_SYMBOL = re.compile(r"(?<![\w<])[A-Z]{2,5}(?:[/_.-][A-Z]{1,5})?(?![\w>])")
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
    text = _ID.sub(_id, text)
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


def masked(line: bytes) -> bytes:
    """A line of the same length in which every id that `normalise` replaces is the same."""
    return _ID_BYTES.sub(_mask, line)


_masks: dict[int, bytes] = {}


def _mask(match: re.Match[bytes]) -> bytes:
    found = match[0]
    begin, end = match.span()
    line = match.string
    if (begin and line[begin - 1] in _WORD_BYTES) or (end < len(line) and line[end] in _WORD_BYTES):
        return found
    if found[8:9] == b"-":
        return b"f0000000-0000-0000-0000-000000000000"
    if found.isdigit() or found.isalpha():
        return found
    length = end - begin
    mask = _masks.get(length)
    if mask is None:
        mask = _masks[length] = b"f".ljust(length, b"0")
    return mask


def _id(match: re.Match[str]) -> str:
    """As `_mask`, for text."""
    found = match[0]
    begin, end = match.span()
    text = match.string
    if (begin and text[begin - 1] in _WORD) or (end < len(text) and text[end] in _WORD):
        return found
    return found if "-" not in found and (found.isdigit() or found.isalpha()) else "<id>"


def _symbol(match: re.Match[str]) -> str:
    return match[0] if match[0] in _WORDS else "<symbol>"
