"""The proof runs beside the encryption: its failure ends the encryption, and leaving early ends the proof."""

from __future__ import annotations

import threading
import time

import pytest
from fluxmaint.backup import generation
from fluxmaint.core.clock import Clock
from fluxmaint.core.errors import IntegrityError
from fluxmaint.sqlite.connect import Deadline


def test_an_error_of_the_work_ends_the_block() -> None:
    def work(_deadline: Deadline) -> object:
        raise IntegrityError("not sound", subject="x")

    def block() -> None:
        with generation._Beside(work, Deadline(Clock(), 60, "x")) as beside:
            watched = beside.watch(None)
            for _unused in range(1000):
                watched("bytes", {"done": 1})
                time.sleep(0.01)

    with pytest.raises(IntegrityError, match="not sound"):
        block()


def test_leaving_the_block_early_cancels_the_work() -> None:
    def work(deadline: Deadline) -> object:
        while deadline.left_s > 0:
            time.sleep(0.01)
        return None

    begun = time.monotonic()
    with pytest.raises(ValueError, match="encryption"):
        with generation._Beside(work, Deadline(Clock(), 60, "x")):
            raise ValueError("encryption")
    assert time.monotonic() - begun < 10


def test_a_signal_while_the_thread_starts_leaves_nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []
    cancelled = threading.Event()

    def work(deadline: Deadline) -> object:
        while deadline.left_s > 0:
            time.sleep(0.01)
        cancelled.set()
        return None

    begin = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        begin(thread)
        started.append(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt), generation._Beside(work, Deadline(Clock(), 60, "x")):
        pass
    assert cancelled.wait(10)
    assert started[0].daemon


def test_progress_and_result_pass_through() -> None:
    told: list[str] = []
    with generation._Beside(lambda _deadline: 7, Deadline(Clock(), 60, "x")) as beside:
        beside.watch(lambda step, _facts: told.append(step))("bytes", {})
        assert beside.result() == 7
    assert told == ["bytes"]
