# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counting whole blocks gives what counting line by line gives, however the log is cut."""

from __future__ import annotations

from collections import Counter

import pytest
from fluxmaint.logs.counting import Counting, Rules, Tally
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
    return counting.tally


def check(lines: list[bytes], cuts: list[int] | None = None) -> None:
    tally, wanted = counted(lines, cuts), log_reference.count(lines, HOUR)
    facts = Counter({key: value for key, value in tally.facts.items() if key[1] != "bytes"})
    assert facts == wanted.facts
    assert tally.counts == wanted.counts
    assert tally.requests == wanted.requests
    assert tally.latencies == wanted.latencies
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
