# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pages of a damaged database hold the rows of which table.

A tree is walked from its root, as SQLite does; where a page does not fit, the walk goes on beside it and notes the
range of keys that is missing. Pages that no walk reaches, because what pointed to them is gone, are offered to the
tables that miss rows of such a shape in such a range: that is a guess, and told as one.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Optional

from .fingerprint import quoted
from .pages import INTERIOR_INDEX, INTERIOR_TABLE, LEAF_INDEX, LEAF_TABLE, Cell, Page, PageFile, Unfit, record_values

# A row number that the range begins after, and the one that it ends with; None where it has no end.
Range = tuple[Optional[int], Optional[int]]

_TREE, _FREE = 1, 2
_TYPES = ("table", "index", "view", "trigger")


@dataclass(frozen=True)
class Entry:
    """An entry of the schema; `root` is 0 for what has no tree."""

    type: str
    name: str
    table: str
    root: int
    sql: str


@dataclass(frozen=True)
class Column:
    """A column as it is stored; `default` is an SQL expression or empty, `affinity` what its declared type means."""

    name: str
    default: str = ""
    affinity: str = "BLOB"
    not_null: bool = False
    generated: bool = False


@dataclass(frozen=True)
class Shape:
    """What rows of a table look like in the file.

    Attributes:
        columns: those that are stored, in the order of the table.
        key: position of the INTEGER PRIMARY KEY, which is stored as null; -1 when there is none.
        primary: names of the columns of the key of a WITHOUT ROWID table; empty for any other table.
        rowid: a name by which the row number can be asked for; empty when columns hide all three.
    """

    columns: Sequence[Column]
    key: int
    primary: Sequence[str]
    rowid: str

    @property
    def names(self) -> list[str]:
        """The columns that a program can write."""
        return [column.name for column in self.columns if not column.generated]

    def fits(self, cell: Cell, *, whole: bool) -> bool:
        """Whether a record can be a row of this table; `whole`: with a value for each column."""
        types = cell.types
        if not types:
            return True  # its header goes on in another page
        if len(types) > len(self.columns) or (whole and len(types) < len(self.columns)):
            return False
        for index, (kind, column) in enumerate(zip(types, self.columns)):
            if index == self.key:
                if kind != 0:
                    return False
            elif kind == 0:
                if column.not_null:
                    return False
            elif column.affinity == "TEXT" and kind < 12:
                return False
        return True


@dataclass
class Tree:
    """The pages of one table or index.

    Attributes:
        shape: of a table; None for an index.
        pages: those with rows, in the order of keys.
        trimmed: those of them with cells that do not fit.
        gaps: ranges of keys whose pages are missing.
        cells: how many rows, or entries of an index, are there.
        dropped: cells that do not fit.
        suspects: rows that are there, but not as they should be: outside their page's range, or sharing pages.
        orphans: pages that nothing points to any more, and that fit only here.
        shared: such pages that fit in several places.
    """

    entry: Entry
    shape: Optional[Shape]
    pages: array[int] = field(default_factory=lambda: array("Q"))
    trimmed: set[int] = field(default_factory=set)
    gaps: list[Range] = field(default_factory=list)
    cells: int = 0
    dropped: int = 0
    suspects: set[int] = field(default_factory=set)
    orphans: list[int] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)

    @property
    def damaged(self) -> bool:
        """Whether anything of it is missing or in doubt."""
        return bool(self.gaps or self.dropped or self.suspects)

    def require_shape(self) -> Shape:
        """The shape of a table; only indexes have none."""
        if self.shape is None:
            raise ValueError(f"{self.entry.name} is not a table")
        return self.shape

    @property
    def by_rowid(self) -> bool:
        """Whether row numbers are its keys."""
        return self.shape is not None and not self.shape.primary


