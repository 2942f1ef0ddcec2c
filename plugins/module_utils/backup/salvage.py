# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be had back of a damaged database, laid side by side: nothing is put into place, the original is only read.

The damaged set is kept first, on the disk, with digests. Then up to four candidates are made in the same directory:
`generation`, the newest proven one; `recover`, what `.recover` finds where it exists; `rows`, what the pages still
hold; `merged`, the generation with the newer rows of those. Each is checked like a restored backup, and the report says
per table how many rows it has saved, lost and doubtful. `salvage_source` brings one of them into place.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.clock import Clock, utc_text
from ..core.config import Config, Database
from ..core.errors import EngineError, InputError, IntegrityError, PreconditionError, StoreError, TimeoutExceeded
from ..core.fsio import atomic_write, free_bytes, fsync_dir, private_umask, read_json, replace, sha256_file, write_json
from ..core.human import table_lines
from ..core.journal import Journal
from ..core.progress import Report
from ..sqlite import kept_set, recover, salvage, salvage_compare
from ..sqlite.connect import Deadline
from ..sqlite.salvage_compare import Doubts, TableRows
from ..store.open import open_store
from . import checks, overview
from .fetch import Opened, fetch_opened, open_generation
from .manifest import DatabaseRecord

FORMAT = 1
REPORT = "report.json"
TABLE = "report.txt"
KEPT = "corrupt"
GENERATION, RECOVER, ROWS, MERGED = "generation", "recover", "rows", "merged"
CANDIDATES = (GENERATION, RECOVER, ROWS, MERGED)
NEWEST_PROVEN, NONE = "proven", "none"
_SPARE_BYTES = 16 << 20
_CHECKERS = 2
_COUNTS = ("rows", "in_generation", "saved", "lost", "doubtful", "newer")


@dataclass(frozen=True)
class Request:
    """What to salvage.

    Attributes:
        database: its name in the contract.
        to: a new or empty directory, for the damaged set and everything made of it.
        identity_file: age identity to decrypt the generation with; without it only its manifest helps.
        generation: an id; `proven` for the newest proven one; `none` to use none.
        target: fetch from this target alone.
        timeout_s: limit for everything, in seconds.
    """

    database: str
    to: Path
    identity_file: Path | None = None
    generation: str = NEWEST_PROVEN
    target: str = ""
    timeout_s: float = 7200


def plan(config: Config, request: Request, *, decrypts: bool = False, clock: Clock | None = None) -> dict[str, Any]:
    """What `run` would do: the set, the generation, which candidates there will be, the room; changes nothing.

    Args:
        decrypts: there will be an identity, although the request does not name its file yet.
    """
    clock = clock or Clock()
    database, real = _database(config, request)
    earlier = _earlier(request, real)
    if earlier is not None:
        return {**earlier, "changed": False, "result": "unchanged"}
    _require_new(request.to)
    chosen = _Choice.of(config, request, clock, decrypts=decrypts or request.identity_file is not None)
    size = sum(path.stat().st_size for path in kept_set.members(real))
    refusal = recover.refusal()
    return {
        "changed": True,
        "result": "planned",
        "database": database.name,
        "path": str(real),
        "directory": str(request.to),
        "set": [str(path) for path in kept_set.members(real)],
        "generation": chosen.facts,
        "candidates": {
            GENERATION: {"available": not chosen.reason, "reason": chosen.reason},
            RECOVER: {"available": not refusal, "reason": refusal},
            ROWS: {"available": True, "reason": ""},
            MERGED: {"available": not chosen.reason, "reason": chosen.reason},
        },
        "needed_bytes": _needed(size, chosen),
        "free_bytes": free_bytes(_existing(request.to)),
    }


def run(
    config: Config,
    request: Request,
    *,
    journal: Journal,
    clock: Clock | None = None,
    progress: Report | None = None,
) -> dict[str, Any]:
    """Keep the damaged set and make every candidate that can be made; the database itself is only read.

    Returns the report, which is also in `report.json` and, for people, `report.txt`. When the directory holds the
    finished report of the same bytes, that one comes back, and nothing is done.

    Raises:
        PreconditionError: the directory is in use, there is no room, or a process holds the database.
        TimeoutExceeded: the time is over; what has been made so far stays where it is.
    """
    clock = clock or Clock()
    database, real = _database(config, request)
    earlier = _earlier(request, real)
    if earlier is not None:
        return {**earlier, "changed": False, "result": "unchanged"}
    _require_new(request.to)
    deadline = Deadline(clock, request.timeout_s, str(real))
    with journal.operation("salvage", database=database.name, path=str(real), to=str(request.to)) as operation:
        with private_umask():
            job = _Job(config, request, database, real, clock, deadline, progress)
            report = job.run()
        operation.evidence = {
            "id": report["id"],
            "set": report["set"],
            "generation": report["generation"],
            "candidates": {name: _brief(facts) for name, facts in report["candidates"].items()},
            "recommended": report["recommended"],
        }
        operation.result = "ok" if report["recommended"] else "degraded"
    return {**report, "changed": True}


