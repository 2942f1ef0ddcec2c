# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Choose rows in a private snapshot, compare them with the archives, and make new archives of them.

Everything happens inside SQLite: values go from file to file as they are stored, Python sees only times and digests.
The snapshot is the database `main`, what is chosen stands in a second private file, `work`:

- `chosen(n, month, state, k0, k1, ..., r0, ...)`: the key of each row, and what finds it where that is something else.
- `pairs(m, l0, ..., a0, ...)`: rows of one month that may be deleted: how to find each in the table and in the archive.
- `reused(n, month, k0, ...)`: keys of an archive that rows of the table have which are not those of the archive.
"""
# ruff: noqa: S608 - SQL cannot bind names, so each is quoted; values are bound

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..core.clock import utc_text
from ..core.config import ArchivedTable
from ..core.errors import InputError, IntegrityError
from . import archive_file
from .archive_file import ArchiveFile
from .connect import Deadline, connect, sqlite_errors, uri
from .fingerprint import only_reading, quoted, rows_digest
from .row_time import month_of, read_time
from .table_shape import Shape, equal_rows, listed, matching, read_shape, references, same_value

NEW, HELD, DIFFERS, ELSEWHERE = range(4)
EXAMPLES = 20
WAITS = "waits"
# A later time than any row has, for all that a contract's query may give.
EVERY_TIME = datetime(9999, 12, 31, tzinfo=timezone.utc)
_LATEST = 50
_CODECS = {"UTF-8": "utf-8", "UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}


@dataclass(frozen=True)
class Choice:
    """What the contract's query has chosen.

    Attributes:
        months: number of rows by month.
        unreadable: rows whose time nobody can read; they stay.
        without_key: rows whose key holds a null; they stay.
        newest: time of the newest row, not later than the clock's; None without any.
        waiting: rows that are old for the clock, and not beside the newest row; they stay.
    """

    months: dict[str, int]
    unreadable: int
    without_key: int
    newest: datetime | None
    waiting: int


def query_parameters(cutoff: datetime) -> dict[str, Any]:
    """What the contract's query may use: `:cutoff` (text, with Z) and `:cutoff_epoch` (seconds since 1970)."""
    return {"cutoff": utc_text(cutoff), "cutoff_epoch": int(cutoff.timestamp())}


def compile_query(con: sqlite3.Connection, table: ArchivedTable, cutoff: datetime, *, subject: str) -> None:
    """Prove without running it that the contract's query only reads and gives the key columns and `time`.

    Takes a connection that only reads from then on. Raises InputError.
    """
    shape = read_shape(con, table.table, table.key, subject=subject)
    only_reading(con)
    try:
        con.execute(f"EXPLAIN {_asking(table, shape)}", query_parameters(cutoff)).fetchone()
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise InputError(
            f"the query of {table.name} is not one SELECT that gives {', '.join([*shape.key, 'time'])}: {error}",
            subject=subject,
        ) from None


def _asking(table: ArchivedTable, shape: Shape) -> str:
    # A name in quotation marks that no column has would be a text, were it not for the q before it.
    return f'SELECT q."time", {listed(shape.key, "q")} FROM {_within(table)} AS q'


def _within(table: ArchivedTable) -> str:
    """The contract's query as a source of rows in another one; it may end with a comment."""
    return f"(\n{table.query.strip().rstrip(';')}\n)"


def with_months(con: sqlite3.Connection, cutoff: datetime, waiting: datetime | None = None) -> None:
    """Let a connection tell months: empty when a time cannot be read, null when it is not older than `cutoff`.

    Args:
        waiting: what is older than `cutoff` and not than this has the month `WAITS`.
    """
    codec = codec_of(con)

    def month(kind: str, data: bytes | None) -> str | None:
        moment = read_time(_value(kind, data, codec))
        if moment is None:
            return ""
        if moment >= cutoff:
            return None
        return month_of(moment) if waiting is None or moment < waiting else WAITS

    con.create_function("fluxmaint_month", 2, month)


