# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counting whole blocks gives what counting line by line gives, however the log is cut."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from fluxmaint.logs import counting
from fluxmaint.logs.counting import Counting, Rules, Tally
from fluxmaint.logs.fingerprint import masked
from hypothesis import given
from hypothesis import strategies as st

from tests.support import log_lines, log_reference

HOUR = int(log_lines.BEGIN.timestamp()) // 3600


def counted(lines: list[bytes], cuts: list[int] | None = None) -> Tally:
    """Count lines in blocks, which end only where events can be told apart."""
    counting = Counting(Rules())
    counting.begin(HOUR, "", begun=False)
    begin = 0
    for cut in sorted(cuts or []):
        if begin < cut < len(lines) and counting.separable(lines[cut - 1], lines[cut]):
            counting.block(b"\n".join(lines[begin:cut]))
            begin = cut
    counting.block(b"\n".join(lines[begin:]))
    return counting.take()


def check(lines: list[bytes], cuts: list[int] | None = None) -> None:
    tally, wanted = counted(lines, cuts), log_reference.count(lines, HOUR)
    facts = Counter({key: value for key, value in tally.facts.items() if key[1] != "bytes"})
    assert facts == wanted.facts
    assert tally.counts == wanted.counts
    assert tally.requests == wanted.requests
    assert tally.latencies == wanted.latencies
    assert {name: (message.first, message.last) for name, message in tally.messages.items()} == wanted.seen
    assert len(tally.restarts) == sum(count for (_hour, name), count in facts.items() if name == "restarts")


@pytest.mark.parametrize("seed", range(40))
def test_a_log_of_everything(seed: int) -> None:
    lines = log_lines.lines(seed, 400)
    check(lines)
    check(lines, cuts=[seed * 3 + 5, 100, 101, 102, 250])


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 60)), max_size=40), st.lists(st.integers(0, 60), max_size=3)
)
def test_any_mixture_of_lines(chosen: list[tuple[int, int]], cuts: list[int]) -> None:
    known = {seed: log_lines.lines(seed, 61) for seed in {seed % 8 for seed, _index in chosen}}
    check([known[seed % 8][index] for seed, index in chosen], cuts)


def test_what_is_forgotten_is_learned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_MOST_KNOWN", 3)
    check(log_lines.lines(1, 400), cuts=list(range(10, 400, 10)))


HEAD = b"2026-01-05 14:03:%02d,000 - backend.trading - ERROR - Trade execution failed"
TRACE = [b"Traceback (most recent call last):", b'  File "a.py", line 3, in f']


def test_what_follows_a_traceback_is_not_told_by_lines_that_are_the_same_but_for_an_id() -> None:
    exception, other = b"deadbeef0: gone", b"0badbeef1: gone"
    assert masked(exception) == masked(other)
    lines = [line for second, last in enumerate((exception, other) * 2) for line in (HEAD % second, *TRACE, last)]
    lines += [HEAD % 59]
    check(lines)
    assert sum(count for (_hour, name), count in counted(lines).facts.items() if name == "unparsed") == 2
    lines = [HEAD % 1, *TRACE, exception, HEAD % 2, *TRACE, b"abcdefab1: gone", HEAD % 3]
    check(lines)
    assert len(counted(lines).messages) == 3


def test_a_message_was_not_seen_where_it_stands_above_a_traceback() -> None:
    lines = [HEAD % 1, HEAD % 2, HEAD % 3, *TRACE, b"KeyError: 'a'", HEAD % 4, *TRACE, b"KeyError: 'a'", b""]
    messages = {message.text: message for message in counted(lines).messages.values()}
    plain = messages["Trade execution failed"]
    assert (plain.last - plain.first, len(plain.samples)) == (1, 2)
    trace = messages["Trade execution failed [KeyError: 'a']"]
    assert (trace.last - trace.first, len(trace.samples)) == (1, 2)


def test_three_samples_are_of_different_events() -> None:
    events = [[HEAD % second, *TRACE, b"KeyError: 'a'"] for second in (1, 1, 2, 2, 3, 4)]
    lines = [line for event in events for line in (*event, b'{"level": "INFO", "message": "between"}')]
    (message,) = (message for message in counted(lines).messages.values() if message.level == "ERROR")
    assert [sample[17:19] for sample in message.samples] == ["01", "02", "03"]


def test_every_number_that_decides_is_looked_at() -> None:
    found = []
    for level in (20, 40):
        for status in (200, 500):
            for inner in (200, 500):
                for zone in ("+00:00", "+05:00"):
                    document = {"time": f"2026-01-05T14:03:22.1{zone}", "level": level, "upstream": {"status": inner}}
                    document.update(method="GET", path="/x", status=status, message="x")
                    found.append(json.dumps(document).encode())
    check(found * 2)
    assert len(counted(found).requests) == 4
    assert len(counted(found).counts) == 2
    check(named := [json.dumps({"level": "ERROR", "message": f"caf{letter}"}).encode() for letter in "\xe1\xe9" * 9])
    assert len(counted(named).counts) == 2
    check([line.replace(b'"upstream"', b'"level": 10, "upstream"') for line in found])


def test_the_bytes_of_a_log_are_counted() -> None:
    facts = counted([HEAD % 1, HEAD % 2]).facts
    assert [count for (_hour, name), count in facts.items() if name == "bytes"] == [2 * len(HEAD % 1) + 1]
