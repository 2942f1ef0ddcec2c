# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a private copy of a damaged database readable for SQLite: new trees over the pages that hold.

SQLite then reads the rows itself, with all that it knows about encodings, overflow and defaults. The new inner pages
are appended, the first page is replaced by one whose schema names the new roots; of a page with damaged cells only the
list of its cells changes. Nothing here is meant to be used by a service.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .connect import HEADER_BYTES
from .fingerprint import quoted
from .pages import INTERIOR_INDEX, INTERIOR_TABLE, LEAF_INDEX, LEAF_TABLE, PageFile, varint_bytes
from .trees import Forest, Shape, Tree

_SMALLEST_CELL = 4
_DECLARED = {"INTEGER": "INT", "TEXT": "TEXT", "REAL": "REAL", "NUMERIC": "NUMERIC", "BLOB": ""}
ENCODINGS = {1: "UTF-8", 2: "UTF-16le", 3: "UTF-16be"}
READ, ONLY_HERE, SHARED = "t", "o", "m"  # first letters of the workbench's tables


@dataclass(frozen=True)
class Layout:
    """How to read the pages of a file.

    Attributes:
        encoding: 1 for UTF-8, 2 and 3 for UTF-16.
        first_free: first page of the list of free pages; 0 when there is none.
        doubts: why this is not what the file's header says.
    """

    page_size: int
    reserved: int
    encoding: int
    first_free: int
    application_id: int
    user_version: int
    doubts: tuple[str, ...] = ()

    @property
    def codec(self) -> str:
        """Python's name of the encoding."""
        return {1: "utf-8", 2: "utf-16-le", 3: "utf-16-be"}[self.encoding]


def build(path: Path, forest: Forest, layout: Layout) -> dict[str, Tree]:
    """Rebuild the copy `path`, from which `forest` was read; returns the trees by the names of its new tables.

    Each table is called by a letter and a number, and its columns `c0`, `c1` and so on, as they are stored.
    """
    named: dict[str, Tree] = {}
    schema: list[tuple[str, int, str]] = []
    trees = [tree for tree in forest.trees if tree.shape is not None and tree.entry.root != 1]
    with open(path, "r+b", buffering=0) as stream:
        writer = _Writer(stream.fileno(), forest.pages)
        for number, tree in enumerate(trees):
            for letter, pages in ((READ, tree.pages), (ONLY_HERE, tree.orphans), (SHARED, tree.shared)):
                if letter != READ and not pages:
                    continue
                name = f"{letter}{number}"
                if tree.by_rowid:
                    leaves = _leaves(writer, forest, tree, pages)
                else:
                    leaves = writer.index_leaves(_rows(forest, tree, pages))
                root = writer.tree(leaves, by_rowid=tree.by_rowid)
                named[name] = tree
                schema.append((name, root, _definition(name, tree.require_shape())))
        writer.first_page(path, layout)
        os.fsync(stream.fileno())
    _write_schema(path, schema)
    return named


