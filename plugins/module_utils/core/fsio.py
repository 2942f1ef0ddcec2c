# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that survive a power cut: write beside, fsync, rename, fsync the directory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .errors import InputError

_CHUNK = 1 << 20


@contextlib.contextmanager
def private_umask() -> Iterator[None]:
    """Files made inside are readable by their owner only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def fsync_file(path: Path) -> None:
    """Bring a file's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_dir(path: Path) -> None:
    """Bring a directory's entries to the disk, so that a rename inside it is durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(source: Path, destination: Path) -> None:
    """Rename within one file system, atomically and durably."""
    os.replace(source, destination)
    fsync_dir(destination.parent)
    if source.parent != destination.parent:
        fsync_dir(source.parent)


def atomic_write(path: Path, data: bytes, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part.

    Args:
        mode: permissions of the new file.
        owner: user and group id; without it those of the process.
    """
    path = Path(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            os.fsync(stream.fileno())
        replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def private_opener(path: str, flags: int) -> int:
    """For `open`: a file that only its owner can read, never through a symbolic link."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


@contextlib.contextmanager
def complete_file(path: Path) -> Iterator[IO[bytes]]:
    """A new private file, to write and to read: it has its name, durably, when the block ends; never after an error."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "w+b", opener=private_opener) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def open_regular(path: Path, *, follow: bool = True) -> Iterator[IO[bytes]]:
    """A regular file to read from; a FIFO, whose opening may never end, is refused as everything else is.

    Args:
        follow: whether the path may be a symbolic link.

    Raises InputError naming the file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        link = " (a symbolic link; name the file itself)" if not follow and os.path.islink(path) else ""
        raise InputError(f"cannot be read: {error.strerror}{link}", subject=str(path)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError("is not a regular file", subject=str(path))
    with os.fdopen(descriptor, "rb") as stream:
        yield stream


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def free_bytes(path: Path) -> int:
    """Bytes that this process may still write on the file system of `path`, an existing directory."""
    return shutil.disk_usage(path).free


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises InputError naming the file when it is missing, not a regular file or not JSON."""
    try:
        with open_regular(path) as stream:
            return json.loads(stream.read())
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", subject=str(path)) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not valid JSON: {error}", subject=str(path)) from None


def json_bytes(obj: Any) -> bytes:
    """JSON as this project writes it to files: sorted, indented, with a final newline."""
    return (json.dumps(obj, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_json(path: Path, obj: Any, mode: int = 0o600) -> None:
    """Write `obj` as JSON, atomically."""
    atomic_write(path, json_bytes(obj), mode)