class Forest:
    """All trees of one file.

    Args:
        pages: the file.
        look: called now and then; raises when time is over.
    """

    def __init__(self, pages: PageFile, look: Callable[[], None] = lambda: None) -> None:
        self.pages = pages
        self.trees: list[Tree] = []
        self.free_whole = True
        self._look = look
        self._claimed = bytearray(pages.count + 1)
        self._contested: set[int] = set()
        self._chained = bytearray(pages.count + 1)
        self._chains = array("q")  # of cells that overflow: tree, key, first page, bytes there
        self._looks = 0

    def free(self, first: int) -> None:
        """Leave out the pages of the list of free pages: what stands there was deleted."""
        pages, self.free_whole = self.pages.free_pages(first)
        for number in pages:
            self._claimed[number] = _FREE

    def read_schema(self, encoding: str) -> tuple[list[Entry], bool]:
        """The entries of the schema that can be read, and whether that is all of them."""
        shape = Shape([Column(name) for name in "abcde"], -1, (), "rowid")
        tree = self.walk(Entry("table", "sqlite_master", "sqlite_master", 1, ""), shape)
        entries = []
        whole = not tree.damaged
        for number in tree.pages:
            page = self.pages.read(number)
            for cell in page.cells:
                try:
                    kind, name, table, root, sql = record_values(self.pages.payload(page, cell), encoding)
                except (Unfit, ValueError, IndexError):
                    whole = False
                    continue
                known = kind in _TYPES and isinstance(name, str) and isinstance(table, str) and bool(name)
                if not known or not isinstance(root, (int, type(None))) or not isinstance(sql, (str, type(None))):
                    whole = False
                    continue
                entries.append(Entry(str(kind), str(name), str(table), root or 0, sql or ""))
        return entries, whole

    def walk(self, entry: Entry, shape: Optional[Shape]) -> Tree:
        """Find the pages of a tree from its root; each page belongs to the first tree that reaches it."""
        tree = Tree(entry, shape)
        stack: list[tuple[int, Range]] = [(entry.root, (None, None))]
        while stack:
            self._now_and_then()
            number, within = stack.pop()
            page = self._take(tree, number, within)
            if page is None:
                tree.gaps.append(within)
                continue
            if page.leaf or not tree.by_rowid:
                self._hold(tree, page, within)
            if not page.leaf:
                if page.dropped:
                    tree.gaps.append(within)
                stack.extend(reversed(list(_children(page, within, tree.by_rowid))))
        self.trees.append(tree)
        return tree

    def _now_and_then(self) -> None:
        self._looks += 1
        if self._looks % 256 == 0:
            self._look()

    def _take(self, tree: Tree, number: int, within: Range) -> Optional[Page]:
        """The page, when it can belong to the tree at this place."""
        if not self.pages.exists(number) or (number == 1 and tree.entry.root != 1):
            return None
        try:
            page = self.pages.read(number, outline=tree.shape is None)
        except Unfit:
            return None
        if page.kind not in ((LEAF_TABLE, INTERIOR_TABLE) if tree.by_rowid else (LEAF_INDEX, INTERIOR_INDEX)):
            return None
        if tree.by_rowid and page.cells and not any(_inside(cell.key, within) for cell in page.cells):
            return None
        if page.leaf and not page.count and number != tree.entry.root:
            return None  # only a root can be empty
        if page.leaf and tree.shape is not None and page.cells:
            page.cells, lost = _divide(page.cells, lambda cell: _right_size(tree, cell))
            page.dropped += len(lost)
            if not page.cells:
                return None
        if self._claimed[number]:
            if self._claimed[number] == _TREE:
                self._contested.add(number)
            return None
        self._claimed[number] = _TREE
        return page

    def _hold(self, tree: Tree, page: Page, within: Range) -> None:
        if tree.shape is None:
            tree.cells += page.count
            return
        whole: list[Cell] = []
        for cell in page.cells:
            if cell.rest and not self._overflows(tree, cell):
                continue
            if not tree.by_rowid and not _right_size(tree, cell):
                continue
            whole.append(cell)
            if tree.by_rowid and not _inside(cell.key, within):
                tree.suspects.add(cell.key)
        if tree.by_rowid:
            tree.suspects |= {later.key for cell, later in zip(whole, whole[1:]) if later.key <= cell.key}
        lost = page.dropped + len(page.cells) - len(whole)
        if lost:
            tree.dropped += lost
            tree.trimmed.add(page.number)
        if whole:
            tree.pages.append(page.number)
        tree.cells += len(whole)

    def _overflows(self, tree: Tree, cell: Cell) -> bool:
        """Whether what does not fit into the page is there; notes by whom its pages are used."""
        try:
            chain = self.pages.chain(cell)
            blank = any(self.pages.empty(number) for number in chain)
        except Unfit:
            return False
        for number in chain:
            self._chained[number] = min(2, self._chained[number] + 1)
        if tree.by_rowid:
            if blank or any(self._claimed[number] for number in chain):
                tree.suspects.add(cell.key)
            self._chains.extend((len(self.trees), cell.key, cell.overflow, cell.rest))
        return True

    def settle(self) -> None:
        """After all walks: take away what two trees claim, and doubt rows whose overflow pages have another user."""
        for number in self._contested:
            below = self._below(number)
            for tree in self.trees:
                if tree.entry.root != 1 and not below.isdisjoint(tree.pages):
                    tree.pages = array("Q", [page for page in tree.pages if page not in below])
                    tree.gaps.append((None, None))
            for page in below:
                self._claimed[page] = 0
        if 2 in self._chained:
            for at in range(0, len(self._chains), 4):
                index, key, first, rest = self._chains[at : at + 4]
                chain = self.pages.chain(Cell(0, 0, overflow=first, rest=rest))
                if any(self._chained[number] > 1 for number in chain):
                    self.trees[index].suspects.add(key)

    def _below(self, number: int) -> set[int]:
        found: set[int] = set()
        stack = [number]
        while stack:
            self._now_and_then()
            page_number = stack.pop()
            if page_number in found or not self.pages.exists(page_number):
                continue
            try:
                page = self.pages.read(page_number)
            except Unfit:
                continue
            found.add(page_number)
            if not page.leaf:
                stack += [cell.child for cell in page.cells] + [page.right]
        return found

    def adopt(self, *, all_known: bool) -> int:
        """Offer pages that no tree reaches to the tables that miss some; returns how many fit nowhere.

        Args:
            all_known: whether every table is known; else a page may belong to one that is not, and fits nowhere alone.
        """
        needy = [tree for tree in self.trees if tree.gaps and tree.entry.root != 1]
        if not needy:
            return 0
        nowhere = 0
        for page in self._unclaimed():
            fitting = [tree for tree in needy if _adoptable(tree, page, whole=True)]
            fitting = fitting or [tree for tree in needy if _adoptable(tree, page, whole=False)]
            tables = [tree for tree in fitting if tree.shape is not None]
            nowhere += page.kind == LEAF_TABLE and not fitting
            for tree in tables:
                if len(fitting) == 1 and all_known:
                    tree.orphans.append(page.number)
                else:
                    tree.shared.append(page.number)
                if page.dropped:
                    tree.trimmed.add(page.number)
        return nowhere

    def _unclaimed(self) -> Iterator[Page]:
        for number in range(2, self.pages.count + 1):
            self._now_and_then()
            taken = self._claimed[number] or self._chained[number]
            if taken or self.pages.kind(number) not in (LEAF_TABLE, LEAF_INDEX):
                continue
            try:
                page = self.pages.read(number)
            except Unfit:
                continue
            whole = [cell for cell in page.cells if not cell.rest or self._chain_unused(cell)]
            page.dropped += len(page.cells) - len(whole)
            page.cells = whole
            if whole:
                yield page

    def _chain_unused(self, cell: Cell) -> bool:
        try:
            return not any(self._chained[number] or self._claimed[number] for number in self.pages.chain(cell))
        except Unfit:
            return False

    def good_cells(self, tree: Tree, number: int) -> list[Cell]:
        """The cells of a page that can be rows of this table."""
        cells = []
        for cell in self.pages.read(number).cells:
            if not _right_size(tree, cell):
                continue
            try:
                self.pages.chain(cell)
            except Unfit:
                continue
            cells.append(cell)
        return cells


