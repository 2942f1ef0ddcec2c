# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress on a terminal and in a log."""

from __future__ import annotations

import io
import os
import pty
from typing import Any

import pytest
from fluxmaint.core.clock import Clock
from fluxmaint.core.progress import Progress, amount_text, choose, counted


class Ticking(Clock):
    """A clock that stands still until it is told."""

    seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


def test_a_log_gets_each_step_and_the_bytes_now_and_then() -> None:
    clock, stream = Ticking(), io.StringIO()
    progress = Progress("backup", stream, terminal=False, clock=clock)
    progress("encrypt", {"part": "db-trades"})
    for second in range(65):
        clock.seconds = 101.0 + second
        progress("bytes", {"done": (second + 1) * 10_000_000, "total": 650_000_000})
    progress("store", {"target": "offsite", "generation": "20261123T020000Z-7f3a2c"})
    assert stream.getvalue().splitlines() == [
        "backup: encrypt db-trades",
        "backup: encrypt db-trades  300.0 MB of 650.0 MB (46 %), 10.0 MB/s, 35 s left",
        "backup: encrypt db-trades  600.0 MB of 650.0 MB (92 %), 10.0 MB/s, 5 s left",
        "backup: store 20261123T020000Z-7f3a2c offsite",
    ]


def test_a_terminal_has_one_line_that_goes_at_the_end() -> None:
    clock, stream = Ticking(), io.StringIO()
    progress = Progress("prove", stream, terminal=True, clock=clock)
    progress("removed_unfinished", {})
    progress("check", {})
    progress.close()
    assert "\n" not in stream.getvalue()
    drawn = stream.getvalue().split("\r")
    assert drawn[1] == "prove: removed unfinished"
    assert drawn[2] == "prove: check".ljust(len(drawn[1]))
    assert drawn[3].strip() == ""


def test_a_stream_that_nobody_reads_does_not_end_the_work() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        progress = Progress("backup", stream, terminal=False)
        progress("encrypt", {})
        stream.close = lambda: None  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    [
        (0, 100, 0.0, "0 B of 100 B (0 %)"),
        (150, 100, 1.0, "150 B of 100 B (100 %), 150 B/s, 0 s left"),
        (5000, None, 2.0, "5.0 kB, 2.5 kB/s"),
    ],
)
def test_amounts(done: int, total: int | None, seconds: float, text: str) -> None:
    assert amount_text(done, total, seconds) == text


def test_only_a_terminal_and_the_log_of_systemd_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    main, side = pty.openpty()
    reading, writing = os.pipe()
    with os.fdopen(side, "w") as terminal, os.fdopen(writing, "w") as pipe:
        assert choose("backup", terminal) is not None
        assert choose("backup", terminal, quiet=True) is None
        assert choose("backup", pipe) is None
        assert choose("backup", io.StringIO()) is None
        status = os.fstat(writing)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert choose("backup", pipe) is not None
    os.close(main)
    os.close(reading)


def test_what_passes_through_is_counted() -> None:
    seen: list[dict[str, Any]] = []
    assert list(counted([b"ab", b"c"], lambda _step, facts: seen.append(facts), 3)) == [b"ab", b"c"]
    assert [(facts["done"], facts["total"]) for facts in seen] == [(2, 3), (3, 3)]
    assert list(counted([b"ab"], None)) == [b"ab"]
