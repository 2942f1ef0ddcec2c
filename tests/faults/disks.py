# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small file systems that can be filled, and taken away."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount")


@dataclass(frozen=True)
class Disk:
    """A file system in memory, mounted on `path`."""

    path: Path

    @property
    def fill(self) -> str:
        """A shell command that leaves no byte free."""
        return f"cat /dev/zero > {self.path}/.filler 2> /dev/null"

    def free(self) -> None:
        """Undo `fill`."""
        (self.path / ".filler").unlink(missing_ok=True)

    def mount(self, size: str) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "faults", str(self.path)]
        subprocess.run(command, check=True, timeout=30)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True, timeout=30)


@contextlib.contextmanager
def mounted(path: Path, size: str) -> Iterator[Disk]:
    """A mounted disk; gone afterwards."""
    disk = Disk(path)
    disk.mount(size)
    try:
        yield disk
    finally:
        while os.path.ismount(path):
            disk.unmount()


def bind(source: Path, place: Path) -> None:
    """Mount a directory at another place, too."""
    subprocess.run(["mount", "--bind", str(source), str(place)], check=True, timeout=30)


@contextlib.contextmanager
def bound(source: Path, place: Path) -> Iterator[Path]:
    """A second place of a mounted file system, where it lives on while it is not mounted at its first."""
    place.mkdir()
    bind(source, place)
    try:
        yield place
    finally:
        Disk(place).unmount()
