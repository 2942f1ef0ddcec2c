# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls of the C library that Python has no function for. Each answers False where the system cannot do it."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Optional

Call = Callable[..., int]

_WAIT_BEFORE, _WRITE = 1, 2
# What a kernel or a file system says that cannot do it; anything else is an error of the file.
_CANNOT = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ESPIPE, errno.ENODEV, errno.EPERM}


def _function(name: str, *arguments: type) -> Optional[Call]:
    try:
        found = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return None
    found.argtypes, found.restype = arguments, ctypes.c_int
    call: Call = found
    return call


_fallocate = _function("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_sync_file_range = _function("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def preallocate(descriptor: int, size: int) -> bool:
    """Reserve the blocks of a file of `size` bytes, which becomes its size if it was shorter.

    Raises OSError when there is no space for it. (Where `os.posix_fallocate` would write into each block instead,
    this answers False.)
    """
    return size > 0 and _done(_fallocate, descriptor, 0, 0, size)


def start_writing(descriptor: int, offset: int, count: int) -> bool:
    """Let what was written to a range go to the disk now, without waiting for it.

    Makes nothing durable: that takes an fsync, which then has little left to do.
    """
    return _done(_sync_file_range, descriptor, offset, count, _WRITE)


def await_writing(descriptor: int, offset: int, count: int) -> bool:
    """Wait until what `start_writing` began for a range has ended. Raises OSError when the disk refused it."""
    return _done(_sync_file_range, descriptor, offset, count, _WAIT_BEFORE)


def _done(call: Optional[Call], descriptor: int, *arguments: int) -> bool:
    if call is None:
        return False
    while call(descriptor, *arguments):
        code = ctypes.get_errno()
        if code in _CANNOT:
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True
