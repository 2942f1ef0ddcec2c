"""Room that is put by on a disk."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import pytest
from fluxmaint.core.errors import InputError, PreconditionError
from fluxmaint.core.journal import Journal
from fluxmaint.core.reserve import Reserve, is_full

from tests.faults.disks import mounted, needs_mount


@needs_mount
def test_the_room_is_there_when_the_disk_is_full(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "2M") as disk:
        reserve = Reserve(disk.path / "reserve")
        reserve.take(1 << 20)
        with pytest.raises(OSError, match="No space"):
            (disk.path / "rest").write_bytes(bytes(1536 << 10))
        (disk.path / "rest").unlink()
        assert reserve.release() is True
        (disk.path / "rest").write_bytes(bytes(1536 << 10))
        assert reserve.release() is False
        with pytest.raises(PreconditionError, match="when the disk is full: No space left") as caught:
            reserve.take(1 << 20)
        assert is_full(caught.value)
        assert [path.name for path in disk.path.iterdir()] == ["rest"], "half a reserve is none"


def test_it_only_grows_and_nobody_else_reads_it(tmp_path: Path) -> None:
    reserve, file = Reserve(tmp_path / "reserve"), tmp_path / "reserve"
    for size, held in ((100, 100), (50, 100), (200, 200)):
        reserve.take(size)
        assert (file.stat().st_size, file.stat().st_mode & 0o777) == (held, 0o600)
    assert len(set(file.read_bytes())) > 50, "zeros are no room where files are compressed"


def test_what_a_full_disk_looks_like() -> None:
    assert is_full(OSError(errno.ENOSPC, "full"))
    assert is_full(OSError(errno.EDQUOT, "quota"))
    assert not is_full(OSError(errno.EIO, "broken"))
    assert not is_full(InputError("wrong"))


def test_half_an_entry_of_the_journal_is_taken_back(tmp_path: Path) -> None:
    """As when the disk has room for some bytes only; the system stops at a limit in the same way."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("test", "start")
    before = journal.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
    try:
        with pytest.raises(PreconditionError, match="No space left") as caught:
            journal.append("test", "end")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert is_full(caught.value)
    assert journal.path.read_bytes() == before
    journal.append("test", "end")
    assert journal.verify() == 2
