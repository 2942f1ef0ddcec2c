# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages of a database file that may be damaged: nothing that a page says is believed before it fits.

SQLite gives up at the first page that does not fit, and with it all that lies below or behind. Here each page, and
each cell of a page, is judged by itself. Format: https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

INTERIOR_INDEX, INTERIOR_TABLE, LEAF_INDEX, LEAF_TABLE = 2, 5, 10, 13
INTERIORS = (INTERIOR_INDEX, INTERIOR_TABLE)
_HEADER = {INTERIOR_INDEX: 12, INTERIOR_TABLE: 12, LEAF_INDEX: 8, LEAF_TABLE: 8}
# Bytes of a value by its serial type; 10 and 11 do not occur in files.
_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
_LOCK_BYTE = 0x40000000
_SMALLEST, _LARGEST = 512, 65536


class Unfit(ValueError):
    """Bytes are not what the format wants at this place."""


class Cell(NamedTuple):
    """One cell of a page that fits.

    Attributes:
        offset, end: where it lies in the page.
        key: row number; of an index page 0.
        child: page of the left subtree; 0 on a leaf.
        types: serial types of its record's values; empty on an interior page of a table.
        overflow: first page of what does not fit into this one; 0 when everything does.
        rest: bytes that lie there.
        record: offset of the payload in the page.
        payload: bytes of the whole payload.
    """

    offset: int
    end: int
    key: int = 0
    child: int = 0
    types: Sequence[int] = ()
    overflow: int = 0
    rest: int = 0
    record: int = 0
    payload: int = 0


@dataclass
class Page:
    """A page as far as it fits: `dropped` counts the cells that do not, `count` is what its header says."""

    number: int
    kind: int
    data: bytes
    count: int
    cells: list[Cell]
    dropped: int
    right: int = 0

    @property
    def leaf(self) -> bool:
        """Whether it has no children."""
        return self.kind not in INTERIORS


