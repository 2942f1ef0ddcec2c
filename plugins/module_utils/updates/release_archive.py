# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Source trees of releases: what they are (a digest) and how they travel (one archive).

The digest covers paths, kinds, executable bits, link targets and contents, and nothing that differs
between two checkouts of the same source: no times, owners or umask.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from ..core.errors import InputError
from ..core.fsio import replace, sha256_file

# Old enough to be constant, new enough for tar not to call it implausible.
_MTIME = 315532800


@dataclass(frozen=True)
class Tree:
    """A source tree: its digest (SHA-256, hexadecimal), its number of files and links, and their bytes."""

    digest: str
    files: int
    bytes: int


def describe(root: Path, exclude: Sequence[str] = ()) -> Tree:
    """Read a source tree.

    Args:
        exclude: shell patterns; one without a slash matches a name at any depth, one with a slash a path
            from the root. What lies below an excluded directory is left out with it.

    Raises InputError when there is no such directory, nothing is left in it, or it holds something that
    is no part of a release: a link that leads out of the tree, a device, a socket.
    """
    digest = hashlib.sha256()
    files = size = 0
    for relative in _entries(Path(root), exclude):
        path = Path(root) / relative
        if path.is_symlink():
            kind, content = "link", os.readlink(path)
        elif path.is_dir():
            kind, content = "directory", ""
        else:
            kind, content = ("executable" if _executable(path) else "file"), sha256_file(path)
            size += path.stat().st_size
        files += kind != "directory"
        # Every field is closed by a byte that cannot be part of it, so that no two trees read the same.
        for field in (relative.as_posix(), kind, content):
            digest.update(os.fsencode(field) + b"\0")
    if not files:
        raise InputError("holds no file to release", subject=str(root))
    return Tree(digest.hexdigest(), files, size)


def pack(root: Path, dest: Path, exclude: Sequence[str] = ()) -> None:
    """Write a source tree to a tar.gz with normalised owners, modes and times; atomic, readable by its owner only."""
    descriptor, name = tempfile.mkstemp(prefix=f".{dest.name}.", suffix=".tmp", dir=dest.parent)
    try:
        with os.fdopen(descriptor, "wb") as raw:
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as stream:
                with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
                    for relative in _entries(Path(root), exclude):
                        _add(archive, Path(root) / relative, relative)
            raw.flush()
            os.fsync(raw.fileno())
        replace(Path(name), dest)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _add(archive: tarfile.TarFile, path: Path, relative: PurePosixPath) -> None:
    info = archive.gettarinfo(str(path), relative.as_posix())
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mtime = _MTIME
    info.mode = 0o755 if info.isdir() or info.issym() or _executable(path) else 0o644
    if info.islnk():
        # A hard link's second name is a file of its own in a release.
        info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.stat().st_size
    if info.isreg():
        with open(path, "rb") as stream:
            archive.addfile(info, stream)
    else:
        archive.addfile(info)


def _entries(root: Path, exclude: Sequence[str]) -> Iterator[PurePosixPath]:
    """Paths below `root` in a fixed order, directories before what they hold."""
    if not root.is_dir():
        raise InputError("is not a directory", subject=str(root))
    yield from _below(root, PurePosixPath(), exclude)


def _below(root: Path, relative: PurePosixPath, exclude: Sequence[str]) -> Iterator[PurePosixPath]:
    for name in sorted(os.listdir(root / relative)):
        inner = relative / name
        if _excluded(inner, exclude):
            continue
        path = root / inner
        if path.is_symlink():
            _check_link(root, path)
        elif not (path.is_dir() or path.is_file()):
            raise InputError("is neither a file, a directory nor a link", subject=str(path))
        yield inner
        if path.is_dir() and not path.is_symlink():
            yield from _below(root, inner, exclude)


def _check_link(root: Path, path: Path) -> None:
    target = os.readlink(path)
    resolved = os.path.normpath(os.path.join(os.path.dirname(path), target))
    if os.path.isabs(target) or os.path.commonpath([resolved, os.path.normpath(root)]) != os.path.normpath(root):
        raise InputError(
            f"leads out of the tree, to {target}", subject=str(path), remedy="Exclude it or copy its target"
        )


def _excluded(relative: PurePosixPath, patterns: Sequence[str]) -> bool:
    return any(
        fnmatchcase(relative.as_posix(), pattern.lstrip("/")) if "/" in pattern else fnmatchcase(relative.name, pattern)
        for pattern in patterns
    )


def _executable(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o100)
