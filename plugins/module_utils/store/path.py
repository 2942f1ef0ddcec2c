# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A target that is a directory: a local disk, or a file system mounted from elsewhere."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from ..core.clock import Clock, from_timestamp
from ..core.errors import StoreError
from ..core.fsio import fsync_dir, private_opener
from .base import CHUNK, AccessDenied, ObjectInfo, ObjectMissing, Store, Unfinished, checked_key
from .throttle import Throttle

_PARTIAL = ".partial-"
_MODE = 0o600
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


class PathStore(Store):
    """Objects as files of mode 0600 below one directory.

    Args:
        name: the target's name in the configuration.
        path: the directory; it must exist and hold the marker file, so that a directory whose file system
            is not mounted is never filled by mistake.
        require_mount: the directory must be a mount point, or lie below one other than `/`.
        marker: name of the marker file.
        bandwidth_limit_bytes_s: most bytes a second while storing; 0 is no limit.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        require_mount: bool = False,
        marker: str = ".fluxmaint-target",
        bandwidth_limit_bytes_s: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.path = Path(path)
        self.require_mount = require_mount
        self.marker = marker
        self._throttle = Throttle(bandwidth_limit_bytes_s, clock or Clock())

    def check(self) -> None:
        """Raise StoreError unless directory, mount and marker are as they must be."""
        if not self.path.is_dir():
            raise StoreError(f"target {self.name} is not a directory", subject=str(self.path), untouched="everything")
        if self.require_mount and not _below_mount(self.path):
            raise StoreError(
                f"target {self.name} must be on a mounted file system, and none is mounted there",
                subject=str(self.path),
                untouched="everything",
                remedy="mount it and try again",
            )
        self._require_marker(self.path)

    def _require_marker(self, directory: Path) -> None:
        try:
            marked = stat.S_ISREG((directory / self.marker).lstat().st_mode)
        except OSError:
            marked = False
        if not marked:
            raise StoreError(
                f"target {self.name} lacks its marker file {self.marker}: it is not mounted, or not prepared",
                subject=str(self.path),
                untouched="everything",
                remedy="mount it, or apply the role backup, which makes the marker",
            )

    def stat(self, key: str) -> ObjectInfo | None:
        """The object's size and time, or None when there is none."""
        self.check()
        with self._errors(key):
            try:
                found = self._file(key).lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            if not stat.S_ISREG(found.st_mode):
                raise StoreError("is not a regular file", subject=key)
            return _info(key, found)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below `prefix`; partial files of interrupted writes and what is `foreign` are not objects."""
        found = [
            _info(key, status)
            for key, status in self._files(prefix)
            if not Path(key).name.startswith(_PARTIAL) and _is_key(key) and key != self.marker
        ]
        yield from sorted(found, key=lambda item: item.key)

    def foreign(self, prefix: str) -> Iterator[str]:
        """Files whose names are no valid UTF-8, with the bytes that are not as escapes."""
        yield from sorted(_shown(key) for key, _status in self._files(prefix) if not _is_key(key))

    def _files(self, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        """Every regular file below `prefix`, in no order."""
        self.check()
        top = self.path / checked_key(prefix, prefix=True)
        with self._errors(prefix):
            for directory, _names, files in os.walk(top, onerror=_walk_error):
                for name in files:
                    file = Path(directory, name)
                    try:
                        status = file.lstat()
                    except FileNotFoundError:  # removed meanwhile
                        continue
                    if stat.S_ISREG(status.st_mode):
                        yield file.relative_to(self.path).as_posix(), status

    def put_file(
        self, key: str, path: Path, sha256: str, *, renew_after_s: float | None = None, give: bool = False
    ) -> bool:
        """Copy the file beside its final name, fsync, re-read and hash it, then give it its name.

        A file that is given away, on the file system of the target, becomes the object without being copied.
        """
        with open(path, "rb") as source:
            size = os.fstat(source.fileno()).st_size
            chunks = iter(lambda: source.read(CHUNK), b"")
            written = self._put(key, chunks, size, sha256, path if give else None)
        if not written and renew_after_s is not None:
            self.renew(key)
        return written

    def renew(self, key: str) -> None:
        """Set the file's time to now."""
        self.check()
        with self._errors(key):
            os.utime(self._file(key))

    def put_new(self, key: str, data: bytes) -> None:
        """Store a new object, or raise StoreError when there is one."""
        if not self._put(key, iter([data]), len(data), hashlib.sha256(data).hexdigest()):
            raise StoreError(f"exists already on target {self.name}", subject=key, untouched="the object that is there")

    def delete(self, key: str, version: str = "") -> None:
        """Remove the object, durably, and the directories that it leaves empty."""
        self.check()
        file = self._file(key, version)
        with self._errors(key):
            try:
                file.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            fsync_dir(file.parent)
            for directory in file.parents:
                if directory == self.path or any(directory.iterdir()):
                    break
                directory.rmdir()
                fsync_dir(directory.parent)

    def retained_until(self, key: str, version: str = "") -> datetime | None:
        """None: a directory locks nothing."""
        self._file(key, version)
        return None

    def now(self) -> datetime:
        """This host's clock, which dates the files."""
        return datetime.now(timezone.utc)

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """Partial files of interrupted writes."""
        found = [
            Unfinished(key, "", from_timestamp(status.st_mtime))
            for key, status in self._files(prefix)
            if Path(key).name.startswith(_PARTIAL) and _is_key(key)
        ]
        yield from sorted(found, key=lambda item: item.key)

    def abort(self, upload: Unfinished) -> None:
        """Remove a partial file."""
        self.delete(upload.key)

    @contextlib.contextmanager
    def read(self, key: str, version: str = "") -> Iterator[Iterator[bytes]]:
        """The object's content in chunks."""
        self.check()
        with self._errors(key):
            stream = open(self._file(key, version), "rb", opener=_reading)  # noqa: SIM115 - closed below
        with stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ObjectMissing(f"is not a regular file on target {self.name}", subject=key)

            def chunks() -> Iterator[bytes]:
                with self._errors(key):  # what the reader does with them is not this target's failure
                    yield from iter(lambda: stream.read(CHUNK), b"")

            yield chunks()

    def _put(self, key: str, chunks: Iterator[bytes], size: int, sha256: str, given: Path | None = None) -> bool:
        found = self.stat(key)
        if found is not None:
            self._same_content(key, found, size, sha256)
            return False
        with self._errors(key), self._held() as top:
            self._write(key, top / checked_key(key), chunks, sha256, given)
        return True

    @contextlib.contextmanager
    def _held(self) -> Iterator[Path]:
        """A path of the target's directory that leads to the same one, whatever is mounted or unmounted meanwhile."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            top = Path(f"/proc/self/fd/{descriptor}")
            self._require_marker(top)
            yield top
        finally:
            os.close(descriptor)

    def _write(self, key: str, final: Path, chunks: Iterator[bytes], sha256: str, given: Path | None) -> None:
        # One writer at a time holds the backup lock, so a fixed name lets the next run reuse what a killed one left.
        partial = final.with_name(_PARTIAL + final.name)
        self._make_directories(final.parent)
        partial.unlink(missing_ok=True)
        try:
            linked = given is not None and _linked(given, partial)
            with open(partial, "rb" if linked else "xb", opener=None if linked else private_opener) as stream:
                if linked:
                    os.utime(stream.fileno())  # a pruner looks at the age of the object
                else:
                    stream.writelines(self._throttle.chunks(self._interruptible(chunks, key)))
                    stream.flush()
                os.fsync(stream.fileno())
                # Written pages leave the cache, so that reading back reads what the disk has.
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with open(partial, "rb") as stream:
                received = self._digest(iter(lambda: stream.read(CHUNK), b""), key)
            if received != sha256:
                raise StoreError(
                    f"target {self.name} gave back other bytes than were written",
                    subject=key,
                    expected=sha256,
                    received=received,
                )
            _name_without_overwriting(partial, final)
        finally:
            partial.unlink(missing_ok=True)
        fsync_dir(final.parent)

    def _file(self, key: str, version: str = "") -> Path:
        if version:
            raise ObjectMissing(f"target {self.name} keeps no versions", subject=key)
        return self.path / checked_key(key)

    def _make_directories(self, directory: Path) -> None:
        missing = [parent for parent in (directory, *directory.parents) if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir(mode=0o700, exist_ok=True)
            fsync_dir(parent.parent)

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, IsADirectoryError):
            raise ObjectMissing(f"is missing on target {self.name}", subject=key) from None
        except PermissionError as error:
            raise AccessDenied(f"target {self.name} at {self.path}: {error.strerror}", subject=key) from None
        except FileExistsError:
            raise StoreError(f"appeared on target {self.name} while it was being written", subject=key) from None
        except OSError as error:
            kind = ObjectMissing if error.errno == errno.ELOOP else StoreError  # a link is no object
            raise kind(f"target {self.name} at {self.path}: {error.strerror}", subject=key) from None


def _below_mount(path: Path) -> bool:
    resolved = path.resolve()
    return any(os.path.ismount(parent) for parent in (resolved, *resolved.parents) if parent != Path("/"))


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, from_timestamp(status.st_mtime))


def _is_key(name: str) -> bool:
    return _shown(name) == name


def _shown(name: str) -> str:
    """A file's name as text that can be written anywhere."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _walk_error(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error


def _reading(path: str, flags: int) -> int:
    # Nobody waits for the other end of a pipe that somebody put there.
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _linked(original: Path, partial: Path) -> bool:
    """Give a private file a second name; False where that takes a copy."""
    status = original.lstat()
    if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) != _MODE or status.st_uid != os.geteuid():
        return False
    try:
        os.link(original, partial)
    except OSError as error:
        if error.errno not in (*_NO_HARD_LINKS, errno.EXDEV):
            raise
        return False
    return True


def _name_without_overwriting(partial: Path, final: Path) -> None:
    try:
        os.link(partial, final)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if final.exists():  # a file system without hard links; the backup lock keeps other writers away
            raise FileExistsError(errno.EEXIST, "exists", str(final)) from None
        os.rename(partial, final)
