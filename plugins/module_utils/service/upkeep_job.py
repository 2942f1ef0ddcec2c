# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upkeep of the service's databases: plan it, do it with the host's lease, bring the service back whatever happens.

What is done is in `sqlite.upkeep`. Here is who may be stopped for it, and what a killed process leaves: `upkeep.json`
in the state directory says where a vacuum stands, and `resume` finishes or undoes it, at the next run or the next boot.
Everything that lies beside a database meanwhile is in one private directory there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..backup import holders, restore
from ..backup.restore import ServiceControl
from ..core.clock import Clock, utc_text
from ..core.config import Config, Database, Upkeep
from ..core.errors import ConfigError, EngineError, IntegrityError, PreconditionError, as_engine_error
from ..core.fsio import fsync_dir, private_umask, read_json, replace, write_json
from ..core.journal import Journal, Operation
from ..core.lease import Lease, held_by
from ..core.progress import Report
from ..core.reserve import Reserve
from ..sqlite import hot_backup, size, upkeep
from ..sqlite.connect import SIDE_FILES, Deadline, reading, require_database
from ..sqlite.upkeep import ANALYZE, STOPPED, VACUUM, WAITING, Action, Content, Left
from .size_history import UPKEEP, History, note

DIRECTORY = ".fluxmaint-upkeep"
_PURPOSE = "upkeep of databases"
_RESERVE_BYTES = 1 << 20
# Of the service's busy timeout, how long to wait for the one lock under which a database is written anew.
_LOCK_SHARE = 0.25
_KEPT = "before-upkeep"  # the copy of a database that upkeep has left damaged
# Behind a database's name, so that nothing of `a.db.1` is taken for something of `a.db`.
_OWN = re.compile(r"\.(?:checked|after|new|before|preimage|before-upkeep)(?:-wal|-shm|-journal|\.[^.]*)*$")
_BEGUN, _PLACING, _PLACED, _NOT_PROVEN = "begun", "placing", "placed", "not_proven"


@dataclass
class State:
    """Where the vacuum of a database stands, as `upkeep.json` has it.

    Attributes:
        way: `waiting` or `stopped`.
        step: `begun`; `placing` from when the new file is proven; `placed` from when it has its name; `not_proven` when
            the pre-image has to come back.
        units: those that ran before, and run again afterwards.
        old, new: inodes of the old and the new file; 0 while there is none.
        content: what both must hold.
        written: when the database, or the new file, was written last before this was saved, in nanoseconds.
    """

    id: str
    database: str
    path: str
    way: str
    step: str = _BEGUN
    units: list[str] = field(default_factory=list)
    old: int = 0
    new: int = 0
    content: dict[str, Any] = field(default_factory=dict)
    written: int = 0


class _NotSound(IntegrityError):
    """A database that was sound before upkeep and is not any more; its copy from before is kept."""


def require_upkeep(config: Config) -> Upkeep:
    """The settings of upkeep. Raises ConfigError when this host has none."""
    if config.upkeep is None:
        raise ConfigError("the configuration has no section upkeep", remedy="apply the role database to this host")
    return config.upkeep


def state_file(config: Config) -> Path:
    """Where an unfinished vacuum is noted."""
    return config.state_dir / "upkeep.json"


def unfinished(config: Config) -> dict[str, Any] | None:
    """The vacuum that a dead process has left, or that runs now; None when there is none."""
    return read_json(state_file(config)) if state_file(config).exists() else None


def left(config: Config) -> dict[str, Any]:
    """What upkeep has left on this host, for people: changes nothing.

    Returns:
        `running`: whether upkeep runs now, to which everything else belongs. `unfinished`: None, or of the vacuum that
        was interrupted `database`, `path`, `way`, `step`, `since` and the `units` that ran before; `error` alone when
        the record of it cannot be read. `files`: what lies beside the databases, each with `path`, `bytes` and whether
        it is `kept`: the database from before upkeep that left it damaged.
    """
    for _look in range(2):  # upkeep may have ended, or begun, between two looks
        owner = held_by(config.lease_file)
        found = {"running": (owner or {}).get("purpose") == _PURPOSE, **_left_on_disk(config)}
        if found["running"] or not (found["unfinished"] or found["files"]):
            break
    return found


