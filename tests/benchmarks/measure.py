# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one method beside a writer: seconds, memory of all its processes, and what the writer felt."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .writer import RECORD

COMMITS_PER_S = 200
_SAMPLE_S = 0.05
_PAGE = os.sysconf("SC_PAGE_SIZE")
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Sample:
    """One run of one method.

    Attributes:
        seconds: from starting the process to its end.
        finished: it ended by itself, with status 0, within its limit.
        cpu_s: of all its processes, user and system, as far as somebody waited for them.
        peak_rss_bytes: the largest sum of the resident memory of all its processes, looked at every 50 ms; pages that
            several processes share count in each.
        waits_ms: the commits that were under way during the run.
        said: the end of its output, for errors.
    """

    seconds: float
    finished: bool
    peak_rss_bytes: int
    waits_ms: list[float]
    bytes_out: int = 0
    said: str = ""
    cpu_s: float = 0.0


class Writer:
    """The process that commits; a context."""

    def __init__(self, database: Path, notes: Path) -> None:
        self._notes = notes
        command = [sys.executable, "-m", "tests.benchmarks.writer", str(database), str(COMMITS_PER_S), str(notes)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError("the writer did not start")

    def stop(self) -> list[tuple[float, float]]:
        """End it; when each commit began and how long it took, in seconds."""
        self._process.communicate()
        return list(RECORD.iter_unpack(self._notes.read_bytes()))


def warm(database: Path) -> None:
    """Read a database through: each method finds what it needs of it in the page cache, whichever comes first."""
    with open(database, "rb", buffering=0) as stream:
        while stream.read(1 << 20):
            pass


def fill_page_cache(ballast: Path) -> None:
    """Fill the memory with clean pages of a file of nothing, as files fill it on a host that has run for long.

    What a method writes then takes the place of such pages. Free memory of a virtual machine may be backed by
    nothing: getting it from the host costs several times what copying into it does, and whoever comes first pays.
    """
    size = os.sysconf("SC_PHYS_PAGES") * _PAGE
    with open(ballast, "ab") as stream:
        stream.truncate(size)
    warm(ballast)


def run(
    command: Sequence[str],
    *,
    database: Path | None,
    scratch: Path,
    limit_s: float,
    environment: Mapping[str, str] | None = None,
) -> Sample:
    """Run one method; with a `database`, while a writer commits to it."""
    os.sync()  # what an earlier method has left to write is not this one's
    writer = Writer(database, scratch / "commits") if database else None
    time.sleep(0.3 if writer else 0)
    with open(scratch / "said", "w+b") as said:
        begun, used = time.monotonic(), _children_cpu_s()
        process = subprocess.Popen(
            list(command),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        with _watched(process.pid) as peak:
            try:
                status = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                status = None
                _end_tree(process)
        ended, used = time.monotonic(), _children_cpu_s() - used
        with contextlib.suppress(ProcessLookupError):  # what a script that failed has left running
            os.killpg(process.pid, signal.SIGKILL)
        said.seek(0)
        words = said.read()[-600:].decode("utf-8", "replace").strip()
    commits = writer.stop() if writer else []
    waits = [1000 * took for at, took in commits if at + took >= begun and at <= ended]
    return Sample(ended - begun, status == 0, peak[0], waits, said=words, cpu_s=used)


def _children_cpu_s() -> float:
    """The processor time of children that have ended and of their children, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _end_tree(process: subprocess.Popen[bytes]) -> None:
    """End the method and everything that it started."""
    for pid in [*_tree(process.pid), process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[list[int]]:
    peak = [0]
    over = threading.Event()

    def look() -> None:
        while not over.wait(_SAMPLE_S):
            peak[0] = max(peak[0], sum(_resident(each) for each in [pid, *_tree(pid)]))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _tree(pid: int) -> list[int]:
    """Every descendant of a process."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        try:
            tasks = os.listdir(f"/proc/{parent}/task")
        except OSError:
            continue
        for task in tasks:
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{parent}/task/{task}/children").read_text().split()
                found += [int(child) for child in children]
                waiting += [int(child) for child in children]
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