def codec_of(con: sqlite3.Connection) -> str:
    """Python's name of the encoding of a database's text."""
    return _CODECS[str(con.execute("PRAGMA main.encoding").fetchone()[0])]


def months_asked(table: ArchivedTable, shape: Shape) -> str:
    """SQL for the month of each row that the contract's query gives, and its key as k0, k1 and so on."""
    keys = ", ".join(f"q.{quoted(name)} AS k{number}" for number, name in enumerate(shape.key))
    names = ", ".join(f"k{number}" for number in range(len(shape.key)))
    return (
        f"SELECT fluxmaint_month(typeof(z.t), CAST(z.t AS BLOB)) AS month, {names}"
        f' FROM (SELECT q."time" AS t, {keys} FROM {_within(table)} AS q) AS z'
    )


class Selection:
    """Rows of one table in a snapshot.

    Args:
        snapshot: a private copy of the live database that nobody changes.
        work: where to keep what was chosen; made anew.
    """

    def __init__(self, snapshot: Path, work: Path, table: ArchivedTable, deadline: Deadline, *, subject: str) -> None:
        self.table = table
        self.subject = subject
        self._snapshot = snapshot
        self._deadline = deadline
        self._con = connect(snapshot, timeout_s=5, mode="ro", immutable="1")
        try:
            deadline.bind(self._con)
            self._con.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
            with sqlite_errors(Path(subject)):
                self.shape = read_shape(self._con, table.table, table.key, subject=subject)
                self.references = references(self._con, self.shape)
                self.encoding = str(self._con.execute("PRAGMA encoding").fetchone()[0])
                self.page_size = int(self._con.execute("PRAGMA page_size").fetchone()[0])
                work.unlink(missing_ok=True)
                self._attach(work, "work", mode="rwc")
                self._con.execute("PRAGMA work.journal_mode = OFF")
                self._con.execute("PRAGMA work.synchronous = OFF")
        except BaseException:
            self._con.close()
            raise
        self.keys = [f"k{number}" for number in range(len(self.shape.key))]
        self.ids = self.keys
        if self.shape.identity != self.shape.key:
            self.ids = [f"r{number}" for number in range(len(self.shape.identity))]

    def close(self) -> None:
        """Let go of the files."""
        self._con.close()

    def _attach(self, path: Path, name: str, **parameters: str) -> None:
        self._con.execute(f"ATTACH DATABASE ? AS {name}", (uri(path, **parameters),))

    @contextmanager
    def _attached(self, path: Path, name: str, **parameters: str) -> Iterator[None]:
        self._attach(path, name, **parameters)
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error):  # a statement that failed may still hold it
                self._con.execute(f"DETACH DATABASE {name}")
            raise
        self._con.execute(f"DETACH DATABASE {name}")

    def _one(self, sql: str, *parameters: Any) -> Any:
        return self._con.execute(sql, parameters).fetchone()[0]

    # ---- choosing

    def choose(self, cutoff: datetime, *, now: datetime | None = None) -> Choice:
        """Run the contract's query, and keep what is older than `cutoff`, by month.

        Args:
            now: what the clock says. Rows wait that are not as much older than the newest row as `cutoff` is than this;
                without it the clock is taken for right.

        Raises InputError when the query is not fit, or what it calls keys tells no single row.
        """
        with sqlite_errors(self._snapshot):
            checking = connect(self._snapshot, timeout_s=5, mode="ro", immutable="1")
            try:
                compile_query(checking, self.table, cutoff, subject=self.subject)
            finally:
                checking.close()
        with sqlite_errors(Path(self.subject)):
            newest = self._newest(now) if now else None
        with_months(self._con, cutoff, newest - (now - cutoff) if now and newest else None)
        keys = ", ".join(self.keys)
        numbers = self.ids if self.ids != self.keys else []
        # With the affinity of the table's own columns: else no index on them would be used in a comparison.
        kinds = {column.name: column.kind for column in self.shape.columns}
        typed = [f"{key} {kinds[name]}".strip() for key, name in zip(self.keys, self.shape.key)]
        columns = ", ".join([*typed, *numbers])
        statements = (
            f"CREATE TABLE work.asked(n INTEGER PRIMARY KEY, month, {keys})",
            f"CREATE TABLE work.chosen(n INTEGER PRIMARY KEY, month, state INTEGER NOT NULL DEFAULT {NEW}, {columns})",
            "CREATE TABLE work.held(n INTEGER PRIMARY KEY, same)",
            f"CREATE TABLE work.pairs(m INTEGER PRIMARY KEY, {', '.join(self._pair_columns())})",
            f"CREATE TABLE work.reused(n INTEGER PRIMARY KEY, month, {keys})",
        )
        with sqlite_errors(Path(self.subject)):
            for statement in statements:
                self._con.execute(statement)
            self._con.execute(
                f"INSERT INTO work.asked(month, {keys}) {months_asked(self.table, self.shape)}",
                query_parameters(cutoff),
            )
            self._con.execute("DELETE FROM work.asked WHERE month IS NULL")
            waiting = self._con.execute("DELETE FROM work.asked WHERE month = ?", (WAITS,)).rowcount
            unreadable = self._con.execute("DELETE FROM work.asked WHERE month = ''").rowcount
            nulls = " OR ".join(f"{key} IS NULL" for key in self.keys)
            without_key = self._con.execute(f"DELETE FROM work.asked WHERE {nulls}").rowcount
            self._require_keys()
        months = self._con.execute("SELECT month, count(*) FROM work.chosen GROUP BY month ORDER BY month").fetchall()
        return Choice(dict(months), unreadable, without_key, newest, waiting)

    def _newest(self, now: datetime) -> datetime | None:
        """The newest time, not after `now`, of a row of any age.

        Of rows that the contract's query gives; of all rows, where it takes the time from a column as it is.
        """
        sources = [(_within(self.table), "time"), *((self._table("main"), name) for name in self._time_columns())]
        codec = codec_of(self._con)
        newest = None
        for source, name in sources:
            time = f"x.{quoted(name)}"
            asking = f"SELECT typeof({time}), CAST({time} AS BLOB) FROM {source} AS x"
            # In most tables times are of one kind, and sort. Taking an older row for the newest one is only careful.
            for what in (f"{asking} ORDER BY {time} DESC LIMIT {_LATEST}", asking):
                rows = self._con.execute(what, query_parameters(EVERY_TIME))
                moments = (read_time(_value(kind, data, codec)) for kind, data in rows)
                found = max((moment for moment in moments if moment is not None and moment <= now), default=None)
                if found is not None:
                    newest = max(found, newest or found)
                    break
        return newest

    def _time_columns(self) -> list[str]:
        """Columns that hold exactly what the contract's query gives as the time, in a sample of rows."""
        names = self.shape.names
        time = 'q."time"'
        same = [f"min({same_value('t.' + quoted(name), time)})" for name in names]
        found = self._con.execute(
            f"SELECT {', '.join(same)} FROM (SELECT * FROM {_within(self.table)} LIMIT {_LATEST}) AS q"
            f" CROSS JOIN {self._table('main')} AS t ON {same_key(self.shape, 'q')}",
            query_parameters(EVERY_TIME),
        ).fetchone()
        return [name for name, always in zip(names, found) if always]

    def _pair_columns(self) -> list[str]:
        count = len(self.shape.identity)
        return [f"l{number}" for number in range(count)] + [f"a{number}" for number in range(count)]

    def _require_keys(self) -> None:
        """Each key that was asked for is one row of the table; note where it is."""
        keys = ", ".join(self.keys)
        twice = self._con.execute(
            f"SELECT {keys} FROM work.asked GROUP BY {keys} HAVING count(*) > 1 LIMIT 1"
        ).fetchone()
        if twice:
            raise InputError(
                f"the query of {self.table.name} gives the key {_shown(twice)} twice", subject=self.subject
            )
        columns, values = list(self.keys), [f"a.{key}" for key in self.keys]
        if self.ids != self.keys:
            columns += self.ids
            values += [f"t.{quoted(name)}" for name in self.shape.identity]
        self._con.execute(
            f"INSERT INTO work.chosen(month, {', '.join(columns)}) SELECT a.month, {', '.join(values)}"
            f" FROM work.asked AS a CROSS JOIN {self._table('main')} AS t ON {self._keyed('t', 'a')}"
            " ORDER BY a.month, a.n"
        )
        self._con.execute("CREATE INDEX work.by_month ON chosen(month, state)")
        self._con.execute(f"CREATE INDEX work.by_key ON chosen({keys}, month, state)")
        asked, chosen = (self._one(f"SELECT count(*) FROM work.{name}") for name in ("asked", "chosen"))
        if asked != chosen:
            more = "more" if chosen > asked else "fewer"
            raise InputError(
                f"the key {', '.join(self.shape.key)} does not identify rows of {self.shape.table}: {asked} keys are"
                f" {more} rows, {chosen}",
                subject=self.subject,
            )
        self._con.execute("DROP TABLE work.asked")

    def _table(self, schema: str) -> str:
        return f"{schema}.{quoted(self.shape.table)}"

    def _keyed(self, table: str, chosen: str) -> str:
        return matching(
            [f"{table}.{quoted(name)}" for name in self.shape.key], [f"{chosen}.{key}" for key in self.keys]
        )

    def _found(self, table: str, chosen: str) -> str:
        names = self.shape.identity
        return matching([f"{table}.{quoted(name)}" for name in names], [f"{chosen}.{column}" for column in self.ids])

    def content_bytes(self, month: str) -> int:
        """Bytes of the values of a month's rows that no archive holds yet."""
        sizes = " + ".join(f"coalesce(length(CAST(t.{quoted(name)} AS BLOB)), 0)" for name in self.shape.stored)
        return int(
            self._one(
                f"SELECT coalesce(sum({sizes}), 0) FROM work.chosen AS c CROSS JOIN {self._table('main')} AS t"
                f" ON {self._found('t', 'c')} WHERE c.month = ? AND c.state = {NEW}",
                month,
            )
        )

    # ---- comparing

    def compare(self, held: ArchiveFile) -> None:
        """Note which of the chosen rows an archive holds: the same, another content, or in the wrong month.

        Raises InputError when the live table is no longer one that the archive's rows fit into.
        """
        old = held.shape
        names = {name.lower(): name for name in self.shape.names}
        lost = [name for name in old.names if name.lower() not in names]
        by_name = {column.name.lower(): column for column in self.shape.columns}
        other = [
            column.name
            for column in old.columns
            if column.name.lower() in by_name and _differ(column, by_name[column.name.lower()])
        ]
        wanted = bool(self._one("SELECT count(*) FROM work.chosen WHERE month = ?", held.month))
        other_key = [name.lower() for name in old.key] != [name.lower() for name in self.shape.key]
        collated = [
            f"column {name} compares by {now}, not by {before}"
            for name, now, before in zip(self.shape.key, self.shape.collations, old.collations)
            if now != before
        ]
        if other_key or (wanted and (lost or other or collated)):
            what = [f"column {name} is gone" for name in lost] + [
                f"column {name} is declared otherwise" for name in other
            ]
            what += [] if other_key else collated
            raise InputError(
                f"the table {self.shape.table} has changed since {held.path} was written, and its rows would lose what"
                f" they hold: {', '.join(what) or 'it has another key'}",
                subject=self.subject,
                untouched="the archive and the database",
                remedy=f"move {held.path.name} to another directory: a new archive of that month begins",
            )
        common = [name for name in old.names if name.lower() in names]
        # Where keys compare by another collation than the one of `chosen`, SQLite makes an index for the occasion.
        with self._attached(held.path, "old", mode="ro", immutable="1"), sqlite_errors(held.path):
            self._con.execute("DELETE FROM work.held")
            self._con.execute(
                f"INSERT INTO work.held(n, same) SELECT c.n, {equal_rows('t', 'o', common)}"
                f" FROM work.chosen AS c CROSS JOIN {self._table('old')} AS o ON {self._keyed('o', 'c')}"
                f" CROSS JOIN {self._table('main')} AS t ON {self._found('t', 'c')} WHERE c.month = ? AND c.state <> ?",
                (held.month, ELSEWHERE),
            )
            for state, same in ((HELD, 1), (DIFFERS, 0)):
                self._con.execute(
                    "UPDATE work.chosen SET state = ? WHERE n IN (SELECT n FROM work.held WHERE same = ?)",
                    (state, same),
                )
            # Either way of comparing them makes keys the same, where the table has got another one.
            theirs, ours = [f"o.{quoted(name)}" for name in self.shape.key], [f"c.{key}" for key in self.keys]
            alike = [matching(theirs, ours), *([matching(ours, theirs)] if collated else [])]
            self._con.execute(
                f"UPDATE work.chosen SET state = {ELSEWHERE} WHERE n IN (SELECT c.n FROM {self._table('old')} AS o"
                f" CROSS JOIN work.chosen AS c ON {' OR '.join(alike)} WHERE c.month <> ?)",
                (held.month,),
            )
            keys = listed(self.shape.key, "t")
            self._con.execute(
                f"INSERT INTO work.reused(month, {', '.join(self.keys)}) SELECT ?, {keys}"
                f" FROM {self._table('old')} AS o CROSS JOIN {self._table('main')} AS t ON {same_key(self.shape)}"
                f" WHERE NOT {equal_rows('t', 'o', common)}"
                f" AND NOT EXISTS (SELECT 1 FROM work.chosen AS c WHERE {self._keyed('t', 'c')} AND c.month = ?)",
                (held.month, held.month),
            )

    def reused(self, month: str) -> tuple[int, list[str]]:
        """Rows of a month's archive whose keys other rows of the table have now: how many, and a few of the keys.

        They are not rows that changed: what the table has under these keys is not closed, or of another month.
        """
        rows = self._con.execute(
            f"SELECT {', '.join(self.keys)} FROM work.reused WHERE month = ? ORDER BY n LIMIT {EXAMPLES}", (month,)
        )
        return int(self._one("SELECT count(*) FROM work.reused WHERE month = ?", month)), [_shown(row) for row in rows]

    def counts(self, month: str) -> dict[int, int]:
        """Number of a month's rows by state."""
        rows = self._con.execute("SELECT state, count(*) FROM work.chosen WHERE month = ? GROUP BY state", (month,))
        return {**dict.fromkeys((NEW, HELD, DIFFERS, ELSEWHERE), 0), **dict(rows)}

    def examples(self, month: str, state: int) -> list[str]:
        """Keys of rows of that state, a few."""
        rows = self._con.execute(
            f"SELECT {', '.join(self.keys)} FROM work.chosen WHERE month = ? AND state = ? ORDER BY n LIMIT {EXAMPLES}",
            (month, state),
        )
        return [_shown(row) for row in rows]

    # ---- making

    def build(
        self, month: str, held: ArchiveFile | None, made: Path, states: Sequence[int], facts: dict[str, Any]
    ) -> None:
        """Make the archive of a month: what it held, and the chosen rows in `states` as they are in the snapshot.

        Raises:
            IntegrityError: what was written is not what was read.
            InputError: a row has what only one row of the table may have, and the archive holds another one with it.
        """
        of_month = _of(month, states)
        replaced = held is not None and bool(held.replaced or (DIFFERS in states and self.counts(month)[DIFFERS]))
        archive_file.create(made, self.shape, page_size=self.page_size, encoding=self.encoding, replaced=replaced)
        with self._attached(made, "fresh", mode="rw"), sqlite_errors(made):
            self._con.execute("PRAGMA fresh.synchronous = OFF")
            if held is None:
                self._copy_chosen(of_month)
            else:
                with self._attached(held.path, "old", mode="ro", immutable="1"), _one_table(held.path):
                    self._copy_rest(held.shape, of_month)
                    # After the rest, so that a key that is there twice is an error.
                    self._copy_chosen(of_month)
                    self._require_rest(held.shape, of_month)
                    if replaced:
                        facts = {**facts, **self._copy_replaced(held, states, facts["written_at"])}
            whole = archive_file.digest(self._con, self.shape, "fresh")
            archive_file.describe(self._con, "fresh", {**facts, **whole, "month": month})

    def _copy_chosen(self, of_month: str) -> None:
        """Copy the chosen rows from the snapshot, and compare."""
        stored, names = self.shape.stored, self.shape.names
        source, copy = (
            f"FROM work.chosen AS c CROSS JOIN {self._table(schema)} AS x ON {found} WHERE {of_month}"
            for schema, found in (("main", self._found("x", "c")), ("fresh", self._keyed("x", "c")))
        )
        self._con.execute(f"INSERT INTO {self._table('fresh')}({listed(stored)}) SELECT {listed(stored, 'x')} {source}")
        read, written = (
            rows_digest(self._con, names, f"SELECT {listed(names, 'x')} {place}") for place in (source, copy)
        )
        self._require_equal(read, written)

    def _rest(self, schema: str, of_month: str) -> str:
        """SQL for the rows of an archive that do not come from the snapshot."""
        taken = f"SELECT 1 FROM work.chosen AS c WHERE {of_month} AND {self._keyed('x', 'c')}"
        return f"FROM {self._table(schema)} AS x WHERE NOT EXISTS ({taken})"

    def _copy_rest(self, old: Shape, of_month: str) -> None:
        stored = old.stored
        self._con.execute(
            f"INSERT INTO {self._table('fresh')}({listed(stored)})"
            f" SELECT {listed(stored, 'x')} {self._rest('old', of_month)}"
        )

    def _require_rest(self, old: Shape, of_month: str) -> None:
        """What the archive held before is in the new one, in the columns that it had."""
        names = old.names
        before, after = (
            rows_digest(self._con, names, f"SELECT {listed(names, 'x')} {self._rest(schema, of_month)}")
            for schema in ("old", "fresh")
        )
        self._require_equal(before, after)

    def _copy_replaced(self, held: ArchiveFile, states: Sequence[int], at: str) -> dict[str, Any]:
        """Keep what the archive has replaced before, and the rows that leave it now; what is told of them."""
        names = held.shape.names
        columns = [archive_file.REPLACED_AT, *names]
        sources = [f"SELECT {listed(columns)} FROM old.{archive_file.REPLACED}"] if held.replaced else []
        if DIFFERS in states:
            sources.append(
                f"SELECT '{at}', {listed(names, 'x')} FROM {self._table('old')} AS x CROSS JOIN work.chosen AS c"
                f" ON {self._keyed('x', 'c')} WHERE {_of(held.month, [DIFFERS])}"
            )
        source = " UNION ALL ".join(sources)
        self._con.execute(f"INSERT INTO fresh.{archive_file.REPLACED}({listed(columns)}) {source}")
        self._require_equal(
            rows_digest(self._con, columns, source),
            rows_digest(self._con, columns, f"SELECT {listed(columns)} FROM fresh.{archive_file.REPLACED}"),
        )
        return archive_file.replaced_digest(self._con, self.shape, "fresh")

    def _require_equal(self, read: dict[str, Any], written: dict[str, Any]) -> None:
        if read != written:
            raise IntegrityError(
                f"the rows that were written, {written['rows']}, are not the {read['rows']} that were read",
                subject=self.subject,
                untouched="the archives and the database",
            )

    # ---- deleting

    def pair(self, held: ArchiveFile, states: Sequence[int]) -> dict[str, int]:
        """Note which of a month's rows may be deleted, and count those that stay, by reason."""
        with self._attached(held.path, "old", mode="ro", immutable="1"), sqlite_errors(held.path):
            self._con.execute("DELETE FROM work.pairs")
            source = (
                f"FROM work.chosen AS c CROSS JOIN {self._table('main')} AS t ON {self._found('t', 'c')}"
                f" WHERE {_of(held.month, states)}"
            )
            reasons = {"referenced": referenced(self.references), "newest": newest(self.shape, self._con)}
            kept = {}
            for reason, condition in reasons.items():
                kept[reason] = int(self._one(f"SELECT count(*) {source} AND {condition}")) if condition else 0
            free = "".join(f" AND NOT {condition}" for condition in reasons.values() if condition)
            live = [f"t.{quoted(name)}" for name in self.shape.identity]
            archived = [f"o.{quoted(name)}" for name in self.shape.identity]
            self._con.execute(
                f"INSERT INTO work.pairs({', '.join(self._pair_columns())}) SELECT {', '.join([*live, *archived])}"
                f" FROM work.chosen AS c CROSS JOIN {self._table('main')} AS t ON {self._found('t', 'c')}"
                f" CROSS JOIN {self._table('old')} AS o ON {self._keyed('o', 'c')}"
                f" WHERE {_of(held.month, states)}{free} ORDER BY c.n"
            )
        return kept


