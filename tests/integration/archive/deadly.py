"""Run the engine in a forked process that SIGKILLs itself at the n-th thing it does."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import datetime
from typing import Any

from archive_world import NOW, World
from fluxmaint.core.clock import Clock
from fluxmaint.core.journal import Journal
from fluxmaint.sqlite import archive

_CHANGES = frozenset(("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chown", "os.chmod", "sqlite3.connect"))
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
KILLED, FAILED = -signal.SIGKILL, 70


class Bomb:
    """Counts; kills at a number."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    def tick(self) -> None:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING):
            self.tick()


class DeadlyClock(Clock):
    """Asked by SQLite itself while it works on a deletion, so that statements are cut off in their middle."""

    def __init__(self, bomb: Bomb) -> None:
        self._bomb = bomb

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        self._bomb.tick()
        return super().monotonic()

    def sleep(self, seconds: float) -> None:
        self._bomb.tick()


class DeadlyJournal(Journal):
    """Dies right after an entry."""

    bomb: Bomb

    def append(self, operation: str, event: str, result: str = "", **evidence: Any) -> dict[str, Any]:
        entry = super().append(operation, event, result, **evidence)
        self.bomb.tick()
        return entry


def in_child(work: Callable[[], None]) -> int:
    """Run it in a forked process; its exit code, negative after a signal."""
    pid = os.fork()
    if pid == 0:
        code = FAILED
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it is, the child must not go on as pytest
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(world: World, *, entry: int = 0, event: int = 0, counted: str = "", **options: Any) -> int:
    """Archive in a child that dies at a journal entry, or at an event: a change outside, or a look at the clock.

    Args:
        counted: a file for the number of entries and events of a run that was not killed.
    """

    def work() -> None:
        entries, events = Bomb(entry), Bomb(event)
        journal = DeadlyJournal(world.journal.path)
        journal.bomb = entries
        config = world.config
        sys.addaudithook(events.audit)
        archive.run(config, journal=journal, clock=DeadlyClock(events), **options)
        if counted:
            with open(counted, "w", encoding="ascii") as stream:
                stream.write(f"{entries.count} {events.count}")

    return in_child(work)
