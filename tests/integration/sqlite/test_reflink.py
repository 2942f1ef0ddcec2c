"""Snapshots that share blocks with their source, on real XFS and Btrfs file systems in loop devices."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fluxmaint.core.errors import PreconditionError
from fluxmaint.sqlite import hot_backup
from sqlite_lab import elsewhere, leave_hot_journal, make, require_prefix, writing


def _run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module", params=["xfs", "btrfs"])
def mounted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of an empty file system that shares blocks."""
    kind = request.param
    if os.geteuid() != 0 or shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"needs root and mkfs.{kind}")
    folder = tmp_path_factory.mktemp(kind)
    image, root = folder / "image", folder / "root"
    root.mkdir()
    with open(image, "wb") as stream:
        stream.truncate(320 << 20)
    made = _run(f"mkfs.{kind}", "-q", image)
    assert made.returncode == 0, made.stderr
    result = _run("mount", "-o", "loop", image, root)
    if result.returncode:
        pytest.skip(f"cannot mount {kind} here: {result.stderr.strip()}")
    try:
        yield root
    finally:
        unmounted = _run("umount", root)
        assert unmounted.returncode == 0, unmounted.stderr


@pytest.fixture
def here(mounted: Path) -> Iterator[Path]:
    folder = mounted / "test"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_snapshot_under_a_writer_is_a_clone_and_a_prefix(here: Path, mode: str) -> None:
    source = make(here / "live.db", mode=mode, pad=20_000)
    lasts = []
    with writing(source, 0, 5.0, "--sync", "OFF") as writer:
        for number in range(4):
            taken = hot_backup.backup(source, here / f"copy{number}.db", timeout_s=30, verify="full")
            assert taken.method == "reflink"
            assert (taken.lock_held_s == 0) == (mode == "wal")
            lasts.append(require_prefix(here / f"copy{number}.db"))
    assert writer.report["failures"] == []
    assert lasts == sorted(lasts)
    assert 0 < lasts[0] < lasts[-1] <= writer.report["last"]


def test_later_commits_do_not_reach_the_clone(here: Path) -> None:
    source = make(here / "live.db")
    hot_backup.backup(source, here / "copy.db")
    before = (here / "copy.db").read_bytes()
    with elsewhere(source, "UPDATE board SET k = 7"):
        pass
    assert source.read_bytes() != before
    assert (here / "copy.db").read_bytes() == before


def test_the_clone_is_as_large_as_its_database_after_the_source_shrank(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first clone is made without a lock; what it had more than the second is gone."""
    source = make(here / "live.db", pad=4000)
    original = hot_backup._begin
    sizes = []

    def begin(*arguments: object) -> object:
        sizes.append(source.stat().st_size)
        with elsewhere(source, "DELETE FROM board", "VACUUM"):
            pass
        return original(*arguments)

    monkeypatch.setattr(hot_backup, "_begin", begin)
    taken = hot_backup.backup(source, here / "copy.db", verify="full")
    assert taken.method == "reflink"
    assert taken.bytes == source.stat().st_size < sizes[0]
    assert (here / "copy.db").read_bytes() == source.read_bytes()


def test_a_hot_journal_is_rolled_back_before_the_clone(here: Path) -> None:
    source = make(here / "live.db", pad=1000)
    leave_hot_journal(source)
    taken = hot_backup.backup(source, here / "copy.db", verify="full")
    assert taken.method == "reflink"
    assert require_prefix(here / "copy.db") == 0


def test_another_file_system_gets_a_copy(here: Path, tmp_path: Path) -> None:
    source = make(here / "live.db")
    taken = hot_backup.backup(source, tmp_path / "copy.db")
    assert taken.method == "pre-copy"
    assert require_prefix(tmp_path / "copy.db") == 0


def test_a_full_disk_is_an_error_that_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(here / "live.db", pad=20_000)
    monkeypatch.setattr(hot_backup.Mirror, "clone", lambda self: False)
    monkeypatch.setattr(hot_backup, "_require_space", lambda *arguments: None)
    ballast = here / "ballast"
    with open(ballast, "wb", buffering=0) as stream:
        while True:
            try:
                stream.write(b"x" * (1 << 20))
            except OSError:
                break
    with pytest.raises(PreconditionError, match="No space left"):
        hot_backup.backup(source, here / "copy.db")
    assert sorted(path.name for path in here.iterdir()) == ["ballast", "live.db"]
