# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which generations a verifier proves, and what a run of it says."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from fluxmaint.backup.verify import Candidate, choose_first, choose_older, exit_code
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 23, 4, tzinfo=timezone.utc)


def made(name: str, days: float, proven: float | None = None) -> Candidate:
    """A generation of so many days ago, proven so many days ago."""
    return Candidate(name, NOW - timedelta(days=days), None if proven is None else NOW - timedelta(days=proven))


def test_the_newest_that_was_never_proven_comes_first() -> None:
    found = [made("old", 9), made("newest", 0.1), made("proven", 1, 0.5), made("middle", 3)]
    assert choose_first(found, NOW) == ["newest", "middle", "old", "proven"]


def test_when_all_are_proven_the_newest_is_proven_again() -> None:
    assert choose_first([made("old", 9, 8), made("newest", 1, 0.9)], NOW) == ["newest"]
    assert choose_first([], NOW) == []


def test_an_id_of_the_future_does_not_keep_the_true_ones_back() -> None:
    found = [made("fake", -400), made("newest", 0.1), made("ahead", -0.5)]
    assert choose_first(found, NOW) == ["ahead", "newest", "fake"]


def test_what_was_proven_long_ago_is_drawn_more_often() -> None:
    found = [made("long", 40, 30), made("short", 40, 3), made("never", 60)]
    firsts = Counter(choose_older(found, NOW, random.Random(seed))[0] for seed in range(3000))
    total = 30 + 3 + 60
    for name, weight in (("long", 30), ("short", 3), ("never", 60)):
        assert firsts[name] / 3000 == pytest.approx(weight / total, abs=0.03), firsts


@given(st.lists(st.tuples(st.integers(-5, 500), st.none() | st.integers(0, 500)), max_size=12), st.integers())
def test_a_draw_can_be_repeated_and_leaves_nothing_out(ages: list[tuple[int, int | None]], seed: int) -> None:
    found = [made(f"g{index}", age, proven) for index, (age, proven) in enumerate(ages)]
    drawn = choose_older(found, NOW, random.Random(seed))
    assert drawn == choose_older(found[::-1], NOW, random.Random(seed))
    assert sorted(drawn) == sorted(item.id for item in found)


GOOD = {"result": "proven", "written_back": True, "reason": "newest"}
HOST = {"reachable": True, "newest": "b", "newest_proven": "b"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"outcomes": [GOOD, {**GOOD, "result": "failed", "written_back": False}]}, 5),
        ({"outcomes": [{**GOOD, "result": "unreachable"}]}, 6),
        ({"origins": [HOST, {**HOST, "reachable": False}]}, 6),
        ({"outcomes": []}, 1),
        ({"outcomes": [{**GOOD, "result": "unreadable"}]}, 1),
        ({"outcomes": [GOOD, {**GOOD, "result": "unfinished"}]}, 3),
        ({"outcomes": [{**GOOD, "written_back": False}]}, 3),
        ({"origins": [{**HOST, "newest_proven": "a"}]}, 3),
        ({"origins": [HOST, {**HOST, "newest": "", "newest_proven": ""}]}, 3),
        ({"origins": [{**HOST, "newest_proven": "a"}], "outcomes": [{**GOOD, "reason": "asked for"}]}, 0),
        ({"problems": ["time was up"]}, 3),
        ({"failed": [{"generation": "z"}]}, 3),
    ],
)
def test_only_what_was_proven_whole_is_a_success(changes: dict[str, Any], code: int) -> None:
    report = {"outcomes": [GOOD], "origins": [HOST], "problems": [], "failed": [], **changes}
    assert exit_code(report) == code