def table(report: Mapping[str, Any]) -> str:
    """A report as text for people: what each candidate has of each table, and what is wrong with it."""
    lines = [
        f"database {report['database']} ({report['path']}), salvage {report['id']}",
        f"kept as it is in {report['directory']}/{KEPT}: {len(report['set'])} files with digests",
        f"compared with: {_compared(report['generation'])}",
        "",
    ]
    rows: list[Sequence[str]] = [("table", "candidate", *(name.replace("_", " ") for name in _COUNTS))]
    tables = sorted({name for facts in report["candidates"].values() for name in facts["tables"]})
    for name in tables:
        for candidate, facts in report["candidates"].items():
            if name in facts["tables"]:
                counts = facts["tables"][name]
                rows.append((name, candidate, *("?" if counts[key] is None else str(counts[key]) for key in _COUNTS)))
    lines += [*table_lines(rows), ""]
    for candidate, facts in report["candidates"].items():
        state = "usable" if facts["usable"] else "NOT usable" if facts["available"] else "not there"
        more = facts["reason"] or "; ".join(facts["problems"][:3])
        lines.append(f"{candidate:10} {state}{f': {more}' if more else ''}")
    lines += [f"note: {text}" for text in report["notes"]]
    lines.append(f"recommended: {report['recommended'] or 'none; ask for another generation'}")
    return "\n".join(lines)


def _compared(facts: Mapping[str, Any]) -> str:
    if not facts.get("id"):
        return f"nothing ({facts['reason']})"
    proven = f"proven {facts['proven_at']} by {', '.join(facts['proven_by'])}" if facts["proven_by"] else "NEVER proven"
    how = f"; only its row counts: {facts['reason']}" if facts["reason"] else ""
    return f"generation {facts['id']}, {proven}{how}"


def _brief(facts: Mapping[str, Any]) -> dict[str, Any]:
    totals = {key: sum(counts[key] or 0 for counts in facts["tables"].values()) for key in _COUNTS}
    return {"usable": facts["usable"], "reason": facts["reason"], "sha256": facts["sha256"], **totals}


@dataclass(frozen=True)
class _Choice:
    """The generation to compare with; `reason` says why its content cannot be had, when it cannot."""

    opened: Sequence[Opened]
    record: DatabaseRecord | None
    bytes: int
    facts: dict[str, Any]
    reason: str

    @classmethod
    def of(cls, config: Config, request: Request, clock: Clock, *, decrypts: bool) -> _Choice:
        """Choose and verify it. What cannot be reached is no reason to give up, except when it was asked for by id."""
        by_id = request.generation not in (NEWEST_PROVEN, NONE)
        if request.generation == NONE:
            return cls.none("none was asked for")
        if config.backup is None:
            return cls.none("this host has no backups")
        try:
            return cls._chosen(config, request, clock, decrypts)
        except (StoreError, IntegrityError, InputError) as error:
            if by_id:
                raise
            return cls.none(str(error))

    @classmethod
    def none(cls, reason: str) -> _Choice:
        """No generation."""
        facts = {"id": "", "proven_by": [], "proven_at": "", "reason": reason, "target": ""}
        return cls([], None, 0, facts, reason)

    @classmethod
    def _chosen(cls, config: Config, request: Request, clock: Clock, decrypts: bool) -> _Choice:
        backup = config.require_backup()
        seen = overview.overview(config, target=request.target, verify_proofs=True, clock=clock)
        identity = request.generation
        if identity == NEWEST_PROVEN:
            identity = seen["newest_proven"] or seen["newest"]
        found = next((item for item in seen["generations"] if item["id"] == identity), None)
        if found is None or not found["targets"]:
            raise InputError(f"there is no generation {identity}".rstrip(), subject=request.target or config.service)
        opened: list[Opened] = []
        errors: list[EngineError] = []
        for name in found["targets"]:
            try:
                opened.append(
                    open_generation(
                        open_store(backup.target(name), clock),
                        config.service,
                        config.host,
                        identity,
                        allowed_signers_file=backup.allowed_signers_file,
                        signer=backup.signer,
                    )
                )
            except EngineError as error:
                errors.append(error)
        if not opened:
            raise errors[0]
        manifest = opened[0].manifest
        record = next((item for item in manifest.databases if item.name == request.database), None)
        if record is None:
            raise InputError(f"generation {identity} has no database {request.database}", subject=identity)
        reason = "" if decrypts else "no identity was given to decrypt it with"
        facts = {
            "id": identity,
            "proven_by": found["proven_by"],
            "proven_at": found["proven_at"],
            "reason": reason,
            "target": opened[0].store.name,
        }
        return cls(opened, record, manifest.part(f"db-{request.database}").bytes, facts, reason)

    @property
    def rows(self) -> dict[str, int] | None:
        """Rows per table by the manifest."""
        return {name: facts.rows for name, facts in self.record.tables.items()} if self.record else None


