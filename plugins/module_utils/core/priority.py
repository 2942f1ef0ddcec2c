# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service comes first: heavy work steps back behind it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

# On Linux the priority of reading and writing follows from this one: 15 gives the lowest of the class best-effort.
NICE = 15


@contextlib.contextmanager
def background(nice: int = NICE) -> Iterator[None]:
    """Give this thread, and the threads and processes that it starts inside, at most this CPU and I/O priority.

    On Linux priorities belong to threads. Getting the old one back takes a privilege; without it this one stays:
    therefore for threads that do nothing else.

    Args:
        nice: from 0, which changes nothing, to 19.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    if before < nice:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    try:
        yield
    finally:
        if before < nice:
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, 0, before)


def step_back(group: int, nice: int) -> None:
    """Give all threads of a process group at most this CPU and I/O priority; one that has ended needs none."""
    with contextlib.suppress(ProcessLookupError):
        if os.getpriority(os.PRIO_PGRP, group) < nice:
            os.setpriority(os.PRIO_PGRP, group, nice)