def _children(page: Page, within: Range, by_rowid: bool) -> Iterator[tuple[int, Range]]:
    if not by_rowid:
        yield from ((cell.child, within) for cell in page.cells)
        yield page.right, within
        return
    keys = [cell.key for cell in page.cells]
    ascending = all(one < other for one, other in zip(keys, keys[1:]))
    if not ascending or not all(_inside(key, within) for key in keys):
        yield from ((cell.child, within) for cell in page.cells)
        yield page.right, within
        return
    low, high = within
    for cell in page.cells:
        yield cell.child, (low, cell.key)
        low = cell.key
    yield page.right, (low, high)


def _inside(key: int, within: Range) -> bool:
    low, high = within
    return (low is None or key > low) and (high is None or key <= high)


def _right_size(tree: Tree, cell: Cell) -> bool:
    return tree.shape is None or len(cell.types) <= len(tree.shape.columns)


def _divide(cells: Iterable[Cell], good: Callable[[Cell], bool]) -> tuple[list[Cell], list[Cell]]:
    kept: list[Cell] = []
    lost: list[Cell] = []
    for cell in cells:
        (kept if good(cell) else lost).append(cell)
    return kept, lost


def _adoptable(tree: Tree, page: Page, *, whole: bool) -> bool:
    if (page.kind == LEAF_TABLE) != tree.by_rowid:
        return False
    shape = tree.shape
    if shape is None:
        return True  # an index: nobody can tell its entries from others
    if not all(shape.fits(cell, whole=whole) for cell in page.cells):
        return False
    if not tree.by_rowid:
        return True
    low, high = min(cell.key for cell in page.cells), max(cell.key for cell in page.cells)
    return any(_inside(low, gap) and _inside(high, gap) for gap in tree.gaps)