class _Job:
    """One salvage in progress."""

    def __init__(
        self,
        config: Config,
        request: Request,
        database: Database,
        real: Path,
        clock: Clock,
        deadline: Deadline,
        progress: Report | None,
    ) -> None:
        self.config = config
        self.request = request
        self.database = database
        self.real = real
        self.clock = clock
        self.deadline = deadline
        self.progress = progress
        self.to = request.to
        self.notes: list[str] = []
        self.candidates: dict[str, dict[str, Any]] = {}

    def run(self) -> dict[str, Any]:
        """All steps."""
        decrypts = self.request.identity_file is not None
        chosen = _Choice.of(self.config, self.request, self.clock, decrypts=decrypts)
        size = sum(path.stat().st_size for path in kept_set.members(self.real))
        started = self.clock.now()
        identity = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        _require_room(self.to, _needed(size, chosen))
        self.to.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._note("keep")
        kept_dir = self.to / KEPT
        kept_dir.mkdir(mode=0o700)
        kept = kept_set.keep(self.real, kept_dir, deadline=self.deadline)
        fsync_dir(self.to)
        if kept.unreadable_bytes:
            self.notes.append(f"the disk refuses to read {kept.unreadable_bytes} bytes; zeros stand for them")
        work = self.to / "work"
        work.mkdir(mode=0o700)
        chosen, generation = self._generation(chosen, work)
        settled = self._settled(kept, work)
        self._note("rows")
        salvaged = self._rows(settled, generation)
        doubts = Doubts.of(salvaged) if salvaged else Doubts()
        damages = salvaged.tables if salvaged else {}
        self._add_generation(chosen, generation)
        self._recover(settled)
        for name in (RECOVER, ROWS):
            self._compare(name, generation, chosen.rows, damages, doubts if name == ROWS else Doubts())
        self._merge(generation, chosen, salvaged, doubts)
        shutil.rmtree(work)
        report: dict[str, Any] = {
            "format": FORMAT,
            "id": identity,
            "made_at": utc_text(started),
            "database": self.database.name,
            "path": str(self.real),
            "directory": str(self.to.resolve()),
            "set": kept.files,
            "unreadable_bytes": kept.unreadable_bytes,
            "untouched": self._untouched(kept),
            "generation": chosen.facts,
            "candidates": {name: self.candidates[name] for name in CANDIDATES},
            "damage": {name: vars(damage) for name, damage in damages.items() if damage.any},
            "notes": self.notes,
            "recommended": _recommended(self.candidates, salvaged),
            "duration_s": round((self.clock.now() - started).total_seconds(), 3),
        }
        return self._finish(report)

    def _finish(self, report: dict[str, Any]) -> dict[str, Any]:
        """The report goes last: a directory without it is an unfinished salvage."""
        atomic_write(self.to / TABLE, (table(report) + "\n").encode())
        index = index_file(self.config, report["id"])
        index.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(index, report)
        write_json(self.to / REPORT, {**report, "result": "salvaged"})
        return {**report, "result": "salvaged"}

    def _generation(self, chosen: _Choice, work: Path) -> tuple[_Choice, Path | None]:
        if chosen.reason or self.request.identity_file is None:
            return chosen, None
        failures: list[str] = []
        for number, opened in enumerate(chosen.opened):
            self._note("fetch")
            try:
                fetched = fetch_opened(
                    opened,
                    work / f"fetched-{number}",
                    identity_file=self.request.identity_file,
                    parts=[f"db-{self.database.name}"],
                    timeout_s=max(self.deadline.left_s, 1),
                    clock=self.clock,
                    progress=self.progress,
                )
            except TimeoutExceeded:
                raise
            except EngineError as error:
                failures.append(str(error))
                continue
            replace(fetched.database(self.database.name), self.to / "generation.db")
            return chosen, self.to / "generation.db"
        reason = "; ".join(failures)
        self.notes.append(f"the generation cannot be had: {reason}")
        return _Choice(chosen.opened, chosen.record, 0, {**chosen.facts, "reason": reason}, reason), None

    def _settled(self, kept: kept_set.Kept, work: Path) -> Path:
        self._note("settle")
        settled = work / "settled.db"
        for path in kept_set.members(kept.database):
            shutil.copyfile(path, settled.with_name(settled.name + path.name[len(kept.database.name) :]))
        self.notes += kept_set.settle(settled)
        return settled

    def _rows(self, settled: Path, generation: Path | None) -> salvage.Salvaged | None:
        try:
            salvaged = salvage.rows(settled, self.to / "rows.db", generation=generation, deadline=self.deadline)
        except TimeoutExceeded:
            raise
        except EngineError as error:
            self.candidates[ROWS] = _absent(str(error))
            return None
        self.notes += salvaged.notes
        if salvaged.nowhere:
            self.notes.append(f"{salvaged.nowhere} pages with rows belong to no table that is known; they are left out")
        self._examine(ROWS, salvaged.path)
        return salvaged

    def _recover(self, settled: Path) -> None:
        self._note("recover")
        place = self.to / "recover.db"
        try:
            lost = recover.recover(settled, place, deadline=self.deadline)
        except TimeoutExceeded:
            raise
        except EngineError as error:
            place.unlink(missing_ok=True)
            self.candidates[RECOVER] = _absent(error.message)
            return
        self._examine(RECOVER, place)
        if lost:
            self.candidates[RECOVER]["problems"].append(
                f"{lost} rows belong to no table; they are in {recover.LOST_AND_FOUND}"
            )

    def _add_generation(self, chosen: _Choice, generation: Path | None) -> None:
        if generation is None:
            self.candidates[GENERATION] = _absent(chosen.reason)
            return
        self._examine(GENERATION, generation)
        rows = chosen.rows or {}
        self.candidates[GENERATION]["tables"] = {
            name: TableRows(count, count, count, 0, 0, 0).as_dict()
            for name, count in sorted(rows.items())
            if name != "sqlite_sequence"
        }

    def _merge(
        self, generation: Path | None, chosen: _Choice, salvaged: salvage.Salvaged | None, doubts: Doubts
    ) -> None:
        if generation is None or salvaged is None:
            self.candidates[MERGED] = _absent(chosen.reason or self.candidates[ROWS]["reason"])
            return
        self._note("merge")
        place = self.to / "merged.db"
        try:
            added, left_out = salvage_compare.merge(
                generation, salvaged.path, place, doubts=doubts, deadline=self.deadline
            )
        except TimeoutExceeded:
            raise
        except EngineError as error:
            self.candidates[MERGED] = _absent(error.message)
            return
        self._examine(MERGED, place)
        self.candidates[MERGED].update(added=added, left_out=left_out)
        self.notes += [
            f"{count} newer rows of table {table} are not in {MERGED}: a row that they refer to is lost or doubtful"
            for table, count in sorted(left_out.items())
        ]
        self._compare(MERGED, generation, chosen.rows, {}, Doubts())

    def _compare(
        self,
        name: str,
        generation: Path | None,
        expected: Mapping[str, int] | None,
        damages: Mapping[str, salvage.TableDamage],
        doubts: Doubts,
    ) -> None:
        facts = self.candidates[name]
        if not facts["available"]:
            return
        place = Path(facts["file"])
        try:
            if generation is not None:
                found = salvage_compare.against_generation(place, generation, doubts=doubts, deadline=self.deadline)
            else:
                found = salvage_compare.by_counts(place, expected, damages, doubts=doubts)
        except (IntegrityError, InputError) as error:
            facts.update(usable=False, problems=[*facts["problems"], f"cannot be compared: {error.message}"])
            return
        facts["tables"] = {table_name: counts.as_dict() for table_name, counts in found.items()}

    def _examine(self, name: str, place: Path) -> None:
        """The same checks as for a backup that is restored."""
        problems: list[str] = []
        try:
            checks.examine(
                place,
                subject=str(place),
                required=self.database.tables,
                invariants=[(item.name, item.sql, item.expect) for item in self.database.invariants],
                timeout_s=max(self.deadline.left_s, 1),
                workers=_CHECKERS,
                deadline=self.deadline,
            )
        except TimeoutExceeded:
            raise
        except EngineError as error:
            problems = [str(item) for item in error.facts.get("findings", [error.message])]
        self.candidates[name] = {
            "available": True,
            "usable": not problems,
            "reason": "",
            "problems": problems,
            "file": str(place.resolve()),
            "bytes": place.stat().st_size,
            "sha256": sha256_file(place),
            "tables": {},
        }

    def _untouched(self, kept: kept_set.Kept) -> bool:
        """Whether the original is what was kept, by inode, size and time of change; a service may have written."""
        for fact in kept.files:
            try:
                status = os.stat(fact["path"])
            except FileNotFoundError:
                return False
            now = (status.st_ino, status.st_size, status.st_mtime_ns)
            if now != (fact["inode"], fact["bytes"], fact["mtime_ns"]):
                self.notes.append(f"{fact['path']} was written after it was copied, not by this: a process uses it")
                return False
        return True

    def _note(self, step: str) -> None:
        self.deadline.check(step)
        if self.progress is not None:
            self.progress(step, {"database": self.database.name})


