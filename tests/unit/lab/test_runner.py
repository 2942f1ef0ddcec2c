# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the steps of `make test` run: two at a time, and never as passed when they could not begin."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from tests.lab import names
from tests.lab.run_tests import Runner, side_by_side
from tests.lab.steps import SetupError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def test_a_step_that_cannot_be_prepared_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "LOGS", tmp_path)
    ran = tmp_path / "ran"

    def prepare() -> None:
        raise SetupError("the host does not come up")

    runner = Runner([])
    assert runner.step("one", ["touch", ran], prepare=prepare) is False
    assert (str(runner.results[0].count), ran.exists()) == ("0 passed, 1 failed, 0 skipped", False)
    assert runner.step("two", ["touch", ran], prepare=lambda: None) is True
    assert ran.exists()


def test_lanes_run_two_at_a_time_and_the_next_one_follows_the_first_that_ends() -> None:
    lock, running, most, ended = threading.Lock(), [0], [0], []
    third = threading.Event()

    def lane(name: str, before: Callable[[], object] = lambda: None) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        before()
        time.sleep(0.05)
        with lock:
            running[0] -= 1
            ended.append(name)

    def wait() -> None:
        assert third.wait(20), "the third lane did not begin when the second one had ended"

    side_by_side([lambda: lane("long", wait), lambda: lane("short"), lambda: lane("last", third.set)])
    assert (most[0], sorted(ended)) == (2, ["last", "long", "short"])
