"""Copying and repairing one file after another that changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fluxmaint.core.clock import Clock
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


def test_precopy_stops_when_the_source_rests_and_when_it_never_does(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, source, copy = mirrored(os.urandom(17 << 20), b"")
    mirror.precopy()
    assert mirror.passes == 1
    assert copy.read_bytes() == source.read_bytes()

    restless, source, _copy = mirrored(os.urandom(17 << 20), b"")
    original = Mirror.repair

    def repair(self: Mirror) -> int:
        source.write_bytes(os.urandom(17 << 20))
        return original(self)

    monkeypatch.setattr(Mirror, "repair", repair)
    monkeypatch.setattr(Mirror, "copy", lambda self: source.write_bytes(os.urandom(17 << 20)))
    restless.precopy()
    assert 1 <= restless.passes <= 8
