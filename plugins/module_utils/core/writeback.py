# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much written data the kernel keeps in memory before it brings it to the disk on its own account."""

from __future__ import annotations

from pathlib import Path

# What is left to everybody else who writes.
_SHARE = 3 / 4


def room(root: Path = Path("/")) -> int:
    """Bytes that may be written now and stay in memory for some seconds; 0 where the system does not tell.

    From the kernel's threshold for background writing (`vm.dirty_background_*`), the memory that is available,
    and the limits of this process's control groups. Source: the kernel's documentation of `vm` sysctls and cgroup v2.

    Args:
        root: where the system's `proc` and `sys` are.
    """
    try:
        settings = root / "proc/sys/vm"
        limit = int((settings / "dirty_background_bytes").read_text(encoding="ascii"))
        if limit == 0:
            ratio = int((settings / "dirty_background_ratio").read_text(encoding="ascii"))
            limit = min([_available(root), *_group_limits(root)]) * ratio // 100
        return int(limit * _SHARE)
    except (OSError, ValueError):
        return 0


def _available(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _colon, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) << 10
    return 0


def _group_limits(root: Path) -> list[int]:
    """The memory limits of the control group of this process (version 2) and of those around it."""
    lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    inner = next((line[3:] for line in lines if line.startswith("0::")), "/")
    top = root / "sys/fs/cgroup"
    group = top / inner.strip("/")
    found = []
    for directory in (group, *group.parents):
        for name in ("memory.max", "memory.high"):
            try:
                word = (directory / name).read_text(encoding="ascii").strip()
            except OSError:
                continue
            if word != "max":
                found.append(int(word))
        if directory == top:
            break
    return found
