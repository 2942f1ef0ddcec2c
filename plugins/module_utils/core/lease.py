# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One lease per host: work that stops or rewrites the service never overlaps.

The lease is an `flock` on a file. The kernel drops it when its owner dies, so a dead owner is never
in the way; the record inside tells people and the monitoring who works, and at what.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from .clock import Clock, utc_text
from .errors import LeaseError

DEFAULT_PATH = Path("/run/fluxmaint/lease")


class Lease:
    """Context manager that holds the lease, or raises LeaseError at once naming who has it.

    Args:
        path: the lease file; made when it does not exist, never removed.
        purpose: what the owner does, a word or two.
    """

    def __init__(self, path: Path = DEFAULT_PATH, *, purpose: str, clock: Clock | None = None) -> None:
        self.path = Path(path)
        self.purpose = purpose
        self._clock = clock or Clock()
        self._descriptor = -1

    def __enter__(self) -> Lease:
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = _record(descriptor)
            os.close(descriptor)
            raise LeaseError(
                f"is held by process {owner.get('pid', 'unknown')} for {owner.get('purpose', 'unknown work')}"
                f" since {owner.get('since', 'unknown')}",
                subject=str(self.path),
                untouched="everything",
                remedy="wait until that operation has ended",
                owner=owner,
            ) from None
        self._descriptor = descriptor
        record = {"pid": os.getpid(), "purpose": self.purpose, "since": utc_text(self._clock.now())}
        with contextlib.suppress(OSError):  # the lock is what counts; on a full disk nobody can be told who has it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(record).encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = -1


def held_by(path: Path = DEFAULT_PATH) -> dict[str, Any] | None:
    """The record of the living owner of a lease, or None when nobody holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _record(descriptor)
    finally:
        os.close(descriptor)
    return None


def _record(descriptor: int) -> dict[str, Any]:
    try:
        record = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