@contextmanager
def _one_table(archive: Path) -> Iterator[None]:
    """Say what it means that rows of an archive and rows of the database do not fit into one table."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise InputError(
            f"rows that it holds and rows of the database cannot be in one table: {error}",
            subject=str(archive),
            untouched="the archive and the database",
            remedy=f"move {archive.name} to another directory, and run it once with --accept-fewer: a new archive of"
            " that month begins",
        ) from None


def same_key(shape: Shape, other: str = "o") -> str:
    """SQL that says that another row, `o` of an archive, has the key of a row `t` of the table, as that compares."""
    return matching(*([f"{prefix}.{quoted(key)}" for key in shape.key] for prefix in ("t", other)))


def _of(month: str, states: Sequence[int]) -> str:
    """SQL for the chosen rows of a month in some states."""
    return f"c.month = '{month}' AND c.state IN ({', '.join(map(str, states))})"


def referenced(found: Sequence[tuple[str, list[tuple[str, str]]]]) -> str:
    """SQL that says that a row `t` is the parent of another row; empty when no foreign key points at the table."""
    conditions = []
    for child, columns in found:
        left = [f"t.{quoted(parent)}" for _child, parent in columns]
        right = [f"child.{quoted(column)}" for column, _parent in columns]
        conditions.append(f"EXISTS (SELECT 1 FROM main.{quoted(child)} AS child WHERE {matching(left, right)})")
    return f"({' OR '.join(conditions)})" if conditions else ""


def newest(shape: Shape, con: sqlite3.Connection) -> str:
    """SQL that says that a row `t` has the highest number, which SQLite would give to a new row if it were gone.

    Empty where numbers are the database's own affair, or AUTOINCREMENT remembers them.
    """
    if not shape.integer_key:
        return ""
    name, table = quoted(shape.integer_key), f"main.{quoted(shape.table)}"
    with_sequence = con.execute("SELECT count(*) FROM main.sqlite_master WHERE name = 'sqlite_sequence'").fetchone()[0]
    if with_sequence:
        remembered = con.execute(
            f"SELECT count(*) FROM main.sqlite_sequence WHERE name = ? AND seq >= (SELECT max({name}) FROM {table})",
            (shape.table,),
        ).fetchone()[0]
        if remembered:
            return ""
    return f"(t.{name} = (SELECT max({name}) FROM {table}))"


def _value(kind: str, data: bytes | None, codec: str) -> Any:
    """A column's value from its storage class and its bytes; None for what is no time anyway."""
    if data is None or kind == "blob":
        return None
    try:
        text = data.decode(codec)
        return text if kind == "text" else int(text) if kind == "integer" else float(text)
    except ValueError:
        return None


def _differ(one: Any, other: Any) -> bool:
    return (one.declared, one.generated) != (other.declared, other.generated)


def _shown(row: Sequence[Any]) -> str:
    return ", ".join(f"{value!r:.60}" for value in row)
