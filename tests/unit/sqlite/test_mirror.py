"""Copying and repairing one file after another that changes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fluxmaint.core import syscalls, writeback
from fluxmaint.core.clock import Clock
from fluxmaint.sqlite import mirror as engine
from fluxmaint.sqlite.connect import Deadline
from fluxmaint.sqlite.mirror import Mirror
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BLOCK = 1 << 18
Mirrored = Callable[[bytes, bytes], "tuple[Mirror, Path, Path]"]


@pytest.fixture
def mirrored(tmp_path: Path) -> Mirrored:
    """A mirror between two files with the given contents."""

    def make(source: bytes, copy: bytes) -> tuple[Mirror, Path, Path]:
        paths = tmp_path / "source", tmp_path / "copy"
        descriptors = []
        for path, content in zip(paths, (source, copy)):
            path.write_bytes(content)
            descriptors.append(os.open(path, os.O_RDWR))
        return Mirror(descriptors[0], descriptors[1], Deadline(Clock(), 60, "x")), *paths

    return make


SIZES = [0, 1, 4095, 4096, 4097, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 7 * BLOCK + 12345]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("before", [0, 5000, 8 * BLOCK])
def test_copy_and_repair_give_the_same_bytes(mirrored: Mirrored, size: int, before: int) -> None:
    content = os.urandom(size)
    mirror, _source, copy = mirrored(content, os.urandom(before))
    mirror.copy()
    assert copy.read_bytes() == content
    assert mirror.repair() == 0
    copy.write_bytes(os.urandom(before))
    mirror.repair()
    assert copy.read_bytes() == content


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.sampled_from(SIZES),
    edits=st.lists(st.tuples(st.integers(0, 8 * BLOCK), st.integers(1, 70_000)), max_size=6),
    resize=st.one_of(st.none(), st.integers(0, 8 * BLOCK)),
)
def test_repair_makes_up_for_any_edit(
    mirrored: Mirrored, size: int, edits: list[tuple[int, int]], resize: int | None
) -> None:
    mirror, source, copy = mirrored(os.urandom(size), b"")
    mirror.copy()
    with open(source, "r+b") as stream:
        for offset, length in edits:
            stream.seek(offset)
            stream.write(os.urandom(length))
        if resize is not None:
            stream.truncate(resize)
    mirror.repair()
    assert copy.read_bytes() == source.read_bytes()


def test_repair_writes_little_when_little_differs(mirrored: Mirrored) -> None:
    mirror, source, _copy = mirrored(os.urandom(6 * BLOCK), b"")
    mirror.copy()
    with open(source, "r+b") as stream:
        stream.seek(3 * BLOCK + 5000)
        stream.write(b"changed")
    assert mirror.repair() == 4096


def test_precopy_stops_when_the_source_rests(mirrored: Mirrored) -> None:
    mirror, source, copy = mirrored(os.urandom(17 << 20), b"")
    mirror.precopy()
    assert mirror.passes == 1
    assert copy.read_bytes() == source.read_bytes()


def test_precopy_leaves_a_little_to_the_locked_pass_and_goes_on_while_much_differs(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 17 << 20
    changes = [size // 2, size // 8, size // 100, 0]
    mirror, source, copy = mirrored(os.urandom(size), b"")
    original = Mirror.estimate

    def estimate(self: Mirror) -> int:
        with open(source, "r+b") as stream:
            stream.write(os.urandom(changes.pop(0)))
        return original(self)

    monkeypatch.setattr(Mirror, "estimate", estimate)
    mirror.precopy()
    assert (mirror.passes, changes) == (3, [0])
    assert copy.read_bytes() != source.read_bytes()
    assert 0 < mirror.repair() <= size // 100 + 4096
    assert copy.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("size", [16 << 20, (16 << 20) + 1, 40_000_000])
def test_precopy_gives_up_on_a_writer_that_changes_everything(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    mirror, source, _copy = mirrored(os.urandom(size), b"")
    original = Mirror.estimate

    def estimate(self: Mirror) -> int:
        source.write_bytes(os.urandom(size))
        return original(self)

    monkeypatch.setattr(Mirror, "estimate", estimate)
    mirror.precopy()
    assert mirror.passes == 2


def test_the_number_of_passes_is_bounded(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror, _source, _copy = mirrored(os.urandom(17 << 20), b"")
    monkeypatch.setattr(Mirror, "estimate", lambda self: 1 << 30)
    monkeypatch.setattr(Mirror, "repair", lambda self: setattr(self, "passes", self.passes + 1) or 0)
    mirror.precopy()
    assert mirror.passes == 8


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(17 << 20, 33 << 20), begin=st.floats(0, 0.9), share=st.floats(0.02, 1))
def test_the_estimate_finds_any_changed_stretch(mirrored: Mirrored, size: int, begin: float, share: float) -> None:
    mirror, source, _copy = mirrored(b"", b"")
    os.truncate(source, size)
    mirror.copy()
    assert mirror.estimate() == 0
    start = int(size * begin)
    length = min(int(size * share), size - start)
    with open(source, "r+b") as stream:
        stream.seek(start)
        stream.write(b"x" * length)
    assert length / 2 <= mirror.estimate() + size / 100
    assert mirror.estimate() - size / 100 <= length * 2


@pytest.mark.parametrize("size", [0, 1, 4096, 65535, 65536, 100_000, 256 * 65536 + 1])
def test_the_estimate_of_files_of_any_size(mirrored: Mirrored, size: int) -> None:
    mirror, _source, _copy = mirrored(b"a" * size, b"b" * size)
    assert size * 0.9 <= mirror.estimate() <= size


def test_the_copy_goes_to_the_disk_by_piece(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece once, and never more than two on the way."""
    started: list[int] = []
    ended: list[int] = []
    most = []

    def start(_descriptor: int, offset: int, count: int) -> bool:
        assert count == engine._PIECE
        started.append(offset)
        most.append(len(started) - len(ended))
        return True

    def wait(_descriptor: int, offset: int, count: int) -> bool:
        assert (offset, count) in {(begun, engine._PIECE) for begun in started}
        ended.append(offset)
        return True

    monkeypatch.setattr(syscalls, "start_writing", start)
    monkeypatch.setattr(syscalls, "await_writing", wait)
    size = 6 * engine._PIECE + 5
    mirror, source, copy = mirrored(b"", b"")
    os.truncate(source, size)
    mirror.copy()
    assert sorted(started) == list(range(0, size, engine._PIECE))
    assert len(set(ended)) == len(ended) == len(started) - 1
    assert max(most) == 2
    assert copy.stat().st_size == size


