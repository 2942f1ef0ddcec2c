# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values as CSV, read back by another reader."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import pytest
from fluxmaint.sqlite.export_csv import Csv
from hypothesis import given
from hypothesis import strategies as st

TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"))
VALUE = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), TEXT, st.binary())


def stored(value: Any) -> Any:
    """A value as the reader of the database hands it over."""
    return bytearray(value.encode()) if isinstance(value, str) else value


def read(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))


def expected(value: Any) -> str:
    if value is None:
        return ""
    return value.hex() if isinstance(value, bytes) else value if isinstance(value, str) else repr(value)


@given(st.integers(2, 4).flatmap(lambda width: st.lists(st.tuples(*[VALUE] * width), min_size=1, max_size=5)))
def test_another_reader_reads_what_was_stored(rows: list[tuple[Any, ...]]) -> None:
    data = Csv().lines([[stored(value) for value in row] for row in rows])
    assert read(data) == [[expected(value) for value in row] for row in rows]
    assert data.endswith(b"\r\n")


@given(st.floats(allow_nan=False))
def test_reals_read_back_as_the_same_number(value: float) -> None:
    text = read(Csv().lines([[value, 0]]))[0][0]
    assert float(text) == value
    assert math.copysign(1, float(text)) == math.copysign(1, value)


def test_null_and_the_empty_text_differ() -> None:
    assert Csv().lines([[None, bytearray(), b""]]) == b',"",\r\n'


def test_quotes_stand_only_where_they_are_needed() -> None:
    row = [bytearray(text) for text in (b"a b", b"a,b", b'a"b', b"a\nb", b"a\rb", b"a\0b", b"'", "ä".encode())]
    assert Csv().lines([row]) == 'a b,"a,b","a""b","a\nb","a\rb","a\0b",\',ä\r\n'.encode()


def test_blobs_are_hexadecimal_or_base64() -> None:
    assert Csv().lines([[b"\x00\xff"]]) == b"00ff\r\n"
    assert Csv(blobs="base64").lines([[b"\x00\xff"]]) == b"AP8=\r\n"


def test_text_that_is_not_utf8_is_replaced_and_counted() -> None:
    lines = Csv()
    data = lines.lines([[bytearray(b"good"), 1], [bytearray(b"b\xffd,"), 2], [bytearray("gö".encode()), b"\xff"]])
    assert read(data) == [["good", "1"], ["b\ufffdd,", "2"], ["gö", "ff"]]
    assert lines.undecodable == 1


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "＋1", "－1", "＠a", "="],  # noqa: RUF001
)
def test_a_spreadsheet_takes_no_cell_for_a_formula(text: str) -> None:
    safe = Csv(spreadsheet=True)
    assert read(safe.lines([[stored(text), 1]])) == [["'" + text, "1"]]
    assert read(safe.header([text, "b"])) == [["'" + text, "b"]]
    # A comma is not what every spreadsheet separates with: nothing of a text may lie outside quotes.
    assert safe.lines([[stored("a;=1"), 1]]) == b'"a;=1",1\r\n'
    assert read(Csv().lines([[stored(text), 1]])) == [[text, "1"]]


def test_numbers_stay_numbers_in_a_spreadsheet() -> None:
    safe = Csv(spreadsheet=True)
    assert safe.lines([[-5, -1.5, None]]) == b"-5,-1.5,\r\n"
    assert read(safe.lines([[stored("-5.25"), stored("+1e3"), stored("a-b"), stored("")]])) == [
        ["-5.25", "+1e3", "a-b", ""]
    ]
