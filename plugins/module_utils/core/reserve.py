# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Room on a disk that is kept for the moment when the disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from .errors import PreconditionError
from .fsio import private_opener

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: BaseException) -> bool:
    """Whether an error of the system, or one that the engine made of it, says that a disk or a quota is full."""
    number = error.errno if isinstance(error, OSError) else getattr(error, "facts", {}).get("errno")
    return number in _FULL


class Reserve:
    """A file that holds nothing but room, on the disk on which `path` is. Its directory must exist."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, size: int) -> None:
        """Have at least `size` bytes. Raises PreconditionError when the disk does not have them."""
        with contextlib.suppress(OSError):
            if self._path.stat().st_size >= size:
                return
        try:
            with open(self._path, "wb", opener=private_opener) as stream:
                # Of zeros a file system that compresses would keep none.
                stream.write(os.urandom(size))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            self.release()
            raise PreconditionError(
                f"{size} bytes cannot be put by for when the disk is full: {error.strerror}",
                subject=str(self._path.parent),
                untouched="the service",
                remedy="make room on this file system",
                errno=error.errno,
            ) from None

    def release(self) -> bool:
        """Give the room back. Returns whether there was any."""
        with contextlib.suppress(OSError):
            self._path.unlink()
            return True
        return False
