"""Calls of the C library: what they do where they exist, and that nothing depends on them."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fluxmaint.core import syscalls

linux = pytest.mark.skipif(sys.platform != "linux", reason="calls of Linux")


@linux
def test_preallocated_blocks_are_there_and_keep_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    descriptor = os.open(path, os.O_RDWR)
    try:
        if not syscalls.preallocate(descriptor, 1 << 20):
            pytest.skip("this file system reserves nothing")
        assert os.fstat(descriptor).st_size == 1 << 20
        assert os.fstat(descriptor).st_blocks * 512 >= 1 << 20
        assert path.read_bytes().rstrip(b"\x00") == b"content"
        assert syscalls.start_writing(descriptor, 0, 1 << 20)
        assert syscalls.await_writing(descriptor, 0, 1 << 20)
    finally:
        os.close(descriptor)


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount")
def test_no_space_is_an_error_before_the_first_byte(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", tmp_path], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        try:
            with pytest.raises(OSError, match="No space left") as caught:
                syscalls.preallocate(descriptor, 2 << 20)
        finally:
            os.close(descriptor)
        assert caught.value.errno == errno.ENOSPC
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@linux
def test_a_file_that_cannot_is_no_error_and_a_wrong_descriptor_is() -> None:
    reading, writing = os.pipe()
    try:
        assert not syscalls.start_writing(writing, 0, 4096)
        assert not syscalls.preallocate(writing, 4096)
    finally:
        os.close(reading)
        os.close(writing)
    with pytest.raises(OSError, match="Bad file descriptor"):
        syscalls.start_writing(writing, 0, 4096)


def test_a_function_that_the_library_lacks_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert syscalls._function("no_such_function_anywhere") is None
    monkeypatch.setattr(syscalls, "_fallocate", None)
    monkeypatch.setattr(syscalls, "_sync_file_range", None)
    assert not syscalls.preallocate(-1, 1)
    assert not syscalls.start_writing(-1, 0, 1)
    assert not syscalls.await_writing(-1, 0, 1)


def test_nothing_is_reserved_for_an_empty_file() -> None:
    assert not syscalls.preallocate(-1, 0)


def test_an_interrupted_call_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [errno.EINTR, errno.EINTR, 0]

    def interrupted(*_arguments: int) -> int:
        ctypes.set_errno(answers.pop(0))
        return -1 if answers else 0

    monkeypatch.setattr(syscalls, "_fallocate", interrupted)
    assert syscalls.preallocate(3, 1)
    assert answers == []
