"""What the kernel keeps in memory before it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from fluxmaint.core import writeback

GIB = 1 << 30


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A system with 8 GiB available, of which the kernel keeps a tenth dirty; a service's group without a limit."""
    files = {
        "proc/sys/vm/dirty_background_bytes": "0",
        "proc/sys/vm/dirty_background_ratio": "10",
        "proc/meminfo": f"MemTotal: {16 * GIB >> 10} kB\nMemAvailable:   {8 * GIB >> 10} kB\n",
        "proc/self/cgroup": "0::/system.slice/fluxmaint-backup.service\n",
        "sys/fs/cgroup/system.slice/memory.max": "max",
        "sys/fs/cgroup/system.slice/fluxmaint-backup.service/memory.max": "max",
        "sys/fs/cgroup/system.slice/fluxmaint-backup.service/memory.high": "max",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n", encoding="ascii")
    return tmp_path


def test_a_part_of_what_is_available(system: Path) -> None:
    assert writeback.room(system) == int(8 * GIB * 10 // 100 * 0.75)


def test_a_threshold_in_bytes(system: Path) -> None:
    (system / "proc/sys/vm/dirty_background_bytes").write_text("1000000\n", encoding="ascii")
    assert writeback.room(system) == 750_000


@pytest.mark.parametrize(
    "file", ["fluxmaint-backup.service/memory.max", "fluxmaint-backup.service/memory.high", "memory.max"]
)
def test_the_limit_of_a_control_group(system: Path, file: str) -> None:
    (system / "sys/fs/cgroup/system.slice" / file).write_text(f"{GIB}\n", encoding="ascii")
    assert writeback.room(system) == int(GIB * 10 // 100 * 0.75)


@pytest.mark.parametrize("content", [None, "", "rubbish"])
def test_a_system_that_does_not_tell(system: Path, content: str | None) -> None:
    file = system / "proc/sys/vm/dirty_background_bytes"
    file.unlink()
    if content is not None:
        file.write_text(content, encoding="ascii")
    assert writeback.room(system) == 0


def test_this_system_tells() -> None:
    assert writeback.room() > 0
