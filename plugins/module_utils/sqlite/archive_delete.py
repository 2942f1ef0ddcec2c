# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete archived rows from the live database, in transactions so short that its writers do not notice.

Each transaction compares every row with its copy in the archive and deletes it only when both hold exactly the same:
a row that changed after it was archived stays. A transaction that would take too long is interrupted, rolled back
and tried again with fewer rows.

A database in WAL mode that SQLite could corrupt (see `integrity.wal_reset_bug`) is opened for each transaction anew,
alone, and closed after it: nobody else has it open meanwhile, and a service that starts waits for one transaction.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InputError, IntegrityError, PreconditionError, TimeoutExceeded
from ..core.fsio import fsync_dir, fsync_file
from .archive_file import ArchiveFile, usable
from .archive_selection import newest, referenced
from .connect import Deadline, connect, is_locked, require_database, sqlite_errors, uri
from .fingerprint import quoted
from .integrity import wal_reset_bug
from .table_shape import Shape, delete_triggers, equal_rows, listed, matching, read_shape, references

# SQLite's busy handler sleeps up to 0.1 s between two looks: whoever waits gets its turn in a longer pause.
PAUSE_S = 0.12
_FIRST_BATCH = 50
_LARGEST_BATCH = 5000
_STEPS_BETWEEN_LOOKS = 1000
_LONGEST_BEGIN_S = 30.0
# Whoever only looks at a database is gone after a pause; a service stays.
_MOST_HINDERED = 5


@dataclass(frozen=True)
class Deleted:
    """What was done.

    Attributes:
        longest_s: the longest time that a transaction kept other writers waiting, in seconds.
        hindered: why the rest was left; empty when nothing was.
    """

    rows: int
    transactions: int
    longest_s: float
    hindered: str = ""


