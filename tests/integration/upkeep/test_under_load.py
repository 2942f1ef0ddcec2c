# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What needs no stop, beside a service that commits as fast as it can: no commit fails, none is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from fluxmaint.core.clock import Clock
from fluxmaint.core.config import Upkeep, Window
from fluxmaint.sqlite import upkeep
from fluxmaint.sqlite.connect import Deadline
from fluxmaint.sqlite.size import measure
from sqlite_lab import make, require_prefix, writing

LIMITS = Upkeep(Window([], "00:00", 60), False, 0.5, 0.2, 0, 30, 0.6, 0.5, 0.5, 1000, 16, 0.002, 60)


def never() -> None:
    raise AssertionError("it was proven")


def written(path: Path) -> int:
    """When the database or its log was written last; asking SQLite would be waiting behind the writer."""
    return max(file.stat().st_mtime_ns for file in (path, Path(f"{path}-wal")) if file.exists())


def let_it_write(path: Path) -> None:
    """Wait until the writer has written some more."""
    for _time in range(5):
        before = written(path)
        while written(path) == before:
            pass


@pytest.mark.parametrize(
    ("step", "mode"),
    [("vacuum", "delete"), ("give back", "delete"), ("give back", "wal"), ("analyze", "delete"), ("analyze", "wal")],
)
def test_nothing_is_lost_and_nothing_fails(tmp_path: Path, step: str, mode: str) -> None:
    path = make(tmp_path / "a.db", mode=mode, auto_vacuum="incremental" if step == "give back" else "none")
    longest = 0.0
    with writing(path) as writer:
        for number in range(3):
            if step == "vacuum":
                preimage = tmp_path / f"pre{number}"
                done = upkeep.vacuum_waiting(path, preimage, limit_s=2.5, busy_timeout_s=5, not_proven=never)
                longest = max(longest, done["held_s"])
            elif step == "give back":
                upkeep.give_back(path, LIMITS, Deadline(Clock(), 5, str(path)), busy_timeout_s=5)
            else:
                upkeep.analyze(path, ("board", "item", "seq"), LIMITS, busy_timeout_s=5)
            let_it_write(path)
    assert writer.report["failures"] == []
    assert writer.report["commits"] > 5 and longest < 2.5
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())  # the writer has closed it: it is one file
    assert require_prefix(copy) == writer.report["last"]
    assert measure(path).objects is not None and sorted(tmp_path.iterdir()) == sorted([copy, path])