class PageFile:
    """Reads pages by number, from 1.

    Args:
        descriptor: of the file; stays open.
        page_size: bytes.
        reserved: unused bytes at the end of each page.
    """

    def __init__(self, descriptor: int, page_size: int, reserved: int = 0) -> None:
        self._descriptor = descriptor
        self.page_size = page_size
        self.usable = page_size - reserved
        self.count = os.fstat(descriptor).st_size // page_size
        self.lock_page = _LOCK_BYTE // page_size + 1

    def exists(self, number: int) -> bool:
        """Whether there is such a page, and SQLite would use it."""
        return 1 <= number <= self.count and number != self.lock_page

    def bytes_of(self, number: int) -> bytes:
        """The content of a page. Raises Unfit when there is none."""
        if not self.exists(number):
            raise Unfit(f"there is no page {number}")
        return os.pread(self._descriptor, self.page_size, (number - 1) * self.page_size)

    def kind(self, number: int) -> int:
        """The kind of a page of a tree by its first byte; 0 when it is none."""
        start = 100 if number == 1 else 0
        first = os.pread(self._descriptor, 1, (number - 1) * self.page_size + start)
        return first[0] if first and first[0] in _HEADER else 0

    def read(self, number: int, *, outline: bool = False) -> Page:
        """A page of a tree with the cells that fit. Raises Unfit when it is no such page.

        Args:
            outline: of the cells only the pointers to children, and none on a leaf: enough to follow an index.
        """
        data = self.bytes_of(number)
        start = 100 if number == 1 else 0
        kind = data[start]
        if kind not in _HEADER:
            raise Unfit(f"page {number} belongs to no tree")
        count = int.from_bytes(data[start + 3 : start + 5], "big")
        first = start + _HEADER[kind]
        right = int.from_bytes(data[start + 8 : start + 12], "big") if kind in INTERIORS else 0
        if first + 2 * count > self.usable:
            raise Unfit(f"page {number} has no room for {count} cells")
        cells: list[Cell] = []
        dropped = 0
        if outline and kind not in INTERIORS:
            return Page(number, kind, data, count, cells, dropped)
        lowest = first + 2 * count
        for at in range(first, lowest, 2):
            offset = (data[at] << 8) | data[at + 1]
            try:
                if offset < lowest:
                    raise Unfit("in the header")
                cells.append(_pointer(data, offset) if outline else self._cell(kind, data, offset))
            except (Unfit, IndexError):
                dropped += 1
        return Page(number, kind, data, count, *_apart(cells, dropped), right)

    def _cell(self, kind: int, data: bytes, offset: int) -> Cell:
        at, child, key = offset, 0, 0
        if kind in INTERIORS:
            child = int.from_bytes(data[at : at + 4], "big")
            at += 4
        if kind == INTERIOR_TABLE:
            key, at = signed_varint(data, at)
            if at > self.usable:
                raise Unfit("over the end")
            return Cell(offset, at, key, child)
        payload, at = varint(data, at)
        if kind == LEAF_TABLE:
            key, at = signed_varint(data, at)
        local = self._local(kind, payload)
        end = at + local + (4 if local < payload else 0)
        if end > self.usable:
            raise Unfit("over the end")
        overflow = int.from_bytes(data[end - 4 : end], "big") if local < payload else 0
        types = _types(data, at, local, payload)
        return Cell(offset, end, key, child, types, overflow, payload - local, at, payload)

    def _local(self, kind: int, payload: int) -> int:
        """How many bytes of a payload lie in the page itself."""
        usable = self.usable
        most = usable - 35 if kind == LEAF_TABLE else (usable - 12) * 64 // 255 - 23
        if payload <= most:
            return payload
        least = (usable - 12) * 32 // 255 - 23
        local = least + (payload - least) % (usable - 4)
        return local if local <= most else least

    def chain(self, cell: Cell) -> list[int]:
        """The overflow pages of a cell. Raises Unfit when they are not as many as its payload needs."""
        pages: list[int] = []
        number, rest = cell.overflow, cell.rest
        while rest > 0:
            if not self.exists(number) or number == 1 or len(pages) > self.count:
                raise Unfit("the chain of overflow pages is broken")
            pages.append(number)
            position = (number - 1) * self.page_size
            number = int.from_bytes(os.pread(self._descriptor, 4, position), "big")
            rest -= self.usable - 4
        if number != 0:
            raise Unfit("the chain of overflow pages is too long")
        return pages

    def empty(self, number: int) -> bool:
        """Whether a page holds nothing but zeros."""
        data = self.bytes_of(number)
        return data.count(0) == len(data)

    def payload(self, page: Page, cell: Cell) -> bytes:
        """The whole record of a cell. Raises Unfit."""
        local = cell.payload - cell.rest
        parts = [page.data[cell.record : cell.record + local]]
        rest = cell.rest
        for number in self.chain(cell):
            part = self.bytes_of(number)[4 : 4 + min(rest, self.usable - 4)]
            parts.append(part)
            rest -= len(part)
        return b"".join(parts)

    def free_pages(self, first: int) -> tuple[list[int], bool]:
        """The pages of the list of free pages that begins at `first`, and whether the list is whole."""
        pages: list[int] = []
        seen: set[int] = set()
        number = first
        while number:
            if not self.exists(number) or number in seen:
                return pages, False
            seen.add(number)
            pages.append(number)
            data = self.bytes_of(number)
            count = int.from_bytes(data[4:8], "big")
            if count > self.usable // 4 - 2:
                return pages, False
            leaves = [int.from_bytes(data[at : at + 4], "big") for at in range(8, 8 + 4 * count, 4)]
            if not all(map(self.exists, leaves)):
                return pages, False
            pages += leaves
            number = int.from_bytes(data[:4], "big")
        return pages, True


def _pointer(data: bytes, offset: int) -> Cell:
    return Cell(offset, offset + 4, child=int.from_bytes(data[offset : offset + 4], "big"))


def varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned number of one to nine bytes, and where the next thing begins. IndexError at the end of the data."""
    value = data[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    for _index in range(7):
        byte = data[at]
        at += 1
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:
            return value, at
    return (value << 8) | data[at], at + 1


def signed_varint(data: bytes, at: int) -> tuple[int, int]:
    """As `varint`, for row numbers."""
    value, at = varint(data, at)
    return (value - (1 << 64) if value >> 63 else value), at


def varint_bytes(value: int) -> bytes:
    """The reverse of `signed_varint`."""
    value &= (1 << 64) - 1
    if value >> 56:
        head, value = [value & 0xFF], value >> 8
        groups = [(value >> shift) & 0x7F | 0x80 for shift in range(49, -1, -7)]
        return bytes([*groups, *head])
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))


def _types(data: bytes, at: int, local: int, payload: int) -> Sequence[int]:
    """The serial types of a record. Raises Unfit when they do not add up to its size."""
    length, position = varint(data, at)
    end = at + length
    if length > payload or position > end:
        raise Unfit("the header of the record is longer than the record")
    if length > local:
        return ()  # goes on in another page; the values are looked at when they are read
    found: list[int] = []
    size = length
    while position < end:
        kind = data[position]
        position += 1
        if kind >= 0x80:
            kind, position = varint(data, position - 1)
        if kind >= 12:
            size += (kind - 12) >> 1
        elif kind < 10:
            size += _SIZES[kind]
        else:
            raise Unfit("a value of no known type")
        found.append(kind)
    if position != end or size != payload:
        raise Unfit("the values are not as long as the record")
    return found


def _apart(cells: list[Cell], dropped: int) -> tuple[list[Cell], int]:
    """The cells without those that lie on top of each other: one of the pointers is wrong, nobody knows which."""
    ordered = sorted(cells)  # by offset
    wrong = set()
    reach, last = 0, -1
    for index, cell in enumerate(ordered):
        if cell.offset < reach:
            wrong |= {cell.offset, ordered[last].offset}
        if cell.end > reach:
            reach, last = cell.end, index
    if not wrong:
        return cells, dropped
    whole = [cell for cell in cells if cell.offset not in wrong]
    return whole, dropped + len(cells) - len(whole)


def record_values(payload: bytes, encoding: str) -> list[int | float | str | bytes | None]:
    """The values of a record, without what a table's declared types make of them. Raises Unfit."""
    import struct

    types = _types(payload, 0, len(payload), len(payload))
    at, _position = varint(payload, 0)
    values: list[int | float | str | bytes | None] = []
    for kind in types:
        size = (kind - 12) >> 1 if kind >= 12 else _SIZES[kind]
        raw = payload[at : at + size]
        at += size
        if kind == 0:
            values.append(None)
        elif kind == 7:
            values.append(struct.unpack(">d", raw)[0])
        elif kind in (8, 9):
            values.append(kind - 8)
        elif kind < 7:
            values.append(int.from_bytes(raw, "big", signed=True))
        else:
            values.append(raw.decode(encoding, "surrogateescape") if kind % 2 else raw)
    return values


def guess_page_size(descriptor: int) -> int:
    """The page size at which most pages of a file without a header look like pages of a tree."""
    size = os.fstat(descriptor).st_size
    best, most = 4096, 0.0
    page_size = _SMALLEST
    while page_size <= _LARGEST:
        file = PageFile(descriptor, page_size)
        step = max(1, size // page_size // 500)
        fit = 0
        looked = range(2, file.count + 1, step)
        for number in looked:
            try:
                page = file.read(number)
            except Unfit:
                continue
            # The content area of a page begins where its lowest cell does, and that can be at a page's end only.
            fit += bool(page.cells) and not page.dropped and max(cell.end for cell in page.cells) > file.usable - 8
        share = fit / len(looked) if looked else 0.0
        if share > most:
            best, most = page_size, share
        page_size *= 2
    return best