def index_file(config: Config, identity: str) -> Path:
    """Where this host remembers a salvage, so that one of its candidates can be put into place."""
    return config.state_dir / "salvages" / f"{identity}.json"


def unchanged_since(report: Mapping[str, Any], real: Path) -> bool:
    """Whether the database still is what was kept, byte for byte."""
    kept = {Path(fact["path"]).name: fact["sha256"] for fact in report["set"] if not fact["path"].endswith("-shm")}
    return kept == kept_set.fingerprint(real)


def _recommended(candidates: Mapping[str, Mapping[str, Any]], salvaged: salvage.Salvaged | None) -> str:
    """What a person would choose: everything, else what is proven with what is newer, else what there is."""
    usable = {name: facts["tables"] for name, facts in candidates.items() if facts["usable"]}
    if ROWS in usable and salvaged is not None and salvaged.complete:
        return ROWS
    for name in (MERGED, GENERATION):
        if name in usable:
            return name

    def kept_rows(name: str) -> int:
        return sum(counts["rows"] - counts["doubtful"] for counts in usable[name].values())

    return max((name for name in (ROWS, RECOVER) if name in usable), key=kept_rows, default="")


def _absent(reason: str) -> dict[str, Any]:
    nothing = {"file": "", "bytes": 0, "sha256": "", "tables": {}}
    return {"available": False, "usable": False, "reason": reason, "problems": [], **nothing}