class LiveTable:
    """The live database, opened to delete from one table.

    Args:
        live: the database; its real path.
        work: the private file with the table `pairs`.
        shape: the table as the snapshot has it.
        budget_s: how long one transaction may keep writers waiting.

    Raises PreconditionError when a deletion would fire a trigger or one more writer would endanger the database,
    TimeoutExceeded when it is locked.
    """

    def __init__(self, live: Path, work: Path, shape: Shape, *, budget_s: float, deadline: Deadline) -> None:
        self._live, header = require_database(live)
        self._subject = live
        self._work = work
        self._shape = shape
        self._budget_s = budget_s
        self._deadline = deadline
        self._size = _FIRST_BATCH
        self._alone = header.wal and wal_reset_bug()
        self._archive: Path | None = None
        self._held: tuple[int, ...] = ()
        self._con: sqlite3.Connection | None = None
        try:
            with sqlite_errors(live):
                con = self._open()
                found = read_shape(con, shape.table, shape.key, subject=str(live))
                if found != shape:
                    raise InputError(f"the table {shape.table} was changed meanwhile", subject=str(live))
                triggers = delete_triggers(con, shape)
                if triggers:
                    raise PreconditionError(
                        f"deleting from {shape.table} would fire the trigger {', '.join(triggers)}", subject=str(live)
                    )
                self._schema = self._schema_version(con)
                self._conditions = self._keeping(con)
            if self._alone:
                self.close()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the database."""
        con, self._con = self._con, None
        if con is not None:
            con.close()

    def _open(self) -> sqlite3.Connection:
        """The database with the list of rows, and the archive where there is one already; as it is, or anew."""
        if self._con is not None:
            return self._con
        con = connect(self._live, timeout_s=_LONGEST_BEGIN_S, mode="rw")
        try:
            if self._alone:
                self._require_alone(con)
            con.execute("PRAGMA foreign_keys = OFF")  # checked by hand: nothing may cascade
            con.execute("ATTACH DATABASE ? AS work", (uri(self._work, mode="ro"),))
            if self._archive is not None:
                con.execute("ATTACH DATABASE ? AS archive", (uri(self._archive, mode="ro", immutable="1"),))
        except BaseException:
            con.close()
            raise
        self._con = con
        return con

    def _require_alone(self, con: sqlite3.Connection) -> None:
        """Be the only connection of a database in WAL mode, or refuse."""
        con.execute("PRAGMA busy_timeout = 0")
        con.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            con.execute("BEGIN IMMEDIATE")
            con.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            if not is_locked(error):
                raise
            raise self._endangered("is in WAL mode and open elsewhere", "stop the service for the deletion") from None

    def _endangered(self, state: str, remedy: str) -> PreconditionError:
        return PreconditionError(
            f"{state}; SQLite {sqlite3.sqlite_version} can corrupt it when one more connection writes",
            subject=str(self._live),
            untouched="the live rows that are left",
            remedy=f"{remedy}, or update SQLite to 3.51.3",
        )

    @staticmethod
    def _schema_version(con: sqlite3.Connection) -> int:
        return int(con.execute("PRAGMA main.schema_version").fetchone()[0])

    def _keeping(self, con: sqlite3.Connection) -> str:
        """SQL for rows that must stay whatever the archive holds, to be looked at in each transaction."""
        reasons = (referenced(references(con, self._shape)), newest(self._shape, con))
        return "".join(f" AND NOT {reason}" for reason in reasons if reason)

    def delete(self, archive: ArchiveFile, done: Callable[..., None]) -> Deleted:
        """Delete the rows that `pairs` lists and the archive holds unchanged.

        Args:
            done: called after each transaction with its number of rows.

        Raises TimeoutExceeded when the time is over, or when a single row takes longer than the budget.
        """
        shape, table = self._shape, quoted(self._shape.table)
        identity = [quoted(name) for name in shape.identity]
        live = matching([f"t.{name}" for name in identity], [f"p.l{number}" for number in range(len(identity))])
        held = matching([f"o.{name}" for name in identity], [f"p.a{number}" for number in range(len(identity))])
        statement = (
            f"DELETE FROM main.{table} WHERE ({', '.join(identity)}) IN (SELECT {listed(shape.identity, 't')}"  # noqa: S608 - quoted
            f" FROM work.pairs AS p CROSS JOIN main.{table} AS t ON {live} CROSS JOIN archive.{table} AS o ON {held}"
            f" WHERE p.m > ? AND p.m <= ? AND {equal_rows('t', 'o', shape.stored)}{self._conditions})"
        )
        rows, transactions, longest_s, last, tried, hindered = 0, 0, 0.0, 0, False, 0
        # Also what a killed run renamed, or a person copied there, is on the disk before the first row goes.
        with usable(archive.path):
            fsync_file(archive.path)
            fsync_dir(archive.path.parent)
        self.close()
        self._archive, self._held = archive.path, _identity(archive.path)
        with sqlite_errors(self._subject):
            try:
                upper = self._upper(last)
                while upper is not None:
                    if tried:
                        self._deadline.clock.sleep(PAUSE_S)
                    tried = True
                    self._deadline.check("deleting archived rows")
                    try:
                        taken = self._transaction(statement, last, upper)
                    except PreconditionError as error:  # somebody has opened it in the pause
                        hindered += 1
                        if hindered > _MOST_HINDERED:
                            return Deleted(rows, transactions, round(longest_s, 4), str(error))
                        continue
                    hindered = 0
                    if taken is not None:
                        last, transactions, rows = upper, transactions + 1, rows + taken[0]
                        longest_s = max(longest_s, taken[1])
                        done(rows=taken[0], seconds=round(taken[1], 4))
                    upper = self._upper(last)
            finally:
                self.close()
        return Deleted(rows, transactions, round(longest_s, 4))

    def _upper(self, last: int) -> int | None:
        """The end of the next batch; None when there is none."""
        with contextlib.closing(connect(self._work, timeout_s=5, mode="ro")) as con:
            found = con.execute(
                "SELECT max(m) FROM (SELECT m FROM pairs WHERE m > ? ORDER BY m LIMIT ?)", (last, self._size)
            ).fetchone()[0]
        return None if found is None else int(found)

    def _transaction(self, statement: str, last: int, upper: int) -> tuple[int, float] | None:
        """Delete one batch: its rows and seconds, or None when it was given up and is to be tried with fewer rows."""
        clock = self._deadline.clock
        begun = clock.monotonic()
        con = self._open()
        con.execute(f"PRAGMA busy_timeout = {int(_LONGEST_BEGIN_S * 1000)}")
        con.execute("BEGIN IMMEDIATE")
        if not self._alone:  # else others wait since it was opened
            begun = clock.monotonic()
        # Half of the budget for the statement, half for waiting until readers let it commit.
        con.execute(f"PRAGMA busy_timeout = {max(int(self._budget_s * 500), 1)}")
        con.set_progress_handler(
            lambda: 1 if clock.monotonic() - begun > self._budget_s / 2 else 0, _STEPS_BETWEEN_LOOKS
        )
        try:
            self._require_unchanged(con)
            rows = con.execute(statement, (last, upper)).rowcount
            worked_s = clock.monotonic() - begun
            con.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._give_up(con)
            if str(error) != "interrupted" and not is_locked(error):
                raise
            self._smaller(error)
            return None
        except BaseException:
            self._give_up(con)
            raise
        finally:
            con.set_progress_handler(None, 0)
            if self._alone:
                self.close()  # brings the log into the database, and lets others in
        seconds = clock.monotonic() - begun
        # The commit is mostly one wait for the disk, however many rows there are: it does not count here, unless
        # bringing the log into the database is part of it.
        used_s, little_s, much_s = worked_s, self._budget_s / 8, self._budget_s / 3
        if self._alone:
            used_s, little_s, much_s = seconds, self._budget_s * 0.4, self._budget_s * 0.8
        if used_s < little_s:
            self._size = min(self._size * 2, _LARGEST_BATCH)
        elif used_s > much_s:
            self._size = max(self._size // 2, 1)
        return rows, seconds

    def _require_unchanged(self, con: sqlite3.Connection) -> None:
        """Inside the transaction: the table, the archive, and how the database is written are what they were."""
        if self._schema_version(con) != self._schema:
            raise InputError("the schema was changed meanwhile", subject=str(self._live))
        if self._archive is None or _identity(self._archive) != self._held:
            raise IntegrityError(
                "was replaced while rows that it holds were deleted",
                subject=str(self._archive),
                untouched="the rows that are left",
                remedy="put the file back that was there; run it again",
            )
        wal = con.execute("PRAGMA main.journal_mode").fetchone()[0] == "wal"
        if wal and not self._alone and wal_reset_bug():
            raise self._endangered("was brought into WAL mode meanwhile", "run it again with the service stopped")

    def _give_up(self, con: sqlite3.Connection) -> None:
        con.set_progress_handler(None, 0)
        if con.in_transaction:
            con.execute("ROLLBACK")

    def _smaller(self, error: sqlite3.OperationalError) -> None:
        if self._size == 1 and not is_locked(error):
            raise TimeoutExceeded(
                f"deleting one row takes longer than {self._budget_s / 2:g} s, and writers would wait",
                subject=str(self._live),
                untouched="the rows that are left",
                remedy="an index on the columns that refer to the table may help, or a larger writer_wait_s",
            )
        self._size = max(self._size // 4, 1)


def _identity(path: Path) -> tuple[int, ...]:
    """What tells a file from any other that gets its name; nothing of it when there is none."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
