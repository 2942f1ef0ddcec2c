"""Heavy work steps back, and only it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fluxmaint.core.priority import background

ASK = [sys.executable, "-c", "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"]


def mine() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="getting a priority back takes a privilege")
def test_threads_and_processes_started_inside_step_back_and_others_do_not() -> None:
    before = mine()
    seen: list[int] = []
    inside, over = threading.Event(), threading.Event()

    def other() -> None:
        inside.wait()
        seen.append(mine())
        over.set()

    bystander = threading.Thread(target=other)
    bystander.start()
    with background(before + 3):
        inside.set()
        over.wait()
        with ThreadPoolExecutor(1) as pool:
            inner = pool.submit(mine).result()
        child = int(subprocess.run(ASK, check=True, capture_output=True, text=True).stdout)
        assert (mine(), inner, child) == (before + 3,) * 3
    bystander.join()
    assert seen == [before]
    assert mine() == before


def test_nothing_is_raised_by_it() -> None:
    before = mine()
    with background(before - 1):
        assert mine() == before
    assert mine() == before