@pytest.mark.parametrize("room", [0, 2 << 20, 100 << 20])
def test_a_transient_copy_goes_to_the_disk_only_where_memory_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    size = 24 << 20
    started: list[int] = []
    monkeypatch.setattr(writeback, "room", lambda: room)
    monkeypatch.setattr(syscalls, "start_writing", lambda _descriptor, offset, _count: started.append(offset))
    monkeypatch.setattr(os, "fdatasync", lambda _descriptor: pytest.fail("it was brought to the disk"))
    (tmp_path / "source").write_bytes(os.urandom(size))
    with open(tmp_path / "source", "rb") as source, open(tmp_path / "copy", "w+b") as copy:
        Mirror(source.fileno(), copy.fileno(), Deadline(Clock(), 60, "x"), durable=False).precopy()
        assert os.pread(copy.fileno(), size + 1, 0) == (tmp_path / "source").read_bytes()
    assert started == list(range(0, max(size - room, 0), engine._PIECE))


def test_a_write_that_the_disk_refused_is_not_lost(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting takes the error away from the fsync that follows."""

    def refused(*_arguments: int) -> int:
        import ctypes

        ctypes.set_errno(errno.EIO)
        return -1

    mirror, source, _copy = mirrored(b"", b"")
    os.truncate(source, 1 << 20)
    monkeypatch.setattr(syscalls, "_sync_file_range", refused)
    with pytest.raises(OSError, match="Input/output error"):
        mirror.copy()


@pytest.mark.parametrize("missing", ["_fallocate", "_sync_file_range"])
def test_copies_where_the_system_lacks_a_call(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(syscalls, missing, None)
    mirror, source, copy = mirrored(os.urandom((17 << 20) + 3), b"")
    mirror.precopy()
    assert copy.read_bytes() == source.read_bytes()


@pytest.fixture(params=["in the kernel", "through the process", "in the kernel at first"])
def after_each_write(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Do something after each write to the copy, for each way in which bytes get there."""
    write, copy_range = engine._write, os.copy_file_range
    calls = []

    def act_after(act: Callable[[], None]) -> None:
        def written(descriptor: int, data: memoryview, offset: int) -> None:
            write(descriptor, data, offset)
            act()

        def copied(*arguments: int) -> int:
            calls.append(arguments)
            if request.param == "through the process" or (len(calls) > 2 and request.param.endswith("at first")):
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            count = copy_range(*arguments)
            act()
            return count

        monkeypatch.setattr(engine, "_write", written)
        monkeypatch.setattr(os, "copy_file_range", copied)

    return act_after


@pytest.mark.parametrize("left", [0, 4096, 9 << 20])
def test_a_source_that_shrinks_while_it_is_copied(
    mirrored: Mirrored, after_each_write: Callable[..., None], left: int
) -> None:
    mirror, source, copy = mirrored(os.urandom(20 << 20), b"")
    after_each_write(lambda: os.truncate(source, min(left, source.stat().st_size)))
    mirror.precopy()
    mirror.repair()
    assert copy.read_bytes() == source.read_bytes()
    assert source.stat().st_size == left
    assert copy.stat().st_blocks * 512 <= left + 65536, "what was reserved for it is given back"


def test_a_source_that_grows_while_it_is_copied(mirrored: Mirrored, after_each_write: Callable[..., None]) -> None:
    mirror, source, copy = mirrored(os.urandom(17 << 20), b"")
    growing = [True]
    after_each_write(lambda: os.truncate(source, source.stat().st_size + 123_457 * growing[0]))
    mirror.precopy()
    assert source.stat().st_size > 17 << 20
    growing[0] = False
    mirror.repair()
    assert copy.read_bytes() == source.read_bytes()


def test_the_same_bytes_by_each_way(mirrored: Mirrored, after_each_write: Callable[..., None]) -> None:
    content = os.urandom((9 << 20) + 12345)
    mirror, _source, copy = mirrored(content, b"")
    writes: list[None] = []
    after_each_write(lambda: writes.append(None))
    mirror.copy()
    assert writes
    assert copy.read_bytes() == content


def test_an_error_of_the_disk_is_no_reason_to_copy_otherwise(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "copy_file_range", broken)
    mirror, _source, _copy = mirrored(b"x" * 5000, b"")
    with pytest.raises(OSError, match="Input/output error"):
        mirror.copy()


def test_a_sparse_source_is_copied_whole(mirrored: Mirrored) -> None:
    mirror, source, copy = mirrored(b"", b"")
    with open(source, "r+b") as stream:
        for offset in (5, 9 << 20, 20 << 20):
            stream.seek(offset)
            stream.write(b"data")
    mirror.precopy()
    assert copy.read_bytes() == source.read_bytes()


def test_a_file_system_that_gives_less_than_asked_for(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    """FUSE and NFS may end a read in the middle of a file."""
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, at: read(file, [memoryview(buffers[0])[:50_001]], at))
    content = os.urandom(3 * BLOCK + 5)
    mirror, source, copy = mirrored(content, b"")
    mirror.copy()
    assert copy.read_bytes() == content
    copy.write_bytes(bytes(3 * BLOCK + 5))
    assert mirror.estimate() >= len(content) * 0.9
    mirror.repair()
    assert copy.read_bytes() == content
    with open(source, "r+b") as stream:
        stream.seek(2 * BLOCK - 3)
        stream.write(b"changed")
    mirror.repair()
    assert copy.read_bytes() == source.read_bytes()
