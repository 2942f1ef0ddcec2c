# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Move old rows into an archive for each month, so that at any moment each row is in the database, an archive or both.

1. Take a hot snapshot: the contract's query, the copying and the comparing keep no writer waiting, and all of it
   sees the database at one moment. One cut-off time decides for all tables.
2. Prove each archive that exists; a damaged one ends the work on its table before anything is done.
3. Make the archive of each month anew with the rows that it lacks, compare digests, bring it to the disk, read it back,
   rename it.
4. Only when asked to: delete from the live database the rows that it and the archive hold exactly alike.

Keys decide what an archive holds already, so a second run, or one after a kill, adds nothing twice. A row that changed
after it was archived stays in both, and is reported, until a person says that the live content counts; then the archive
keeps what it held beside its rows. A key that another row has now is told.
"""

from __future__ import annotations

import contextlib
import functools
import grp
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ..core.clock import Clock, utc_text
from ..core.config import ArchivedTable, Archives, Config
from ..core.errors import ConfigError, EngineError, InputError, IntegrityError, PreconditionError, TimeoutExceeded
from ..core.fsio import fsync_dir, private_umask
from ..core.journal import Journal, Operation
from ..core.lease import Lease
from ..core.progress import Report
from . import archive_clock, archive_delete, archive_file, hot_backup
from .archive_file import ArchiveFile
from .archive_selection import DIFFERS, ELSEWHERE, HELD, NEW, Choice, Selection
from .connect import Deadline

OPERATION = "archive"
ARCHIVED = "archived"
ACCEPTED = "accepted"
DELETED = "deleted"
COMPARED = "compared"
OLDER_THAN_DAYS = 90
WRITER_WAIT_S = 0.25
TIMEOUT_S = 3600.0
_DIRECTORY_MODE = 0o750
_MOST_DAYS = 36500


def run(
    config: Config,
    *,
    names: Sequence[str] = (),
    older_than_days: int = OLDER_THAN_DAYS,
    delete: bool = False,
    replace_changed: bool = False,
    accept_fewer: bool = False,
    accept_clock: bool = False,
    writer_wait_s: float = WRITER_WAIT_S,
    timeout_s: float = TIMEOUT_S,
    dry_run: bool = False,
    clock: Clock | None = None,
    journal: Journal | None = None,
    progress: Report | None = None,
) -> dict[str, Any]:
    """Archive what the contract names.

    Args:
        names: entries of the contract; all of them without any.
        older_than_days: rows of which the time is at least so long ago; at least 1.
        delete: delete from the live database what an archive holds, too.
        replace_changed: a person has decided that rows which changed after they were archived count as they are now.
        accept_fewer: a person has decided that archives which are gone, or hold fewer rows than before, count as
            they are now.
        accept_clock: a person has looked at the clock, and it is right, whatever the journal and the newest rows say.
        writer_wait_s: how long a deleting transaction may keep the service's writers waiting.
        dry_run: find out what would be done; nothing is written but private work files, which are removed.
        journal: where steps are noted; needed unless `dry_run`.

    Returns:
        JSON-serialisable: `tables` with their `months`, `problems`, `notes` (what is worth knowing and needs nobody),
        `changed`, and `result`: `ok`, or `degraded` when something needs a person.

    Raises:
        LeaseError: other work on this host is under way.
        PreconditionError: the clock may have jumped ahead.
        EngineError: no table could be archived; with one table, whatever was wrong with it.
    """
    clock = clock or Clock()
    archives, tables = _chosen(config, names)
    if not 1 <= older_than_days <= _MOST_DAYS:
        raise InputError(f"older_than_days is a number from 1 to {_MOST_DAYS}, not {older_than_days}")
    if writer_wait_s <= 0:
        raise InputError(f"writer_wait_s must be above 0, not {writer_wait_s:g}")
    now = clock.now().replace(microsecond=0)
    cutoff = now - timedelta(days=older_than_days)
    with contextlib.ExitStack() as stack:
        stack.enter_context(private_umask())
        operation = None
        if not dry_run:
            if journal is None:
                raise InputError("archiving needs a journal")
            stack.enter_context(Lease(config.lease_file, purpose="archive", clock=clock))
            operation = stack.enter_context(
                journal.operation(OPERATION, tables=[table.name for table in tables], delete=delete)
            )
        past = Journal(config.journal_file).read()
        if not accept_clock:
            archive_clock.require_lived_through(past, cutoff, now, subject=str(config.journal_file))
        work = stack.enter_context(workspace(config, "archive", clock))
        job = _Job(config, archives, work, cutoff, clock, operation, progress)
        if accept_clock:
            job.step(archive_clock.ACCEPTED)
        else:
            job.now = now
        job.options(delete=delete, replace_changed=replace_changed, writer_wait_s=writer_wait_s, timeout_s=timeout_s)
        job.accept_fewer = accept_fewer
        job.noted = noted_rows(past)
        result = job.go(tables)
        if operation is not None:
            operation.result = result["result"]
            operation.evidence = {key: result[key] for key in ("cutoff", "archived", "deleted", "problems")}
        return result


def _chosen(config: Config, names: Sequence[str]) -> tuple[Archives, list[ArchivedTable]]:
    archives = config.archives
    if archives is None:
        raise ConfigError(
            "the contract names no table whose rows are archived",
            remedy="set service_archives and apply the role agent",
        )
    known = {table.name: table for table in archives.tables}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"there is no archive named {', '.join(unknown)}; the contract has {', '.join(known)}")
    return archives, [known[name] for name in (names or known)]


@contextlib.contextmanager
def workspace(config: Config, purpose: str, clock: Clock) -> Iterator[Path]:
    """A private empty directory in the state directory, for one at a time; what a killed run left in it is removed.

    Raises LeaseError naming whoever uses it.
    """
    with Lease(config.run_dir / f"{purpose}.lock", purpose=purpose, clock=clock):
        directory = config.state_dir / f"{purpose}-work"
        _empty(directory)
        directory.mkdir(mode=0o700, parents=True)
        try:
            yield directory
        finally:
            _empty(directory)


def _empty(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)


class _Job:
    """One run over the tables of the contract."""

    def __init__(
        self,
        config: Config,
        archives: Archives,
        work: Path,
        cutoff: datetime,
        clock: Clock,
        operation: Operation | None,
        progress: Report | None,
    ) -> None:
        self.config = config
        self.archives = archives
        self.work = work
        self.cutoff = cutoff
        self.clock = clock
        self.operation = operation
        self.progress = progress
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.snapshots: dict[str, Path] = {}
        self.delete = self.replace_changed = self.accept_fewer = False
        self.now: datetime | None = None
        self.noted: dict[tuple[str, str], int] = {}
        self.writer_wait_s = WRITER_WAIT_S
        self.deadline = Deadline(clock, TIMEOUT_S, OPERATION)

    def options(self, *, delete: bool, replace_changed: bool, writer_wait_s: float, timeout_s: float) -> None:
        """What the operator has asked for."""
        self.delete, self.replace_changed = delete, replace_changed
        self.writer_wait_s = writer_wait_s
        self.deadline = Deadline(self.clock, timeout_s, OPERATION)

    def step(self, name: str, **facts: Any) -> None:
        """Note a step."""
        if self.operation is not None:
            self.operation.step(name, **facts)
        if self.progress is not None:
            self.progress(name, facts)

    def go(self, tables: Sequence[ArchivedTable]) -> dict[str, Any]:
        begun = self.clock.monotonic()
        done, errors = [], []
        for table in tables:
            try:
                done.append(self._table(table))
            except TimeoutExceeded:
                raise
            except EngineError as error:  # the others have their turn
                errors.append(error)
                self.problems.append(f"archive {table.name}: {error}")
                self.step("failed", archive=table.name, why=str(error))
        if errors and not done:
            raise errors[0]
        months = [month for table in done for month in table["months"]]
        return {
            "result": "degraded" if self.problems else "ok",
            "changed": any(month["added"] or month["rewritten"] or month["deleted"] for month in months),
            "dry_run": self.operation is None,
            "cutoff": utc_text(self.cutoff),
            "delete": self.delete,
            "directory": str(self.archives.directory),
            "tables": done,
            "archived": sum(month["added"] for month in months),
            "deleted": sum(month["deleted"] for month in months),
            "problems": self.problems,
            "notes": self.notes,
            "duration_s": round(self.clock.monotonic() - begun, 3),
        }

    # ---- one table

    def _table(self, table: ArchivedTable) -> dict[str, Any]:
        database = self.config.database(table.database)
        snapshot = self._snapshot(table.database)
        selection = Selection(snapshot, self.work / "chosen.db", table, self.deadline, subject=str(database.path))
        try:
            choice = selection.choose(self.cutoff, now=self.now)
            self.step("chosen", archive=table.name, rows=sum(choice.months.values()), months=len(choice.months))
            held = self._held(table)
            for archive in held.values():
                selection.compare(archive)
            reused = self._reused(table, selection, held)
            months = [self._month(table, selection, month, held.get(month)) for month in choice.months]
            if self.delete and self.operation is not None:
                self._delete(table, selection, months)
        finally:
            selection.close()
        self._tell(table, choice, months)
        return {
            "name": table.name,
            "database": table.database,
            "table": table.table,
            "chosen": sum(choice.months.values()),
            "unreadable": choice.unreadable,
            "without_key": choice.without_key,
            "waiting": choice.waiting,
            "newest": utc_text(choice.newest) if choice.newest else "",
            "reused": reused,
            "months": months,
        }

    def _reused(self, table: ArchivedTable, selection: Selection, held: Mapping[str, ArchiveFile]) -> dict[str, int]:
        """Rows of each archive of which another row of the database has the key now; told and noted."""
        found = {}
        for month, archive in held.items():
            count, examples = selection.reused(month)
            if count:
                found[month] = count
                self.notes.append(
                    f"archive {table.name}: the keys of {count} rows in {archive.path} are used in the database by"
                    f" other rows, such as {'; '.join(examples[:3])}; both are kept, and queries show both"
                )
        self.step(COMPARED, archive=table.name, reused=found)
        return found

    def _snapshot(self, database: str) -> Path:
        """One snapshot of a database for all of its tables."""
        if database not in self.snapshots:
            path = self.work / f"{database}.snapshot"
            self.step("snapshot", database=database)
            taken = hot_backup.transient(
                self.config.database(database).path,
                path,
                timeout_s=max(self.deadline.left_s, 1),
                verify="quick",
                clock=self.clock,
            )
            self.step("snapshot_taken", database=database, method=taken.method, writer_stall_s=taken.lock_held_s)
            self.snapshots[database] = path
        return self.snapshots[database]

    def _held(self, table: ArchivedTable) -> dict[str, ArchiveFile]:
        """Every archive of the table, proven."""
        files = archive_file.existing(self.archives.directory, table.name)
        if self.operation is not None:
            archive_file.remove_partial(self.archives.directory, table.name)
        held = {month: archive_file.read(path, table, month, self.deadline) for month, path in files.items()}
        rows = {month: file.rows + file.replaced for month, file in held.items()}
        for month, why in fewer_than_noted(self.noted, table.name, rows).items():
            if not self.accept_fewer:
                raise IntegrityError(
                    why,
                    subject=str(archive_file.path_of(self.archives.directory, table.name, month)),
                    untouched="every archive of this table, and the database",
                    remedy="bring the newest one back from a backup (fluxmaint extract); where it was moved away on"
                    " purpose, run it once with --accept-fewer",
                )
            self.step(ACCEPTED, archive=table.name, month=month, rows=rows.get(month, 0), why=why)
        return held

    def _month(
        self, table: ArchivedTable, selection: Selection, month: str, held: ArchiveFile | None
    ) -> dict[str, Any]:
        """Bring one archive up to date; its result."""
        counts = selection.counts(month)
        lacking = held is not None and _lacks_columns(held, selection)
        states = [NEW]
        states += [HELD] if lacking else []
        states += [DIFFERS] if self.replace_changed else []
        rewritten = sum(counts[state] for state in states if state != NEW)
        path = archive_file.path_of(self.archives.directory, table.name, month)
        result = {
            "month": month,
            "file": str(path),
            "rows_before": held.rows if held else 0,
            "rows": (held.rows if held else 0) + counts[NEW],
            "added": counts[NEW],
            "bytes": selection.content_bytes(month),
            "held": counts[HELD],
            "rewritten": rewritten,
            "differs": 0 if self.replace_changed else counts[DIFFERS],
            "elsewhere": counts[ELSEWHERE],
            "replaced": counts[DIFFERS] if self.replace_changed else 0,
            "deleted": 0,
            "kept": {},
        }
        result["examples"] = selection.examples(month, DIFFERS if result["differs"] else ELSEWHERE)
        if self.operation is None or not (counts[NEW] or rewritten):
            return result
        self.step("build", archive=table.name, month=month, rows=counts[NEW], rewritten=rewritten)
        made = self.work / "new.db"
        facts = {
            "name": table.name,
            "database": table.database,
            "table": table.table,
            "service": self.config.service,
            "cutoff": utc_text(self.cutoff),
            "written_at": utc_text(self.clock.now()),
        }
        selection.build(month, held, made, states, facts)
        self.step("built", archive=table.name, month=month)
        with archive_file.usable(path):
            self._make_directory()
            archive = archive_file.publish(made, path, table, month, self._owner(), self.deadline)
        made.unlink()
        self.step(
            ARCHIVED,
            archive=table.name,
            month=month,
            rows=archive.rows + archive.replaced,
            replaced=archive.replaced,
            sha256=archive.sha256,
        )
        return result

    # ---- deleting

    def _delete(self, table: ArchivedTable, selection: Selection, months: list[dict[str, Any]]) -> None:
        """Delete from the live database, month by month; whatever hinders that is a problem that is told."""
        states = [NEW, HELD, *([DIFFERS] if self.replace_changed else [])]
        chosen = self.work / "chosen.db"
        live = self.config.database(table.database).path
        for result in months:
            path = Path(result["file"])
            if not path.exists():
                continue
            archive = archive_file.read(path, table, result["month"], self.deadline, content=False)
            kept = selection.pair(archive, states)
            try:
                opened = archive_delete.LiveTable(
                    live, chosen, selection.shape, budget_s=self.writer_wait_s, deadline=self.deadline
                )
            except PreconditionError as error:
                self.problems.append(f"archive {table.name}: nothing was deleted: {error}")
                return
            facts = {"archive": table.name, "database": table.database, "table": selection.shape.table}
            self.step("delete", month=result["month"], **facts)
            done = functools.partial(self.step, DELETED, month=result["month"], **facts)
            try:
                deleted = opened.delete(archive, done)
            finally:
                opened.close()
            wanted = sum(selection.counts(result["month"])[state] for state in states)
            kept["left" if deleted.hindered else "changed"] = wanted - deleted.rows - sum(kept.values())
            result.update(
                deleted=deleted.rows,
                kept={reason: count for reason, count in kept.items() if count},
                transactions=deleted.transactions,
                longest_wait_s=deleted.longest_s,
            )
            if deleted.hindered:
                self.problems.append(f"archive {table.name}: the deletion ended early: {deleted.hindered}")
                return

    # ---- places

    def _make_directory(self) -> None:
        directory = self.archives.directory
        if directory.is_dir():
            return
        if not directory.parent.is_dir():
            raise PreconditionError(
                "does not exist", subject=str(directory.parent), remedy="correct service_archive_dir"
            )
        owner = self._owner()
        made = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        try:
            if owner != (os.geteuid(), os.getegid()):
                os.chown(made, *owner)
            made.chmod(_DIRECTORY_MODE)
            made.rename(directory)  # with its owner and mode or not at all
        except BaseException:
            made.rmdir()
            raise
        fsync_dir(directory.parent)

    def _owner(self) -> tuple[int, int]:
        """User and group of the service; without the right to give files away, of this process."""
        if os.geteuid() != 0:
            return os.geteuid(), os.getegid()
        try:
            return pwd.getpwnam(self.config.user).pw_uid, grp.getgrnam(self.config.group).gr_gid
        except KeyError:
            raise PreconditionError(
                f"the account {self.config.user}:{self.config.group} does not exist, and archives belong to it",
                remedy="apply the role app, or correct service_user",
            ) from None

    # ---- telling

    def _tell(self, table: ArchivedTable, choice: Choice, months: Sequence[dict[str, Any]]) -> None:
        """What a person has to look at."""
        if choice.unreadable:
            self.problems.append(
                f"archive {table.name}: {choice.unreadable} rows have a time that cannot be read; they stay in the"
                " database"
            )
        if choice.without_key:
            self.problems.append(
                f"archive {table.name}: {choice.without_key} rows have no key; they stay in the database"
            )
        if choice.waiting and choice.newest and self.now and self.now - choice.newest > archive_clock.LONGEST_SILENCE:
            self.notes.append(
                f"archive {table.name}: {choice.waiting} rows wait: they are old for the clock, which says"
                f" {utc_text(self.now)}, but not beside the newest row, of {utc_text(choice.newest)}; where the clock"
                " is right, --accept-clock archives them"
            )
        for month in months:
            if month["differs"]:
                self.problems.append(
                    f"archive {table.name}: {month['differs']} rows of {month['month']} changed after they were"
                    f" archived and are kept in both, such as {'; '.join(month['examples'][:3])}; compare them, then"
                    " run it once with --replace-changed, which archives them as they are now, and keeps what the"
                    f" archive had in its table {archive_file.REPLACED}"
                )
            if month["elsewhere"]:
                self.problems.append(
                    f"archive {table.name}: {month['elsewhere']} rows of {month['month']} are in the archive of another"
                    " month: their time changed after they were archived, or their key was used again; they stay in the"
                    " database"
                )


def _lacks_columns(held: ArchiveFile, selection: Selection) -> bool:
    old = {name.lower() for name in held.shape.names}
    return any(name.lower() not in old for name in selection.shape.names)


def difference(result: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Rows of each archive before and after a run, for a diff."""
    months = [month for table in result["tables"] for month in table["months"]]
    return {
        "before": {month["file"]: month["rows_before"] for month in months if month["rows_before"]},
        "after": {month["file"]: month["rows"] for month in months},
    }


