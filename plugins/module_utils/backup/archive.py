# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files into archives, and out of them again without trusting what an archive says.

An archive is a plain tar whose member names are the absolute paths without the leading slash. Files are
copied aside before they go in, so that what is hashed is what is archived, even while a service writes.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, cast

from ..core.clock import Clock, from_timestamp, parse_utc, utc_text
from ..core.errors import InputError, IntegrityError, PreconditionError
from ..core.fsio import open_regular, private_opener
from .crypto import DigestingWriter
from .manifest import FileEntry

_CHUNK = 1 << 20
_TRIES = 4
_PAUSE_S = 0.25


class UnsettledError(InputError):
    """A file kept changing while it was read."""


@dataclass(frozen=True)
class Copied:
    """A private copy of a file, and the file as it was when it was copied."""

    entry: FileEntry
    copy: Path


def describe(
    path: Path, status: os.stat_result, *, sha256: str = "", size: int | None = None, link: str = ""
) -> FileEntry:
    """The manifest's entry for a file."""
    return FileEntry(
        path=str(path),
        owner=_user(status.st_uid),
        group=_group(status.st_gid),
        mode=f"{stat.S_IMODE(status.st_mode):04o}",
        bytes=status.st_size if size is None else size,
        sha256=sha256,
        modified=utc_text(from_timestamp(status.st_mtime)),
        link=link,
    )


def copy_aside(path: Path, copy: Path, *, growing: bool = False, clock: Clock | None = None) -> Copied:
    """Copy a regular file, hashing what is read, until it did not change meanwhile.

    Args:
        copy: where to; made anew, private.
        growing: the file may be appended to; what it held at the beginning is copied.

    Raises:
        InputError: the file is missing, or is not a regular file (symbolic links are not followed).
        UnsettledError: it changed each time.
    """
    clock = clock or Clock()
    for attempt in range(_TRIES):
        if attempt:
            clock.sleep(_PAUSE_S)
        with open_regular(path, follow=False) as source:
            before = os.fstat(source.fileno())
            # A byte more than there was tells that it grew; reading to the end might never end.
            digest = _write_copy(path, source, copy, before.st_size + (0 if growing else 1))
            after = os.fstat(source.fileno())
        whole = digest[0] == before.st_size
        if whole and (growing or _same(before, after)):
            return Copied(describe(path, before, sha256=digest[1], size=digest[0]), copy)
    raise UnsettledError(f"changed during each of {_TRIES} readings", subject=str(path))


def _write_copy(path: Path, source: IO[bytes], copy: Path, limit: int) -> tuple[int, str]:
    """Tell a source that cannot be read, which an optional file may be, from a copy that cannot be written."""
    try:
        with open(copy, "wb", opener=private_opener) as output:
            return _copy(_Readable(path, source), output, limit)
    except OSError as error:
        raise PreconditionError(
            f"cannot be copied to {copy}: {error.strerror}", subject=str(path), errno=error.errno
        ) from None


class _Readable:
    """A file whose reading errors are InputErrors."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self._path = path
        self._stream = stream

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", subject=str(self._path)) from None


def regular_files(
    top: Path, *, exclude: Sequence[str] = (), unreadable: Callable[[InputError], None] | None = None
) -> Iterator[tuple[Path, os.stat_result]]:
    """Every regular file and symbolic link below `top`, in order, without directories named in `exclude`.

    Args:
        unreadable: told of each directory or file that cannot be looked at, and the walk goes on; without it the
            first one ends the walk with an InputError. What vanishes meanwhile, as logs are rotated, is none.
    """

    def failed(error: OSError) -> None:
        if isinstance(error, FileNotFoundError) and error.filename != os.fspath(top):
            return
        found = InputError(f"cannot be read: {error.strerror}", subject=str(error.filename or top))
        if unreadable is None:
            raise found from None
        unreadable(found)

    for directory, names, files in os.walk(top, onerror=failed):
        links = [name for name in names if os.path.islink(os.path.join(directory, name))]
        names[:] = sorted(name for name in names if name not in exclude and name not in links)
        for name in sorted(files + links):
            if name in exclude:
                continue
            path = Path(directory, name)
            try:
                status = path.lstat()
            except OSError as error:
                failed(error)
                continue
            if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                yield path, status


class ArchiveWriter:
    """A tar stream that files are added to one after the other; `entries` lists what went in."""

    def __init__(self, output: DigestingWriter) -> None:
        stream = cast("IO[bytes]", output)
        self._tar = tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - see __exit__
        self.entries: list[FileEntry] = []

    def add(self, copied: Copied) -> None:
        """Add a copied file."""
        with open(copied.copy, "rb") as source:
            self._tar.addfile(_header(copied.entry), source)
        self.entries.append(copied.entry)

    def add_link(self, path: Path, status: os.stat_result) -> None:
        """Add a symbolic link; a target that is absolute or climbs above the root is rewritten to the same place."""
        target = os.readlink(path)
        if not stays_inside(str(path).lstrip("/"), target):
            target = os.path.relpath(os.path.normpath(path.parent / target), path.parent)
        entry = describe(path, status, size=0, link=target)
        self._tar.addfile(_header(entry))
        self.entries.append(entry)

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the end of the archive, unless something was raised."""
        self._tar.__exit__(kind, error, trace)


