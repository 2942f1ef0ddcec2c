# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make one open file equal to another that may change meanwhile: copy, then compare and repair."""

from __future__ import annotations

import concurrent.futures
import errno
import fcntl
import os
import random
from collections.abc import Iterator

from ..core import syscalls, writeback
from .connect import Deadline

# What is copied goes to the disk in pieces of this size, two at a time: a commit's fsync waits behind no more.
_PIECE = 4 << 20
# What is compared is divided among threads, which take chunks in turn.
_CHUNK = 8 << 20
# A pair of blocks stays in a core's own cache; larger ones are slower.
_BLOCK = 1 << 18
# What differs inside a block is looked for, and written, in these units.
_UNIT = 1 << 12
_WORKERS = 2
_MOST_PASSES = 8
# Another unlocked pass pays only while writing what differs costs more than comparing everything.
_WORTH_A_PASS = 1 / 32
# Below this the locked comparison alone takes a few milliseconds.
_SMALL = 16 << 20
# How much is compared to learn how much differs: one sample in each of so many equal parts.
_SAMPLES = 256
_SAMPLE = 1 << 16

_FICLONE = 0x40049409
# Other file systems, old kernels, containers that forbid it.
_CANNOT = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ETXTBSY}


class Mirror:
    """Keeps the file behind one descriptor equal to the file behind another.

    Args:
        source: readable descriptor of a regular file.
        copy: readable and writable descriptor of another one.
        deadline: asked between blocks.
        durable: bring the copy to the disk; otherwise only what memory has no room for.
    """

    def __init__(self, source: int, copy: int, deadline: Deadline, *, durable: bool = True) -> None:
        self._source = source
        self._copy = copy
        self._deadline = deadline
        self._durable = durable
        self._in_kernel = hasattr(os, "copy_file_range")
        self.passes = 0

    def clone(self) -> bool:
        """Share the source's blocks with the copy; False where the file system cannot."""
        try:
            fcntl.ioctl(self._copy, _FICLONE, self._source)
        except OSError as error:
            if error.errno in _CANNOT:
                return False
            raise
        self.passes += 1
        return True

    def copy(self) -> None:
        """Copy everything, once. A source that grows meanwhile is copied up to its size at the beginning.

        The copy goes to the disk meanwhile, a few pieces at a time: so the fsync that follows has little left to
        do, and a writer's own fsync never waits behind gigabytes. The blocks are reserved before, because
        some file systems write the data of new blocks out before they complete anybody's commit.
        """
        self.passes += 1
        size = os.fstat(self._source).st_size
        syscalls.preallocate(self._copy, size)
        self._copy_pieces(size)
        os.ftruncate(self._copy, min(size, os.fstat(self._source).st_size))

    def precopy(self) -> None:
        """Bring the copy close to a source that goes on changing, so that little is left for a last `repair`.

        What was copied is on the disk when this ends, if the copy is to be durable: bringing it there after the
        last repair would slow the commits of the writer down that has waited for it.
        """
        self.copy()
        size = os.fstat(self._copy).st_size
        if size < _SMALL:
            return
        self._sync()
        previous = size
        while self.passes < _MOST_PASSES and self.estimate() > size * _WORTH_A_PASS:
            changed = self.repair()
            self._sync()
            if changed > previous / 2:
                break
            previous = changed

    def estimate(self) -> int:
        """About how many bytes differ, from samples: one, at a random place, of each part of the file."""
        size = os.fstat(self._source).st_size
        part = max(-(-size // _SAMPLES), _SAMPLE)
        seen = differ = 0
        theirs, ours = bytearray(_SAMPLE), bytearray(_SAMPLE)
        for start in range(0, size, part):
            offset = start + random.randrange(0, part - _SAMPLE + 1, _UNIT)  # noqa: S311 - nobody gains by guessing it
            count, have = _fill(theirs, self._source, offset), _fill(ours, self._copy, offset)
            seen += count
            if not count == have == _SAMPLE or theirs != ours:
                differ += sum(end - begin for begin, end in _differences(theirs, ours, count, have))
        return differ * size // seen if seen else 0

    def repair(self) -> int:
        """Compare everything and copy what differs; returns the bytes written."""
        self.passes += 1
        size = os.fstat(self._source).st_size
        workers = 1 if size <= _CHUNK else _WORKERS
        # Threads, because reading, comparing and writing release the interpreter lock.
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            parts = [pool.submit(self._repair_chunks, number, workers, size) for number in range(workers)]
            changed = sum(part.result() for part in parts)
        os.ftruncate(self._copy, size)
        return changed

    def _sync(self) -> None:
        if self._durable:
            os.fdatasync(self._copy)

    def _copy_pieces(self, size: int) -> None:
        previous = -1
        stays = size - (0 if self._durable else writeback.room())
        for start in range(0, size, _PIECE):
            end = min(start + _PIECE, size)
            offset = self._copy_in_kernel(start, end)
            if offset < end:
                self._copy_blocks(offset, end)
            self._deadline.check("copying")
            if start >= stays:
                continue
            # Waiting for the piece before keeps the disk's queue, in which others wait, short.
            if syscalls.start_writing(self._copy, start, _PIECE) and previous >= 0:
                syscalls.await_writing(self._copy, previous, _PIECE)
            previous = start

    def _copy_in_kernel(self, start: int, end: int) -> int:
        """Copy a range without bringing it into this process; returns how far that went."""
        while self._in_kernel and start < end:
            try:
                copied = os.copy_file_range(self._source, self._copy, end - start, start, start)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                copied = 0
            self._in_kernel = copied > 0
            start += copied
        return start

    def _copy_blocks(self, start: int, end: int) -> None:
        buffer = bytearray(_BLOCK)
        view = memoryview(buffer)
        for offset in range(start, end, _BLOCK):
            count = _fill(buffer, self._source, offset)
            _write(self._copy, view[: min(count, end - offset)], offset)

    def _repair_chunks(self, first: int, step: int, size: int) -> int:
        theirs, ours = bytearray(_BLOCK), bytearray(_BLOCK)
        view = memoryview(theirs)
        changed = 0
        for start in range(first * _CHUNK, size, step * _CHUNK):
            for offset in range(start, min(start + _CHUNK, size), _BLOCK):
                count, have = _fill(theirs, self._source, offset), _fill(ours, self._copy, offset)
                # bytearray == bytearray is one memcmp; comparing memory views is an order of magnitude slower.
                if count == have == _BLOCK and theirs == ours:
                    continue
                for begin, end in _differences(theirs, ours, count, have):
                    _write(self._copy, view[begin:end], offset + begin)
                    changed += end - begin
            self._deadline.check("comparing")
        return changed


def _differences(theirs: bytearray, ours: bytearray, count: int, have: int) -> Iterator[tuple[int, int]]:
    """The ranges of `theirs[:count]` that differ from `ours[:have]`, neighbours joined."""
    begin = -1
    for start in range(0, count, _UNIT):
        end = min(start + _UNIT, count)
        if end > have or theirs[start:end] != ours[start:end]:
            begin = start if begin < 0 else begin
        elif begin >= 0:
            yield begin, start
            begin = -1
    if begin >= 0:
        yield begin, count


def _fill(buffer: bytearray, descriptor: int, offset: int) -> int:
    """Read until the buffer is full or the file ends; returns how many bytes.

    Local file systems give all at once, FUSE and NFS may give less in the middle of a file.
    """
    size = len(buffer)
    count = more = os.preadv(descriptor, [buffer], offset)
    while more and count < size:
        more = os.preadv(descriptor, [memoryview(buffer)[count:]], offset + count)
        count += more
    return count


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
