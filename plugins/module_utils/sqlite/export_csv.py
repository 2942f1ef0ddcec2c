# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows as CSV after RFC 4180: UTF-8, a header, lines that end in CR LF, quotes only where they are needed.

NULL is an empty field, the empty text is `""`, as PostgreSQL reads and writes it. Integers are decimal, reals the
shortest text that reads back as the same number, blobs hexadecimal or base64.

For spreadsheets every text is quoted, and one that a spreadsheet would take for a formula begins with an apostrophe;
numbers stay numbers.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

BLOBS = ("hex", "base64")

_SPECIAL = re.compile(rb'[",\r\n\x00]')
# At the beginning of a cell: = + - @ in both widths, and the white space after which spreadsheets still find them.
_FORMULA = re.compile(rb"[=+\-@\t\r\n]|\xef\xbc[\x8b\x8d\x9d\xa0]")
_NUMBER = re.compile(rb"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")

Values = Sequence[Any]
Rows = Sequence[Sequence[Any]]


def blob_text(value: bytes, blobs: str) -> bytes:
    """A blob as printable text."""
    return base64.b64encode(value) if blobs == "base64" else value.hex().encode()


class Csv:
    """Turns rows into lines. Text comes as bytearray, so that it differs from a blob.

    Attributes:
        undecodable: cells so far with text that is not UTF-8; the bytes that are not became U+FFFD.
    """

    def __init__(self, *, blobs: str = "hex", spreadsheet: bool = False) -> None:
        self._blobs = blobs
        self._text: Callable[[bytes | bytearray], bytes | bytearray] = _safe if spreadsheet else _plain
        self.undecodable = 0

    def header(self, names: Iterable[str]) -> bytes:
        """The first line."""
        return b",".join(self._text(name.encode("utf-8", "replace")) for name in names) + b"\r\n"

    def lines(self, rows: Rows) -> bytes:
        """The rows, at least one."""
        columns = [self._column(values) for values in zip(*rows)]
        data = b"\r\n".join(map(b",".join, zip(*columns))) + b"\r\n"
        try:
            data.decode()
        except UnicodeDecodeError:
            return self.lines([[self._decodable(value) for value in row] for row in rows])
        return data

    def _column(self, values: Values) -> list[bytes | bytearray]:
        kinds = set(map(type, values))
        if kinds == {int}:
            return [b"%d" % value for value in values]
        if kinds == {float}:
            return [repr(value).encode() for value in values]
        if kinds == {bytearray}:
            return [self._text(value) for value in values]
        return [self._cell(value) for value in values]

    def _cell(self, value: Any) -> bytes | bytearray:
        if value is None:
            return b""
        if isinstance(value, bytearray):
            return self._text(value)
        if isinstance(value, bytes):
            return blob_text(value, self._blobs)
        return repr(value).encode()

    def _decodable(self, value: Any) -> Any:
        if not isinstance(value, bytearray):
            return value
        replaced = value.decode("utf-8", "replace").encode()
        self.undecodable += replaced != value
        return bytearray(replaced)


def _plain(text: bytes | bytearray) -> bytes | bytearray:
    if not text or _SPECIAL.search(text):
        return b'"' + text.replace(b'"', b'""') + b'"'
    return text


def _safe(text: bytes | bytearray) -> bytes | bytearray:
    apostrophe = b"'" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else b""
    return b'"' + apostrophe + text.replace(b'"', b'""') + b'"'
