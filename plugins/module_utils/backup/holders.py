# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes hold a file open.

A database that is renamed away below a process goes on living in that process: it writes to the old file,
and everyone else reads the new one. So nothing is replaced before this list is empty.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import PreconditionError

PROC = Path("/proc")


@dataclass(frozen=True)
class Holder:
    """A process and the file that it has open."""

    pid: int
    command: str
    path: str


def open_by(paths: Iterable[Path], proc: Path = PROC) -> tuple[list[Holder], int]:
    """Find the processes that hold any of `paths` open, by device and inode, whatever name they used.

    Returns them, this process excepted, and the number of processes that could not be looked into.
    """
    wanted: dict[tuple[int, int], str] = {}
    for path in paths:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            continue
        wanted[status.st_dev, status.st_ino] = str(path)
    found: set[Holder] = set()
    unseen = 0
    for entry in proc.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            descriptors = list((entry / "fd").iterdir())
        except PermissionError:
            unseen += 1
            continue
        except OSError:
            continue  # it has ended
        for descriptor in descriptors:
            try:
                status = os.stat(descriptor)
            except OSError:
                continue
            held = wanted.get((status.st_dev, status.st_ino))
            if held is not None:
                found.add(Holder(int(entry.name), _command(entry), held))
    return sorted(found, key=lambda holder: (holder.pid, holder.path)), unseen


def require_closed(paths: Iterable[Path]) -> None:
    """Raise PreconditionError naming every process that holds one of `paths` open.

    Also raised when processes of other users cannot be looked into although they may open the file.
    """
    existing = [path for path in paths if path.exists()]
    holders, unseen = open_by(existing)
    if holders:
        listed = "; ".join(f"process {holder.pid} ({holder.command}) holds {holder.path}" for holder in holders)
        raise PreconditionError(
            f"still open: {listed}",
            subject=holders[0].path,
            untouched="every file of the service",
            remedy="end these processes, then try again",
            holders=[{"pid": holder.pid, "command": holder.command, "path": holder.path} for holder in holders],
        )
    shared = [path for path in existing if path.stat().st_mode & 0o066]
    if unseen and shared:
        raise PreconditionError(
            f"cannot prove that no process holds it open: {unseen} processes of other users are hidden",
            subject=str(shared[0]),
            untouched="every file of the service",
            remedy="run as root",
        )


def _command(entry: Path) -> str:
    try:
        words = (entry / "cmdline").read_bytes().split(b"\0")
        text = b" ".join(words[:2]).decode("utf-8", "replace").strip()  # later arguments may hold secrets
        return text[:120] or (entry / "comm").read_text().strip()
    except OSError:
        return "unknown"