def _leaves(writer: _Writer, forest: Forest, tree: Tree, pages: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """The pages of a table, written anew where cells of them do not hold.

    The keys between them are those of a tree that is only read from end to end: any that ascend.
    """
    for position, number in enumerate(pages):
        if number in tree.trimmed:
            cells = forest.good_cells(tree, number)
            if not cells:
                continue
            writer.leaf(forest.pages.bytes_of(number), number, [cell.offset for cell in cells])
        yield number, varint_bytes(position)


def _rows(forest: Forest, tree: Tree, pages: Iterable[int]) -> Iterator[bytes]:
    """The rows of a WITHOUT ROWID table, those of inner pages too, as cells of a leaf."""
    for number in pages:
        page = forest.pages.read(number)
        for cell in forest.good_cells(tree, number):
            start = cell.offset if page.leaf else cell.offset + 4  # without the pointer to the left
            yield page.data[start : cell.end].ljust(_SMALLEST_CELL, b"\0")


class _Writer:
    """Writes pages of a copy."""

    def __init__(self, descriptor: int, pages: PageFile) -> None:
        self._descriptor = descriptor
        self._pages = pages
        self.count = max(pages.count, 1)  # the first page is written last

    def _put(self, number: int, data: bytes) -> None:
        os.pwrite(self._descriptor, data, (number - 1) * self._pages.page_size)

    def _append(self, data: bytes) -> int:
        self.count += 1
        if self.count == self._pages.lock_page:
            self.count += 1
        self._put(self.count, data)
        return self.count

    def leaf(self, data: bytes, number: int, offsets: list[int]) -> None:
        """Write a leaf of a table again, with these cells alone."""
        start = min(offsets, default=self._pages.usable)
        head = bytes([LEAF_TABLE, 0, 0]) + len(offsets).to_bytes(2, "big") + (start & 0xFFFF).to_bytes(2, "big") + b"\0"
        head += b"".join(offset.to_bytes(2, "big") for offset in offsets)
        self._put(number, head + data[len(head) :])

    def index_leaves(self, rows: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
        """New leaves; the row after each is its separator from the next one, as the format has it."""
        room = self._pages.usable - 8
        cells: list[bytes] = []
        size = 0
        for row in rows:
            if not cells or size + len(row) + 2 <= room:
                cells.append(row)
                size += len(row) + 2
                continue
            following = next(rows, None)
            if following is None:  # nothing would be left for the page behind the separator
                yield self._append(self._page(LEAF_INDEX, cells[:-1])), cells[-1]
                cells = [row]
                break
            yield self._append(self._page(LEAF_INDEX, cells)), row
            cells, size = [following], len(following) + 2
        if cells:
            yield self._append(self._page(LEAF_INDEX, cells)), b""

    def tree(self, leaves: Iterable[tuple[int, bytes]], *, by_rowid: bool) -> int:
        """Build inner pages over leaves; returns the root."""
        level = list(leaves)
        if not level:
            return self._append(self._page(LEAF_TABLE if by_rowid else LEAF_INDEX, []))
        kind = INTERIOR_TABLE if by_rowid else INTERIOR_INDEX
        while len(level) > 1:
            level = [
                (self._append(self._page(kind, [_cell(*item) for item in group[:-1]], group[-1][0])), group[-1][1])
                for group in self._groups(level)
            ]
        return level[0][0]

    def _groups(self, level: list[tuple[int, bytes]]) -> list[list[tuple[int, bytes]]]:
        """As many children as fit into each inner page, and never a single one."""
        groups: list[list[tuple[int, bytes]]] = [[]]
        size = 12
        for item in level:
            need = len(_cell(*item)) + 2
            if size + need > self._pages.usable:
                groups.append([])
                size = 12
            groups[-1].append(item)
            size += need
        if len(groups) > 1 and len(groups[-1]) == 1:
            groups[-1].insert(0, groups[-2].pop())
        return groups

    def _page(self, kind: int, cells: list[bytes], right: int | None = None) -> bytes:
        at = self._pages.usable
        pointers = []
        page = bytearray(self._pages.page_size)
        for cell in cells:
            at -= len(cell)
            page[at : at + len(cell)] = cell
            pointers.append(at)
        head = bytes([kind, 0, 0]) + len(cells).to_bytes(2, "big") + (at & 0xFFFF).to_bytes(2, "big") + b"\0"
        head += b"" if right is None else right.to_bytes(4, "big")
        head += b"".join(pointer.to_bytes(2, "big") for pointer in pointers)
        page[: len(head)] = head
        return bytes(page)

    def first_page(self, path: Path, layout: Layout) -> None:
        """An empty schema and a header that fits the file."""
        blank = path.with_name(path.name + "-blank")
        with contextlib.closing(sqlite3.connect(blank)) as con:
            con.execute(f"PRAGMA page_size = {layout.page_size}")
            con.execute(f"PRAGMA encoding = '{ENCODINGS[layout.encoding]}'")
            con.execute("CREATE TABLE x(a)")
            con.execute("DROP TABLE x")
        page = bytearray(blank.read_bytes()[: layout.page_size])
        blank.unlink()
        usable = layout.page_size - layout.reserved
        page[18:20] = b"\1\1"  # no WAL
        page[20] = layout.reserved
        page[28:32] = self.count.to_bytes(4, "big")
        page[32:40] = bytes(8)  # no free pages
        page[92:96] = page[24:28]
        page[HEADER_BYTES : HEADER_BYTES + 8] = bytes(8)
        page[HEADER_BYTES] = LEAF_TABLE
        page[HEADER_BYTES + 5 : HEADER_BYTES + 7] = (usable & 0xFFFF).to_bytes(2, "big")
        page[HEADER_BYTES + 8 :] = bytes(layout.page_size - HEADER_BYTES - 8)
        self._put(1, bytes(page))
        os.ftruncate(self._descriptor, self.count * layout.page_size)


def _cell(child: int, separator: bytes) -> bytes:
    return child.to_bytes(4, "big") + separator


def _write_schema(path: Path, schema: list[tuple[str, int, str]]) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as con:
        con.execute("PRAGMA synchronous = OFF")
        con.execute("PRAGMA writable_schema = ON")
        con.execute("BEGIN")
        con.executemany(
            "INSERT INTO sqlite_master(type, name, tbl_name, rootpage, sql) VALUES ('table', ?1, ?1, ?2, ?3)", schema
        )
        con.execute("COMMIT")


def _definition(name: str, shape: Shape) -> str:
    """A table that is stored as the original is, without its names and constraints."""
    columns = []
    for index, column in enumerate(shape.columns):
        kind = "INTEGER PRIMARY KEY" if index == shape.key else _DECLARED[column.affinity]
        default = f" DEFAULT ({column.default})" if column.default and index != shape.key else ""
        columns.append(f"c{index} {kind}{default}")
    if not shape.primary:
        return f"CREATE TABLE {quoted(name)}({', '.join(columns)})"
    key = ", ".join(f"c{index}" for index in range(len(shape.primary)))
    return f"CREATE TABLE {quoted(name)}({', '.join(columns)}, PRIMARY KEY({key})) WITHOUT ROWID"