def shape_of(con: sqlite3.Connection, table: str) -> Shape:
    """The shape of a table that exists in a (scratch) database."""
    info = con.execute(f"PRAGMA table_xinfo({quoted(table)})").fetchall()
    names = {row[1].lower() for row in info}
    rowid = next((name for name in ("rowid", "_rowid_", "oid") if name not in names), "")
    primary: list[str] = []
    if rowid:
        try:
            con.execute(f"SELECT {rowid} FROM {quoted(table)} LIMIT 0")  # noqa: S608 - quoted
        except sqlite3.OperationalError:
            primary = [row[1] for row in sorted((row for row in info if row[5]), key=lambda row: row[5])]
    keys = [row for row in info if row[5]]
    own_index = any(row[3] == "pk" for row in con.execute(f"PRAGMA index_list({quoted(table)})"))
    single = keys[0][1] if len(keys) == 1 and keys[0][2].upper() == "INTEGER" and not own_index else None
    stored = [row for row in info if row[6] in (0, 3)]  # not virtual generated columns
    if primary:
        # Those of the key come first, in its order.
        stored.sort(key=lambda row: (0, row[5]) if row[5] else (1, row[0]))
    columns = [
        Column(
            name=row[1],
            default=row[4] or "",
            affinity=_affinity(row[2]),
            not_null=bool(row[3]),
            generated=row[6] == 3,
        )
        for row in stored
    ]
    key = next((index for index, column in enumerate(columns) if column.name == single), -1) if not primary else -1
    return Shape(columns, key, primary, "" if primary else rowid)


def _affinity(declared: str) -> str:
    """What SQLite makes of a declared type."""
    text = declared.upper()
    if "INT" in text:
        return "INTEGER"
    if any(word in text for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in text or not text:
        return "BLOB"
    return "REAL" if any(word in text for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"