def _left_on_disk(config: Config) -> dict[str, Any]:
    try:
        noted = unfinished(config)
        if noted is not None:
            noted = {
                **{key: noted[key] for key in ("database", "path", "way", "step", "units")},
                "since": noted["saved_at"],
            }
    except (EngineError, KeyError, TypeError) as error:
        noted = {"error": str(error) if isinstance(error, EngineError) else f"{state_file(config)} is not ours"}
    databases = [Path(os.path.realpath(database.path)) for database in config.databases]
    kept = {_beside(real, _KEPT) for real in databases}
    files = []
    for directory in sorted({real.parent / DIRECTORY for real in databases}):
        for path in sorted(_private_files(directory)):
            with contextlib.suppress(FileNotFoundError):
                files.append({"path": str(path), "bytes": path.lstat().st_size, "kept": path in kept})
    return {"unfinished": noted, "files": files}


def _private_files(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir()) if directory.is_dir() and not directory.is_symlink() else []
    except PermissionError:  # then there is something, and only root may know what
        return [directory]


def plan(
    config: Config,
    *,
    service: ServiceControl,
    journal: Journal,
    databases: Sequence[str] = (),
    ignore_window: bool = False,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """What `run` would do, with its predicted cost; changes nothing.

    Returns `changed`, and for each of `databases` (`name`, `path`): `actions`, `left` with what is due and would not be
    done, and what that was decided from. A database that cannot be looked at has an `error`.
    """
    planner = _Planner(config, service, History(journal), clock or Clock(), ignore_window)
    found = []
    for database in _chosen(config, databases):
        try:
            found.append(planner.plan(database).as_dict())
        except EngineError as error:
            found.append({"name": database.name, "path": str(database.path), "error": error.as_dict()})
    return {"changed": any(item.get("actions") for item in found), "result": "planned", "databases": found}


def run(
    config: Config,
    *,
    service: ServiceControl,
    journal: Journal,
    databases: Sequence[str] = (),
    ignore_window: bool = False,
    clock: Clock | None = None,
    progress: Report | None = None,
) -> dict[str, Any]:
    """Do what is due, one database after the other; what a killed run has left is finished or undone first.

    Returns as `plan`, with what was `done`; `result` is `ok`, or `degraded` when something is due that a person has to
    decide or to make room for.

    Raises:
        LeaseError: a backup, a restore or other upkeep is running.
        IntegrityError: a database is damaged, or a vacuum's result was not what was there before and has been undone.
        EngineError: the first database that failed; the others have been done, see `databases` of its facts.
    """
    clock = clock or Clock()
    chosen = _chosen(config, databases)
    with (
        _alone(config, clock),
        journal.operation(UPKEEP, names=[item.name for item in chosen]) as operation,
        private_umask(),
    ):
        worker = _Worker(config, service, History(journal), clock, ignore_window, progress, operation)
        resumed = worker.finish_earlier()
        with worker.room():
            found, errors, notes = [], [], {}
            for database in chosen:
                result, error = worker.keep(database)
                found.append(result)
                notes[database.name] = worker.note
                if error is not None:
                    errors.append(error)
        operation.evidence = {
            "databases": notes,
            "done": {item["name"]: item["done"] for item in found if item["done"]},
        }
        if errors:
            errors[0].facts["databases"] = found
            raise errors[0]
        refused = any(left["state"] == "refused" for item in found for left in item["left"])
        operation.result = "degraded" if refused else "ok"
        return {
            "changed": any(item["done"] for item in found) or resumed is not None,
            "result": operation.result,
            "databases": found,
            "resumed": resumed,
        }


def resume(
    config: Config,
    *,
    service: ServiceControl,
    journal: Journal,
    clock: Clock | None = None,
    progress: Report | None = None,
) -> dict[str, Any] | None:
    """Finish or undo the vacuum that a dead process has left; None when there is none."""
    clock = clock or Clock()
    with _alone(config, clock):
        if unfinished(config) is None:
            return None
        with journal.operation(UPKEEP, resumed=True) as operation, private_umask():
            worker = _Worker(config, service, History(journal), clock, False, progress, operation)
            return worker.finish_earlier()


@contextlib.contextmanager
def _alone(config: Config, clock: Clock) -> Iterator[None]:
    """No restore, and no backup that would read a database while it is written anew, or keep it from being so."""
    config.state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    lease = Lease(config.lease_file, purpose=_PURPOSE, clock=clock)
    with lease, Lease(config.run_dir / "backup.lock", purpose=_PURPOSE, clock=clock):
        unfinished_restore = restore.status(config)
        if unfinished_restore is not None and unfinished_restore["open"]:
            raise PreconditionError(
                f"restore {unfinished_restore['id']} is unfinished",
                subject=config.service,
                untouched="every database",
                remedy="end it first: fluxmaint restore --resume",
            )
        yield


def _chosen(config: Config, names: Sequence[str]) -> list[Database]:
    require_upkeep(config)
    return [config.database(name) for name in names] if names else list(config.databases)


# ----------------------------------------------------------------------------------------------- planning


@dataclass(frozen=True)
class _Planned:
    database: Database
    sizes: size.Sizes
    growth: float | None
    actions: list[Action]
    left: list[Left]

    def as_dict(self) -> dict[str, Any]:
        facts = {
            key: getattr(self.sizes, key)
            for key in ("bytes", "used_bytes", "free_page_bytes", "free_ratio", "fragmentation", "fill", "auto_vacuum")
        }
        return {
            "name": self.database.name,
            "path": str(self.database.path),
            "actions": [action.as_dict() for action in self.actions],
            "left": [left.as_dict() for left in self.left],
            "facts": {
                **facts,
                "journal_mode": self.sizes.journal_mode,
                "unknown": self.sizes.no_objects,
                "growth_bytes_per_day": self.growth,
                "disk_free_bytes": self.sizes.disk_free_bytes,
                "busy_timeout_s": self.database.busy_timeout_s,
            },
        }


class _Planner:
    def __init__(
        self, config: Config, service: ServiceControl, history: History, clock: Clock, ignore_window: bool
    ) -> None:
        self.config = config
        self.limits = require_upkeep(config)
        self.service = service
        self.history = history
        self.clock = clock
        self._ignore_window = ignore_window

    def plan(self, database: Database) -> _Planned:
        real, _header = require_database(database.path)
        upkeep.require_own_journal(real)
        sizes = size.measure(database.path, copy_dir=self.config.state_dir, clock=self.clock)
        if sizes.objects is not None and not sizes.rows():
            raise PreconditionError(
                "there is no table in it", subject=str(database.path), remedy="check the path of the contract"
            )
        now = self.clock.now()
        growth = size.growth_per_day([*self.history.samples(database.name), (now, sizes.used_bytes)], now)
        memory = self.history.memory(database.name)
        due, left = upkeep.decide(sizes, upkeep.statistics(database.path), self.limits, memory, growth)
        window = self.limits.window
        chosen = [
            upkeep.choose(
                item,
                sizes,
                self.limits,
                memory,
                busy_timeout_s=database.busy_timeout_s,
                window_s=self.limits.timeout_s
                if self._ignore_window
                else upkeep.window_left_s(window, now.astimezone()),
                can_stop=self.limits.stop_units or not self.service.active(),
                names=real.stat().st_nlink,
            )
            for item in due
        ]
        actions = [item for item in chosen if isinstance(item, Action)]
        # Statistics last: what comes before may change what they are about.
        actions.sort(key=lambda action: action.kind == ANALYZE)
        return _Planned(database, sizes, growth, actions, left + [item for item in chosen if isinstance(item, Left)])


# -------------------------------------------------------------------------------------------------- doing


class _Worker(_Planner):
    """Does what is due, with the lease held."""

    def __init__(
        self,
        config: Config,
        service: ServiceControl,
        history: History,
        clock: Clock,
        ignore_window: bool,
        progress: Report | None,
        operation: Operation,
    ) -> None:
        super().__init__(config, service, history, clock, ignore_window)
        self._progress = progress
        self._operation = operation
        self._name = ""
        self.note: dict[str, Any] = {}

    @contextlib.contextmanager
    def room(self) -> Iterator[None]:
        """Room for the state and the journal, for when the disk is full."""
        reserve = Reserve(self.config.state_dir / ".upkeep-reserve")
        reserve.take(_RESERVE_BYTES)
        try:
            yield
        finally:
            reserve.release()

    def tell(self, step: str) -> None:
        if self._progress is not None:
            self._progress(step, {"database": self._name})

    def keep(self, database: Database) -> tuple[dict[str, Any], EngineError | None]:
        """The upkeep of one database. Returns what was done, and the error that ended it."""
        self._name, self.note = database.name, {}
        done: list[dict[str, Any]] = []
        result: dict[str, Any] = {"name": database.name, "path": str(database.path), "actions": [], "left": []}
        try:
            self.tell("measure")
            _sweep(require_database(database.path)[0])
            planned = self.plan(database)
            result.update(planned.as_dict())
            self.note = {**note(planned.sizes)}
            if planned.actions:
                self._act(planned, done)
                after = size.measure(database.path, copy_dir=self.config.state_dir, clock=self.clock)
                result["after"] = {**note(after), "free_ratio": after.free_ratio, "fragmentation": after.fragmentation}
                self._remember(planned, after)
        except Exception as caught:  # noqa: BLE001 - whatever it is, the other databases get theirs
            error = as_engine_error(caught)
            result["error"] = error.as_dict()
            return {**result, "done": done}, error
        return {**result, "done": done}, None

    def _remember(self, planned: _Planned, after: size.Sizes) -> None:
        self.note.update(note(after))
        for action in planned.actions:
            if action.kind == ANALYZE:
                rows = after.rows()
                self.note["analyzed_rows"] = {name: rows[name] for name in action.tables if name in rows}
            if action.kind == VACUUM:
                self.note.update({"fragmentation": after.fragmentation, "fill": after.fill})

    def _act(self, planned: _Planned, done: list[dict[str, Any]]) -> None:
        real, _header = require_database(planned.database.path)
        with _private(real):
            # From a copy, so that nobody waits for the check. A damaged database is not touched.
            self.tell("check")
            checked = self._copy(real, "checked")
            _sweep(real, checked, sound=True)
            self.tell("checked")
            try:
                for action in planned.actions:
                    self.tell(action.kind)
                    started = self.clock.monotonic()
                    facts = self._do(planned, action, real)
                    took = round(self.clock.monotonic() - started, 3)
                    done.append({"kind": action.kind, "way": action.way, "why": action.why, "took_s": took, **facts})
                    self._operation.step(action.kind, database=self._name, **done[-1])
                if any(action.kind != VACUUM for action in planned.actions):  # a vacuum has its own proof
                    self._check_again(real, checked)
            except _NotSound:
                raise
            except BaseException:
                upkeep.remove(checked)
                raise
            upkeep.remove(checked)
            self.tell("kept")

    def _check_again(self, real: Path, before: Path) -> None:
        self.tell("check again")
        try:
            upkeep.remove(self._copy(real, "after"))
        except IntegrityError as error:
            kept = _beside(real, _KEPT)
            replace(before, kept)
            raise _NotSound(
                f"was sound before upkeep and is not any more: {error.message}",
                subject=str(real),
                remedy=f"stop the service; the state from before is in {kept}, without what has been written since",
            ) from None

    def _copy(self, real: Path, name: str) -> Path:
        """A snapshot that SQLite's full check finds nothing wrong with. Raises IntegrityError otherwise."""
        copy, timeout_s = _beside(real, name), self.limits.timeout_s
        hot_backup.backup(
            real, copy, timeout_s=timeout_s, overwrite=True, verify="full", digest=False, rows=False, clock=self.clock
        )
        return copy

    def _do(self, planned: _Planned, action: Action, real: Path) -> dict[str, Any]:
        database = planned.database
        busy = database.busy_timeout_s
        if action.kind == ANALYZE:
            return upkeep.analyze(real, action.tables, self.limits, busy_timeout_s=busy, clock=self.clock)
        deadline = Deadline(self.clock, self.limits.timeout_s, str(real))
        if action.kind == VACUUM:
            facts = self._stopped(database, real, deadline) if action.way == STOPPED else self._waiting(database, real)
            self.note["seconds_per_byte"] = {action.way: facts["held_s"] / max(planned.sizes.used_bytes, 1)}
            return facts
        return upkeep.give_back(real, self.limits, deadline, busy_timeout_s=busy)

    # -- the whole database anew ---------------------------------------------------------------------------

    def _begin(self, database: Database, real: Path, way: str, units: list[str]) -> State:
        identity = f"{self.clock.now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        state = State(identity, database.name, str(real), way, units=units, old=real.stat().st_ino)
        self._save(state)
        self.tell("begun")
        return state

    def _save(self, state: State) -> None:
        write_json(state_file(self.config), {**dataclasses.asdict(state), "saved_at": utc_text(self.clock.now())})

    def _waiting(self, database: Database, real: Path) -> dict[str, Any]:
        state = self._begin(database, real, WAITING, self.service.active())
        preimage = _beside(real, "preimage")

        def not_proven() -> None:
            # The lock is held: the service may wait or fail, but nothing that it is promised gets lost.
            state.step, state.written = _NOT_PROVEN, real.stat().st_mtime_ns
            self._save(state)
            self.tell("not proven")
            self.service.hold()
            self.service.stop()
            holders.require_closed(_companions(real))

        try:
            facts = upkeep.vacuum_waiting(
                real,
                preimage,
                limit_s=self.limits.wait_fraction * database.busy_timeout_s,
                busy_timeout_s=_LOCK_SHARE * database.busy_timeout_s,
                not_proven=not_proven,
                tell=self.tell,
                clock=self.clock,
            )
        except BaseException:
            self._finish(state)
            raise
        self._end(real)
        return facts

    def _stopped(self, database: Database, real: Path, deadline: Deadline) -> dict[str, Any]:
        units = self.service.active()
        if units:
            self.tell("healthy")
            self.service.wait_healthy()  # a service that is not well is left to people
        state = self._begin(database, real, STOPPED, units)
        new, before = _beside(real, "new"), _beside(real, "before")
        started = self.clock.monotonic()
        try:
            self.service.hold()
            self.tell("held")
            self.service.stop()
            holders.require_closed(_companions(real))
            self.tell("stopped")
            upkeep.settle(real)
            self.tell("settled")
            content = upkeep.rebuild(real, new, deadline)
            self.tell("rebuilt")
            placed = new.stat()
            state.step, state.new, state.written = _PLACING, placed.st_ino, placed.st_mtime_ns
            state.content = content.as_dict()
            self._save(state)
            self.tell("placing")
            upkeep.put_in_place(real, new, before, self.tell)
            self.tell("placed")
            upkeep.prove(real, content, deadline)
            state.step = _PLACED
            self._save(state)
            self.tell("recorded")
            self.service.release()
            self.service.start(units)
            held = round(self.clock.monotonic() - started, 3)
            self.tell("started")
            health = self._healthy(state, real, content) if units else None
        except BaseException as error:
            self._way_back(state, error)
            raise
        before.unlink(missing_ok=True)
        self._end(real)
        self.tell("ended")
        return {"held_s": held, "units": units, "health": health}

    def _healthy(self, state: State, real: Path, content: Content) -> dict[str, Any]:
        """Wait for health. A service that does not become healthy gets the old file back, unless it has written."""
        try:
            return self.service.wait_healthy()
        except EngineError as error:
            self.service.hold()
            self.service.stop()
            holders.require_closed(_companions(real))
            upkeep.settle(real)
            with reading(real, immutable=True) as con:
                unwritten = not content.differences(upkeep.content(con))
            if unwritten:
                upkeep.put_back(real, _beside(real, "before"))
            kept = "the old file is in place again" if unwritten else "it has written, so the new file stays"
            raise PreconditionError(
                f"was not healthy after its database had been written anew ({error}); {kept}",
                subject=state.database,
                remedy="look at the log of the service",
            ) from None

    def _way_back(self, state: State, error: BaseException) -> None:
        try:
            self._finish(state)
        except EngineError as another:
            raise EngineError(
                f"upkeep failed ({error}), and so did the way back ({another})",
                subject=state.path,
                remedy="remove the cause, then: fluxmaint maintain --resume",
            ) from None

    # -- what is left --------------------------------------------------------------------------------------

    def finish_earlier(self) -> dict[str, Any] | None:
        """Finish or undo what a dead process has left; None when it has left nothing."""
        found = unfinished(self.config)
        if found is None:
            return None
        state = _parsed(found, state_file(self.config))
        self._name = state.database
        self.tell("finish what was interrupted")
        result = self._finish(state)
        self._operation.step("resumed", database=state.database, path=state.path, way=state.way, outcome=result)
        if state.units:
            self.service.wait_healthy()
        return {"database": state.database, "path": state.path, "way": state.way, "result": result}

    def _finish(self, state: State) -> str:
        """From wherever a vacuum stands to its end: `done`, or `undone` with the old file in place. Units run again."""
        real = Path(state.path)
        result = self._finish_waiting(state, real) if state.way == WAITING else self._finish_stopped(state, real)
        self.service.release()
        self.service.start(state.units)
        for name in ("before", "preimage", "new", "checked", "after"):
            upkeep.remove(_beside(real, name))
        self._end(real)
        return result

    def _finish_stopped(self, state: State, real: Path) -> str:
        before = _beside(real, "before")
        if state.step != _PLACED and state.new and real.stat().st_ino == state.new:
            # Killed, or not proven, between the new name and the record of it.
            self.service.hold()
            self.service.stop()
            holders.require_closed(_companions(real))
            if real.stat().st_mtime_ns != state.written or _has_content(Path(f"{real}-wal")):
                # A person, or a restore that was undone, has let the service in: what it wrote is only here.
                upkeep.settle(real)
                upkeep.require_sound(real, Deadline(self.clock, self.limits.timeout_s, str(real)))
                return "done"
            try:
                upkeep.settle(real)
                upkeep.prove(real, Content(**state.content), Deadline(self.clock, self.limits.timeout_s, str(real)))
            except EngineError:
                upkeep.put_back(real, before)
        return "undone" if real.stat().st_ino == state.old else "done"

    def _finish_waiting(self, state: State, real: Path) -> str:
        preimage = _beside(real, "preimage")
        if not preimage.exists():
            return "undone"
        unproven = IntegrityError(
            "was being written anew when the process ended, and cannot be proven",
            subject=state.path,
            untouched=f"{preimage}, which holds the state from before",
            remedy="stop the service and compare both; remove the one that is not needed",
        )
        if state.step == _NOT_PROVEN:
            if real.stat().st_mtime_ns != state.written:
                raise unproven
            self.service.hold()
            self.service.stop()
            holders.require_closed(_companions(real))
            upkeep.put_back(real, preimage)
            return "undone"
        try:
            upkeep.remove(self._copy(real, "after"))
        except IntegrityError:
            raise unproven from None
        return "done"

    def _end(self, real: Path) -> None:
        path = state_file(self.config)
        path.unlink(missing_ok=True)
        fsync_dir(path.parent)
        _remove_directory(real)


def _parsed(found: Any, path: Path) -> State:
    try:
        state = State(**{name: value for name, value in found.items() if name != "saved_at"})
        whole = state.way in (WAITING, STOPPED) and (not state.content or Content(**state.content))
        there = Path(state.path).is_file()
    except (AttributeError, TypeError):
        whole = there = False
    if not whole or not there:
        raise PreconditionError(
            "names a database that is not there" if whole else "is not what this program has written",
            subject=str(path),
            untouched="every database, and what lies beside it",
            remedy=f"see what is in {DIRECTORY} beside the database, start the units, then move this file away",
        )
    return state


def _beside(real: Path, name: str) -> Path:
    """A file in the private directory beside a database."""
    return real.parent / DIRECTORY / f"{real.name}.{name}"


def _companions(real: Path) -> list[Path]:
    return [Path(f"{real}{suffix}") for suffix in ("", *SIDE_FILES)]


def _has_content(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size > 0
    return False


@contextlib.contextmanager
def _private(real: Path) -> Iterator[None]:
    """The private directory beside a database, on the same file system; gone afterwards unless something is in it."""
    directory = real.parent / DIRECTORY
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise PreconditionError("is not ours", subject=str(directory), untouched="the database", remedy="remove it")
    except OSError as error:
        raise PreconditionError(
            f"nothing can be written beside the database: {error.strerror}",
            subject=str(real.parent),
            untouched="the database",
        ) from None
    try:
        yield
    finally:
        _remove_directory(real)


def _remove_directory(real: Path) -> None:
    with contextlib.suppress(OSError):
        (real.parent / DIRECTORY).rmdir()


def _sweep(real: Path, *keep: Path, sound: bool = False) -> None:
    """Remove what killed upkeep of a database has left beside it; to be called with the lease.

    Args:
        sound: the database has been checked, so nobody needs what was kept because it was not.
    """
    directory = real.parent / DIRECTORY
    for path in directory.iterdir() if directory.is_dir() and not directory.is_symlink() else ():
        own = _OWN.match(path.name.lstrip(".")[len(real.name.lstrip(".")) :]) and path.name.lstrip(".").startswith(
            real.name.lstrip(".")
        )
        if own and path not in keep and (sound or path != _beside(real, _KEPT)):
            path.unlink(missing_ok=True)
    if not keep:
        _remove_directory(real)
