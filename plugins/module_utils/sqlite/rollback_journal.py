# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge the `-journal` file beside a database before anything rolls it back.

SQLite plays back any well-formed journal it finds beside a database, also one that belongs to another
file: a database restored or copied over an old journal is destroyed by its first reader. The journal's
own copy of page 1 tells: a transaction raises the change counter of the file by one, so the journal of
this database holds the counter of the file, or the one before it.
Format: https://www.sqlite.org/fileformat2.html#the_rollback_journal
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .connect import HEADER_BYTES, parse_header

_MAGIC = bytes.fromhex("d9d505f920a163d7")
_HEADER = 28
_WHOLE_FILE = 0xFFFFFFFF


@dataclass(frozen=True)
class Journal:
    """What lies beside a database.

    Attributes:
        kind: `none` (no file), `idle` (empty or wiped, as PERSIST and TRUNCATE leave it),
            `fitting` (would be rolled back if its writer is dead, and belongs to this database),
            `foreign` (would be rolled back, and does not belong to it).
        reason: why it is foreign; else empty.
    """

    kind: str
    reason: str = ""


def inspect(database: Path, header_bytes: bytes) -> Journal:
    """Judge `<database>-journal`.

    Args:
        header_bytes: the first 100 bytes of the database, read by the caller, who may hold a descriptor of
            it: opening and closing another one here would drop locks.
    """
    try:
        descriptor = os.open(f"{database}-journal", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Journal("none")
    try:
        return _judge(descriptor, header_bytes)
    finally:
        os.close(descriptor)


def _judge(descriptor: int, header_bytes: bytes) -> Journal:
    start = os.pread(descriptor, _HEADER, 0)
    if not start.startswith(_MAGIC) or len(start) < _HEADER:
        return Journal("idle")
    database = parse_header(header_bytes)
    if database is None:
        # Page 1 may have been torn by the crash; only the journal can repair it.
        return Journal("fitting")
    pages_before = int.from_bytes(start[16:20], "big")
    page_size = int.from_bytes(start[24:28], "big")
    if page_size != database.page_size:
        return Journal("foreign", f"its page size is {page_size}, the database has {database.page_size}")
    first_page = _first_page(descriptor, page_size)
    if first_page is None:
        # Page 1 is untouched, so the header of the file still tells the size before the transaction.
        if database.page_count and database.page_count != pages_before:
            return Journal(
                "foreign", f"it is for a database of {pages_before} pages, this one has {database.page_count}"
            )
        return Journal("fitting")
    before = parse_header(first_page)
    if before is None:
        return Journal("foreign", "its copy of page 1 is not a database header")
    if (database.change_counter - before.change_counter) % (1 << 32) > 1:
        return Journal(
            "foreign",
            f"it undoes a transaction after change {before.change_counter}, "
            f"the database is at change {database.change_counter}",
        )
    return Journal("fitting")


def _first_page(descriptor: int, page_size: int) -> bytes | None:
    """The original header of page 1 as saved in the journal; None when it is not in there."""
    end = os.fstat(descriptor).st_size
    offset, record = 0, page_size + 8
    while offset + _HEADER <= end:
        header = os.pread(descriptor, _HEADER, offset)
        if not header.startswith(_MAGIC):
            return None
        sector = int.from_bytes(header[20:24], "big")
        if sector < 32:
            return None
        position = offset + sector
        records = int.from_bytes(header[8:12], "big")
        if records in (0, _WHOLE_FILE):
            # Not synced, or never meant to be: as many as are there.
            records = (end - position) // record
        for _number in range(records):
            if position + record > end:
                return None
            if os.pread(descriptor, 4, position) == b"\x00\x00\x00\x01":
                return os.pread(descriptor, HEADER_BYTES, position + 4)
            position += record
        # The next segment begins at the next sector boundary.
        offset = -(-position // sector) * sector
    return None
