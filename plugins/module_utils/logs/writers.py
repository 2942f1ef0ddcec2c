# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who writes to a log right now, and whether at its end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..backup import holders


@dataclass(frozen=True)
class Writer:
    """A descriptor that can write to a file.

    Attributes:
        append: whether each write goes to the end of the file (O_APPEND), also after somebody has emptied it.
        unit: the systemd unit of the process; empty when it has none.
    """

    path: str
    pid: int
    command: str
    unit: str
    append: bool

    def __str__(self) -> str:
        return f"process {self.pid} ({self.unit or self.command})"


@dataclass(frozen=True)
class Writers:
    """What was found. `unseen` processes could not be looked at; with them nothing is proven."""

    found: tuple[Writer, ...]
    unseen: int

    def of(self, path: Path) -> list[Writer]:
        """Those of one file."""
        return [writer for writer in self.found if writer.path == str(path)]


def writers(files: Iterable[Path], proc: Path = holders.PROC) -> Writers:
    """Every descriptor that can write to one of these files, whatever name it was opened by.

    Processes that end meanwhile are left out.
    """
    held, unseen = holders.open_by(files, proc)
    found: list[Writer] = []
    for holder in held:
        try:
            found.extend(_writing(proc / str(holder.pid), holder))
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:
            unseen += 1
    return Writers(tuple(found), unseen)


def _writing(process: Path, holder: holders.Holder) -> Iterator[Writer]:
    wanted = os.stat(holder.path)
    unit = _unit(process)
    for name in os.listdir(process / "fd"):
        try:
            status = os.stat(process / "fd" / name)
            flags = _flags(process / "fdinfo" / name)
        except (FileNotFoundError, ProcessLookupError):
            continue  # closed meanwhile
        if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino) and flags & os.O_ACCMODE != os.O_RDONLY:
            yield Writer(holder.path, holder.pid, holder.command, unit, bool(flags & os.O_APPEND))


def _flags(fdinfo: Path) -> int:
    for line in fdinfo.read_text().splitlines():
        key, _colon, value = line.partition(":")
        if key == "flags":
            return int(value, 8)
    raise FileNotFoundError(fdinfo)


def _unit(process: Path) -> str:
    """The innermost service in the process's control groups."""
    for line in (process / "cgroup").read_text(errors="replace").splitlines():
        for part in reversed(line.split(":", 2)[-1].split("/")):
            if part.endswith(".service"):
                return part
    return ""
