# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a log: the one that is written, and those that rotation has left, compressed or not."""

from __future__ import annotations

import bz2
import contextlib
import hashlib
import lzma
import os
import re
import stat
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from ..core.errors import InputError
from ..core.fsio import open_regular
from ..core.run import require_tool

HEAD_BYTES = 4096
TAIL_BYTES = 1024
_CHUNK = 1 << 20
# Compressed bytes taken at once: what they become fits into memory, whatever they are.
_PACKED = 4096
_ROTATED = r"(?:[.-][0-9][\w.-]*?)"
_COMPRESSED = (".gz", ".xz", ".zst", ".bz2")
DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class LogPiece:
    """A file of a log. `live`: the one that is written; else rotation has left it."""

    path: Path
    device: int
    inode: int
    size: int
    modified_ns: int
    live: bool

    @property
    def compressed(self) -> bool:
        """Whether its content is compressed."""
        return self.path.suffix in _COMPRESSED

    @property
    def modified(self) -> float:
        """When it was written last, in seconds since 1970."""
        return self.modified_ns / 1e9


def pieces(live: Path) -> list[LogPiece]:
    """The files of one log in the order of their times: what rotation has left of it, then the file itself.

    Rotated files have the log's name and behind it, or before its last suffix, a number or a date; then perhaps the
    suffix of a compression. Only regular files count, no links.
    """
    ends = "(?:" + "|".join(re.escape(suffix) for suffix in _COMPRESSED) + ")?"
    behind = re.compile(re.escape(live.name) + _ROTATED + ends)
    inside = re.compile(re.escape(live.stem) + r"[._-]\d{4}-?\d\d-?\d\d[\w.-]*?" + re.escape(live.suffix) + ends)
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(live.parent) as entries:
        for entry in entries:
            own = entry.name == live.name
            if not own and not behind.fullmatch(entry.name) and not inside.fullmatch(entry.name):
                continue
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found.append(
                        LogPiece(
                            Path(entry.path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, own
                        )
                    )
    return sorted(found, key=lambda piece: (piece.live, piece.modified_ns, piece.path.name))


def is_rotated(path: Path, names: set[str]) -> bool:
    """Whether a file is what rotation has left of one of the logs with these names, in the same directory."""
    for name in names - {path.name}:
        stem, suffix = os.path.splitext(name)
        behind = path.name.startswith(name) and re.match(_ROTATED, path.name[len(name) :])
        inside = re.fullmatch(re.escape(stem) + r"[._-]\d{4}-?\d\d-?\d\d[\w.-]*" + re.escape(suffix), path.name)
        if behind or inside:
            return True
    return False


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Content:
    """The content of a file, to be read once from some place on.

    Attributes:
        head: its first bytes.
        before: those before the place that was skipped to.
        position: where the next bytes are read.
        shorter: it ends before the place that was skipped to.
    """

    def __init__(self, stream: _Readable, seekable: IO[bytes] | None = None) -> None:
        self._stream = stream
        self._seekable = seekable
        self._ahead = b""
        self.before = b""
        self.position = 0
        self.shorter = False
        self.head = b""
        with contextlib.suppress(*DAMAGED):  # who reads on learns of it
            self.head = self._exactly(HEAD_BYTES)
        self._ahead = self.head

    def skip_to(self, offset: int) -> str:
        """Go to a place at or behind the present one; the digest of the bytes before it, empty when it is shorter."""
        if self._seekable is not None:
            begin = max(0, offset - TAIL_BYTES)
            self._seekable.seek(begin)
            self._ahead = b""
            self.before = self._exactly(offset - begin)
            self.position = begin + len(self.before)
        else:
            with contextlib.suppress(*DAMAGED):
                while self.position < offset and (chunk := self.read(min(_CHUNK, offset - self.position))):
                    self.before = (self.before + chunk)[-TAIL_BYTES:]
        self.shorter = self.position < offset
        return "" if self.shorter else digest(self.before)

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; none at the end."""
        if self._ahead:
            chunk, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            chunk = self._stream.read(size)
        self.position += len(chunk)
        return chunk

    def _exactly(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            part = self._stream.read(size)
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def digest(data: bytes) -> str:
    """A digest that tells contents apart."""
    return hashlib.sha256(data).hexdigest()


class _Unpacker(Protocol):
    """What zlib, lzma and bz2 have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Unpacked:
    """A compressed stream that gives everything up to where it is damaged, in pieces that fit into memory."""

    def __init__(self, raw: IO[bytes], make: Callable[[], _Unpacker]) -> None:
        self._raw = raw
        self._make = make
        self._unpacker: _Unpacker | None = None
        self._ready = b""

    def read(self, size: int) -> bytes:
        while not self._ready:
            data = self._raw.read(_PACKED)
            if not data:
                if self._unpacker is not None and not self._unpacker.eof:
                    raise EOFError("its end is missing")
                return b""
            while data.strip(b"\0") or (data and self._unpacker is not None and not self._unpacker.eof):
                if self._unpacker is None or self._unpacker.eof:
                    self._unpacker = self._make()
                self._ready += self._unpacker.decompress(data)
                data = self._unpacker.unused_data if self._unpacker.eof else b""
        piece, self._ready = self._ready[:size], self._ready[size:]
        return piece


_UNPACKERS: dict[str, Callable[[], _Unpacker]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),
    ".xz": lzma.LZMADecompressor,
    ".bz2": bz2.BZ2Decompressor,
}


def head_digests(head: bytes) -> str:
    """Digests of the beginnings of a content that end with a line, and of all that is given, which is the last."""
    ends = [index + 1 for index, byte in enumerate(head) if byte == 10]
    return " ".join(digest(head[:end])[:16] for end in dict.fromkeys([*ends, len(head)]))


def begins_as(head: bytes, size: int, digests: str) -> bool:
    """Whether a content begins with the `size` bytes that have these digests."""
    return 0 < size <= len(head) and digests.endswith(digest(head[:size])[:16])


def is_part(head: bytes, digests: str) -> bool:
    """Whether the beginning of a content, all of it when it is short, is the beginning of one with these digests."""
    return head != b"" and digest(head)[:16] in digests.split()


@contextlib.contextmanager
def opened(piece: LogPiece) -> Iterator[Content]:
    """The content of a file, decompressed. Raises InputError, or one of DAMAGED for damaged compressed data."""
    with open_regular(piece.path, follow=False) as raw:
        status = os.fstat(raw.fileno())
        if (status.st_dev, status.st_ino) != (piece.device, piece.inode):
            raise InputError("has been replaced while it was looked at", subject=str(piece.path))
        suffix = piece.path.suffix
        if suffix == ".zst":
            with _zstd(raw) as stream:
                yield Content(stream)
            return
        make = _UNPACKERS.get(suffix)
        if make is not None:
            yield Content(_Unpacked(raw, make))
        else:
            yield Content(raw, seekable=raw)


@contextlib.contextmanager
def _zstd(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    with subprocess.Popen(
        [require_tool("zstd"), "-q", "-d", "-c"], stdin=raw, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        output = process.stdout
        if output is None:
            raise InputError("cannot be decompressed")
        try:
            yield output
            if not output.read(1) and process.wait() != 0:
                raise EOFError("zstd says that it is damaged")
        finally:
            process.kill()