def _database(config: Config, request: Request) -> tuple[Database, Path]:
    database = config.database(request.database)
    return database, kept_set.require_set(database.path)


def _earlier(request: Request, real: Path) -> dict[str, Any] | None:
    """The finished report in the directory, when it is about these bytes and this generation."""
    if not (request.to / REPORT).is_file():
        return None
    report: dict[str, Any] = read_json(request.to / REPORT)
    if report.get("database") != request.database or report.get("format") != FORMAT:
        return None
    asked = request.generation in (NEWEST_PROVEN, report["generation"]["id"] or NONE)
    return report if asked and unchanged_since(report, real) else None


def _require_new(to: Path) -> None:
    if to.is_symlink() or (to.exists() and (not to.is_dir() or any(to.iterdir()))):
        raise PreconditionError(
            "is not a new or empty directory: it may hold an earlier salvage, or one that was interrupted",
            subject=str(to),
            untouched="everything",
            remedy="name another directory; remove this one when nothing in it is needed",
        )


def _needed(size: int, chosen: _Choice) -> int:
    """Five times the set: as kept, settled, on the workbench, and two candidates; twice the generation, with merged."""
    return 5 * size + 2 * chosen.bytes + _SPARE_BYTES


def _require_room(to: Path, needed: int) -> None:
    free = free_bytes(_existing(to))
    if free < needed:
        raise PreconditionError(
            f"{needed} bytes are needed, {free} are free",
            subject=str(to),
            untouched="everything",
            remedy="name a directory on a file system with more room",
            needed_bytes=needed,
            free_bytes=free,
        )


def _existing(path: Path) -> Path:
    while not path.is_dir():
        path = path.parent
    return path
