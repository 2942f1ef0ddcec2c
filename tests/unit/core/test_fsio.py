from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from fluxmaint.core import fsio
from fluxmaint.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_atomic_write_replaces_the_content_and_sets_the_mode(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    fsio.atomic_write(target, b"new", 0o640)
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_atomic_write_that_fails_leaves_the_old_content_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(OverflowError):
        fsio.atomic_write(target, b"new", owner=(2**40, 0))
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_private_umask_holds_inside_and_is_put_back(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with fsio.private_umask():
            (tmp_path / "inside").write_text("")
        (tmp_path / "outside").write_text("")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "inside").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) == 0o644


def test_read_json_names_a_missing_or_broken_file(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    for path in (broken, tmp_path / "missing.json"):
        with pytest.raises(InputError, match=path.name):
            fsio.read_json(path)


def test_written_json_is_read_back(tmp_path: Path) -> None:
    fsio.write_json(tmp_path / "x.json", {"b": [1, "ü"], "a": None})
    assert fsio.read_json(tmp_path / "x.json") == {"a": None, "b": [1, "ü"]}


def test_sha256_of_a_file_larger_than_one_chunk(tmp_path: Path) -> None:
    import hashlib

    data = os.urandom((1 << 20) + 17)
    (tmp_path / "x").write_bytes(data)
    assert fsio.sha256_file(tmp_path / "x") == hashlib.sha256(data).hexdigest()


def test_a_complete_file_gets_its_name_at_the_end_and_is_private(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with fsio.complete_file(target) as stream:
        stream.write(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_file_that_is_not_completed_leaves_the_old_one_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(TypeError), fsio.complete_file(target) as stream:
        stream.writelines([b"half", "not bytes"])  # type: ignore[list-item]
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_only_a_regular_file_is_read_and_nobody_waits_for_a_fifo(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "odd")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(InputError, match="odd: is not a regular file"):
        fsio.read_json(tmp_path / "odd")
    assert len(os.listdir("/proc/self/fd")) == before
    (tmp_path / "file").write_text("{}")
    (tmp_path / "link").symlink_to("file")
    assert fsio.read_json(tmp_path / "link") == {}
    with pytest.raises(InputError, match="a symbolic link"), fsio.open_regular(tmp_path / "link", follow=False):
        pass
