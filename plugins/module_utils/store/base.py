# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup target must be able to do, whatever it is made of.

A store holds immutable objects under relative keys such as `fluxhero/production/generations/<id>/COMMIT`.
Nothing in it is ever overwritten or deleted by the host that makes backups.
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from ..core.errors import InputError, StoreError

CHUNK = 1 << 20
Piece = TypeVar("Piece")


class ObjectMissing(StoreError):
    """There is no object under that key."""


class TooLarge(StoreError):
    """An object is larger than any of its kind may be."""


class AccessDenied(StoreError):
    """The credentials of this store do not allow the operation."""


@dataclass(frozen=True)
class ObjectInfo:
    """An object as a listing shows it: size in bytes, time of its last change in UTC."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class Version:
    """One version of an object. A store without versions has one of each, named with an empty text.

    Attributes:
        latest: what a reader gets who does not ask for a version.
        marker: a delete marker: it hides the versions before it, and holds nothing.
    """

    key: str
    version: str
    size: int
    modified: datetime
    latest: bool = True
    marker: bool = False


@dataclass(frozen=True)
class Unfinished:
    """An upload that was begun and neither completed nor aborted; `id` is the store's name for it."""

    key: str
    id: str
    started: datetime


class Store(abc.ABC):
    """One backup target. Every failure is a StoreError whose subject is the object's key or the target."""

    name: str
    # Asked between the pieces of a transfer, with what is being done; what it raises ends the transfer.
    interrupt: Callable[[str], None] | None = None

    @abc.abstractmethod
    def check(self) -> None:
        """Raise StoreError unless the target answers and is the one that is meant. Writes nothing."""

    @abc.abstractmethod
    def stat(self, key: str) -> ObjectInfo | None:
        """The object's size and time, or None when there is none."""

    @abc.abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below `prefix`, which is empty or ends with a slash, in order of the keys."""

    def foreign(self, _prefix: str) -> Iterator[str]:
        """What lies below `prefix` and can be no object, for people to look at; nobody touches it."""
        return iter(())

    @abc.abstractmethod
    def put_file(
        self, key: str, path: Path, sha256: str, *, renew_after_s: float | None = None, give: bool = False
    ) -> bool:
        """Store a file durably, and read it back whole to compare its SHA-256.

        Args:
            give: nobody needs the file afterwards but to remove it: the object may be this very file.
            renew_after_s: what is there already with the same content counts as new again when it is older than
                this: a pruner that looks at ages, and may be at work right now, leaves it alone.

        Returns:
            True when it was written, False when the same content was there already.

        Raises:
            StoreError: the target fails, or holds different content under that key, which is left as it is.
        """

    @abc.abstractmethod
    def renew(self, key: str) -> None:
        """Make an object that is there count as new, for a pruner that looks at ages. Its content stays."""

    @abc.abstractmethod
    def put_new(self, key: str, data: bytes) -> None:
        """Store a small new object. Raises StoreError when there is one already, whatever its content."""

    @abc.abstractmethod
    def read(self, key: str, version: str = "") -> AbstractContextManager[Iterator[bytes]]:
        """The content of an object, of its latest version unless told otherwise, in chunks.

        Raises ObjectMissing when there is none.
        """

    def versions(self, prefix: str) -> Iterator[Version]:
        """Every version of every object below `prefix`, hidden ones and delete markers too; newest first per key."""
        for item in self.list(prefix):
            yield Version(item.key, "", item.size, item.modified)

    @abc.abstractmethod
    def delete(self, key: str, version: str = "") -> None:
        """Remove one version for good; none to remove is no error.

        Raises AccessDenied when the credentials or a lock forbid it.
        """

    @abc.abstractmethod
    def retained_until(self, key: str, version: str = "") -> datetime | None:
        """Until when the store itself refuses to delete that version; None when nothing is locked."""

    @abc.abstractmethod
    def now(self) -> datetime:
        """The time by the clock that dates this store's objects, UTC."""

    @abc.abstractmethod
    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """Uploads below `prefix` that were begun and never ended."""

    @abc.abstractmethod
    def abort(self, upload: Unfinished) -> None:
        """End an unfinished upload and free its space."""

    def exists(self, key: str) -> bool:
        """Whether there is an object under that key."""
        return self.stat(key) is not None

    def get_bytes(self, key: str, limit: int = 1 << 20, version: str = "") -> bytes:
        """The content of a small object; StoreError when it is longer than `limit` bytes."""
        data = bytearray()
        with self.read(key, version) as chunks:
            for chunk in chunks:
                data += chunk
                if len(data) > limit:
                    raise TooLarge(f"is larger than the {limit} bytes that such an object may have", subject=key)
        return bytes(data)

    def digest(self, key: str) -> str:
        """SHA-256 of an object's content, read whole from the target."""
        with self.read(key) as chunks:
            return self._digest(chunks, key)

    def _digest(self, pieces: Iterator[bytes], key: str) -> str:
        digest = hashlib.sha256()
        for piece in self._interruptible(pieces, key):
            digest.update(piece)
        return digest.hexdigest()

    def _interruptible(self, pieces: Iterator[Piece], key: str) -> Iterator[Piece]:
        for piece in pieces:
            if self.interrupt is not None:
                self.interrupt(f"transferring {key}")
            yield piece

    def _same_content(self, key: str, found: ObjectInfo, size: int, sha256: str) -> None:
        """Raise StoreError unless the object that is there has this size and digest."""
        if found.size != size or self.digest(key) != sha256:
            raise StoreError(
                f"target {self.name} already holds different content under this key",
                subject=key,
                untouched="the object that is there",
                remedy="find out who wrote it; stored objects are never overwritten",
            )


def checked_key(key: str, *, prefix: bool = False) -> str:
    """The key itself when it is a relative path without tricks, else InputError."""
    body = key[:-1] if prefix and key.endswith("/") else key
    if prefix and not key:
        return key
    if any(part in ("", ".", "..") for part in body.split("/")) or "\0" in key or "\\" in key:
        raise InputError(f"{key!r} is not a valid object key")
    if prefix and not key.endswith("/"):
        raise InputError(f"the prefix {key!r} must end with a slash")
    return key