def extract(archive: Path, directory: Path, expected: Iterable[FileEntry], *, subject: str) -> list[FileEntry]:
    """Extract exactly the files that the signed manifest lists, below the empty `directory`.

    Owners and modes are not set: files come out private, and whoever puts them into place decides. Symbolic
    links are made last, so that nothing is ever written through one.

    Raises:
        IntegrityError: naming `subject`: a member is not listed, listed otherwise, twice there, missing, of a
            kind that no backup holds (devices, hard links), or points outside of `directory`.
    """
    wanted = {entry.member: entry for entry in expected}
    done: list[FileEntry] = []
    links: list[tuple[Path, FileEntry]] = []

    def refuse(name: str, why: str) -> IntegrityError:
        return IntegrityError(f"holds the member {name!r:.200}, which {why}", subject=subject, member=name)

    try:
        with tarfile.open(archive, mode="r:") as tar:
            for member in tar:
                name = member.name
                plain = PurePosixPath(name)
                if plain.is_absolute() or ".." in plain.parts or str(plain) != name or "\0" in name:
                    raise refuse(name, "leads out of the directory")
                if not (member.isreg() or member.issym()):
                    raise refuse(name, "is neither a file nor a symbolic link")
                entry = wanted.pop(name, None)
                if entry is None:
                    raise refuse(name, "the manifest does not list, or lists once")
                path = directory / name
                if member.issym():
                    if member.linkname != entry.link or not stays_inside(name, member.linkname):
                        raise refuse(name, f"is a link to {member.linkname!r:.200}")
                    links.append((path, entry))
                else:
                    source = tar.extractfile(member)
                    if entry.link or source is None or _place(source, path, directory) != (entry.bytes, entry.sha256):
                        raise refuse(name, "is not what the manifest describes")
                done.append(entry)
        if wanted:
            raise IntegrityError(f"lacks {len(wanted)} files, {next(iter(wanted))!r} is one", subject=subject)
        for path, entry in links:
            _directories(path.parent, directory)
            os.symlink(entry.link, path)
    except (tarfile.TarError, EOFError) as error:
        raise IntegrityError(f"is not a readable archive: {error}", subject=subject) from None
    except (FileExistsError, NotADirectoryError):
        raise IntegrityError("holds a member that is a file and a directory at once", subject=subject) from None
    return done


def stays_inside(member: str, link: str) -> bool:
    """Whether a link at `member` with the target `link` stays below the directory that both are relative to."""
    if os.path.isabs(link) or not link:
        return False
    depth = len(PurePosixPath(member).parts) - 1
    for part in PurePosixPath(link).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return False
    return True


def _place(source: IO[bytes], path: Path, directory: Path) -> tuple[int, str]:
    _directories(path.parent, directory)
    with open(path, "xb", opener=private_opener) as output:
        digest = _copy(source, output, None)
        os.fsync(output.fileno())
    return digest


def _directories(path: Path, top: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.resolve().is_relative_to(top.resolve()):
        raise IntegrityError("would be extracted outside of the directory", subject=str(path))


def _copy(source: IO[bytes] | _Readable, output: IO[bytes], limit: int | None) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    while limit is None or size < limit:
        chunk = source.read(_CHUNK if limit is None else min(_CHUNK, limit - size))
        if not chunk:
            break
        digest.update(chunk)
        output.write(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def _header(entry: FileEntry) -> tarfile.TarInfo:
    header = tarfile.TarInfo(entry.member)
    header.size = entry.bytes
    header.mode = entry.mode_bits
    header.uname, header.gname = entry.owner, entry.group
    header.mtime = int(parse_utc(entry.modified).timestamp())
    if entry.link:
        header.type = tarfile.SYMTYPE
        header.linkname = entry.link
    return header


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


def _named(look_up: Callable[[int], str], number: int) -> str:
    try:
        return look_up(number)
    except KeyError:
        return str(number)


def _user(uid: int) -> str:
    return _named(lambda number: pwd.getpwuid(number).pw_name, uid)


def _group(gid: int) -> str:
    return _named(lambda number: grp.getgrgid(number).gr_name, gid)