def noted_rows(entries: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    """Rows of each archive, by table and month, as they were noted last; a restore brings others, and begins anew.

    Rows that an archive keeps beside those that count are rows of it, too.
    """
    noted: dict[tuple[str, str], int] = {}
    for entry in entries:
        if entry["operation"] == "restore" and entry["event"] == "end" and entry.get("result") == "ok":
            noted.clear()
        if entry["operation"] == OPERATION and entry.get("step") in (ARCHIVED, ACCEPTED):
            noted[entry["archive"], entry["month"]] = int(entry["rows"])
    return noted


def noted_reused(entries: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    """Rows of each archive of which another row had the key when rows were archived last, by table and month."""
    compared = (entry for entry in entries if entry["operation"] == OPERATION and entry.get("step") == COMPARED)
    last = {entry["archive"]: entry["reused"] for entry in compared}
    return {(name, month): int(count) for name, found in last.items() for month, count in found.items()}


def fewer_than_noted(noted: Mapping[tuple[str, str], int], name: str, rows: Mapping[str, int]) -> dict[str, str]:
    """Months of which the archive is not the one that was written last, and why that is known."""
    return {
        month: f"holds {rows[month]} rows, and {count} were archived there: it is an older copy"
        if month in rows
        else f"is gone, and {count} rows were archived there"
        for (table, month), count in noted.items()
        if table == name and rows.get(month, 0) < count
    }


def moved_since(journal: Journal, database: str, since: str) -> dict[str, int]:
    """Rows per table that were deleted from a database after they had been archived, since a UTC time as text."""
    moved: dict[str, int] = {}
    for entry in journal.read(OPERATION):
        if entry.get("step") == DELETED and entry.get("database") == database and entry["time"] >= since:
            moved[entry["table"]] = moved.get(entry["table"], 0) + int(entry["rows"])
    return moved
