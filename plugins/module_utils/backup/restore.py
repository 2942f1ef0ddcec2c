# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore a generation: a journalled plan that can be killed anywhere and is then finished or undone.

`run` does what a `Request` asks for; `resume` finishes or undoes what a dead process has left; `preview` says
what `run` would do. Files are put into place by rename only, and what was there is moved, never deleted.

A disk that fills up meanwhile does not keep a restore from being ended or undone: room for the plan and the journal is
put by before it begins.

A database's path holds at every moment the complete old set, nothing, or the new file alone, and while it may hold
nothing the units are held: they cannot be started by anyone, not even by a reboot.

A lost host is rebuilt with several requests on one generation, fetched once:

1. `Request("latest", include=(all), stage_only=True)` with the identity: everything is fetched, verified and checked;
   the result names the generation id, the release and the deployed revision;
2. `Request(id, include=("system",), start_units=False, keep_stage=True)`: code and unit files, from the stage;
3. the caller builds what the code depends on;
4. `Request(id, include=("databases", "config", "cache", "logs"))`: data into place, start, health; the stage goes.

Requests 2 and 4 name the id and need neither identity nor network.
When the newest generation is a daily one, which holds no code, an older full one is staged beside it by another
request 1, and request 2 names that. Request 4 removes both.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from ..core.clock import Clock, utc_text
from ..core.config import Config
from ..core.errors import EngineError, IntegrityError, LeaseError, PreconditionError
from ..core.fsio import atomic_write, fsync_dir, read_json, sha256_file, write_json
from ..core.journal import Journal
from ..core.lease import Lease
from ..core.reserve import Reserve, is_full
from ..sqlite import connect, fingerprint
from . import holders, restore_plan, restore_point, restore_stage
from .restore_plan import (
    APPLYING,
    BACK,
    DONE,
    DROPPED,
    FORWARD,
    ROLLING_BACK,
    STAGING,
    UNDONE,
    Item,
    Old,
    Plan,
    Request,
)
from .restore_stage import Source

Progress = Callable[[str, str], None]

_LATCH_MODE = 0o640
_RESERVE_BYTES = 1 << 20


class ServiceControl(Protocol):
    """What a restore needs from whatever runs the service."""

    def active(self) -> list[str]:
        """The units that run now."""

    def hold(self) -> None:
        """Make sure that no unit can be started by anyone until `release`, across reboots."""

    def stop(self) -> None:
        """Stop all units; return when each is proven to be inactive."""

    def release(self) -> None:
        """Lift `hold`; starts nothing."""

    def start(self, units: Sequence[str]) -> None:
        """Start these units."""

    def wait_healthy(self) -> dict[str, Any]:
        """Wait for the contract's health conditions, return the evidence. Raises an EngineError naming what fails."""


class RestoreFailed(EngineError):
    """A restore failed after the service was touched.

    `facts` hold `cause` (the error that ended it), `rolled_back`, `restore_point`, `plan`, `where` (path and present
    place of every old file) and, when the way back failed too, `rollback_error`.
    """


def run(
    config: Config,
    request: Request,
    *,
    source: Source | None,
    service: ServiceControl,
    clock: Clock,
    journal: Journal,
    when_alone: Callable[[], None] = lambda: None,
    after_stage: Callable[[], None] = lambda: None,
    progress: Progress = lambda event, name: None,
) -> dict[str, Any]:
    """Restore what `request` asks for; an unfinished restore of an earlier process is finished or undone first.

    Args:
        source: where to fetch from; None when the generation is in this host's stage already.
        when_alone: called as soon as it is certain that no other restore runs on this host.
        after_stage: called once, when the source is not needed any more, also on failure: the identity goes here.
        progress: told (`begin`, step), (`acted`, step), (`recorded`, step) and (`moved`, path).

    Returns the result: `changed`, `result` (`restored`, `unchanged` or `staged`), `generation_id`, `digests_equal`,
    `tables`, `phases`, `restore_point` and more; `resumed` tells about an earlier restore. Raises RestoreFailed when
    the service was touched and is as it was, or could not be brought back; any other EngineError means that
    the service was not touched.
    """
    request.check()
    source_gone = _once(after_stage)
    try:
        _require_way_to_halt(config, request)
        _make_directories(config)
        with Lease(config.run_dir / "restore.lease", purpose="restore", clock=clock):
            when_alone()
            earlier = _finish_earlier(config, service, clock, journal, progress, request)
            if earlier is not None and earlier["result"] == "restored" and earlier["request"] == request.as_dict():
                return {**earlier, "resumed": {key: earlier[key] for key in ("id", "result", "request")}}
            plan = Plan(id=_new_id(clock), started_at=utc_text(clock.now()), request=request)
            executor = _Executor(config, plan, service, clock, journal, progress)
            executor.stage(source)
            source_gone()
            result = executor.carry_on()
            return result if earlier is None else {**result, "resumed": earlier}
    finally:
        source_gone()


def resume(
    config: Config,
    *,
    service: ServiceControl,
    clock: Clock,
    journal: Journal,
    when_alone: Callable[[], None] = lambda: None,
    progress: Progress = lambda event, name: None,
) -> dict[str, Any] | None:
    """Finish or undo the restore that a dead process has left; None when there is none.

    Needs neither identity nor network. Returns the result of the restore, or with `result` `dropped` one that had
    not touched the service. Raises RestoreFailed as `run` does.
    """
    _make_directories(config)
    with Lease(config.run_dir / "restore.lease", purpose="restore", clock=clock):
        when_alone()
        return _finish_earlier(config, service, clock, journal, progress, None)


def preview(config: Config, request: Request, *, source: Source | None) -> dict[str, Any]:
    """What `run` would do, from the signed manifest and this host's files; changes and decrypts nothing."""
    request.check()
    _require_way_to_halt(config, request)
    contents = restore_stage.staged_contents(config, request, source)
    wanted, left = restore_plan.select(config, contents, request)
    plan = Plan(id="preview", started_at="", request=request)
    items = restore_stage.build_items(config, plan, wanted)
    earlier = restore_plan.load(config)
    return {
        "changed": request.stage_only or any(item.action != "keep" for item in items),
        "result": "planned",
        "generation_id": contents.generation_id,
        "kind": contents.kind,
        "release": contents.release,
        "revision": contents.revision,
        "started_at": contents.started_at,
        "steps": list(FORWARD[:1] if request.stage_only else FORWARD),
        "files": [
            {"part": item.part, "path": item.path, "action": item.action, "bytes": item.bytes} for item in items
        ],
        "config_diff": restore_stage.config_changes(items),
        "left_out": left,
        "unfinished": earlier.id if earlier is not None and earlier.open else "",
    }


def _require_way_to_halt(config: Config, request: Request) -> None:
    starts = "databases" in request.include and request.start_units and not request.stage_only
    if starts and request.halt_trading and config.halt_file is None:
        raise PreconditionError(
            "trading is to stay halted, and the contract names no halt file: it would begin on old positions",
            subject=config.service,
            untouched="everything",
            remedy="leave the units stopped, or say that trading may begin (halt_trading: false, or --no-halt)",
        )


def status(config: Config) -> dict[str, Any] | None:
    """Where the newest restore of this host stands; None when there has never been one."""
    plan = restore_plan.load(config)
    if plan is None:
        return None
    return {
        "id": plan.id,
        "state": plan.state,
        "open": plan.open,
        "generation_id": plan.contents.generation_id if plan.contents else plan.request.generation,
        "started_at": plan.started_at,
        "done": plan.done,
        "phases": plan.phases,
        "restore_point": plan.restore_point,
        "failure": plan.failure,
    }


def _once(function: Callable[[], None]) -> Callable[[], None]:
    called = False

    def call() -> None:
        nonlocal called
        if not called:
            called = True
            function()

    return call


def _make_directories(config: Config) -> None:
    config.state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    config.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)


def _new_id(clock: Clock) -> str:
    return f"{clock.now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _finish_earlier(
    config: Config,
    service: ServiceControl,
    clock: Clock,
    journal: Journal,
    progress: Progress,
    request: Request | None,
) -> dict[str, Any] | None:
    plan = restore_plan.load(config)
    if plan is None or not plan.open:
        return None
    executor = _Executor(config, plan, service, clock, journal, progress)
    if plan.state == STAGING:
        return executor.drop()
    executor.put_by()
    try:
        return executor.carry_on()
    except RestoreFailed as error:
        # Told to whoever asks for the same again, or only for the end of this one; else the new request goes on.
        if request is None or plan.request.as_dict() == request.as_dict() or not error.facts["rolled_back"]:
            error.facts["resumed"] = plan.id
            raise
        return {"result": "undone", "request": plan.request.as_dict(), "id": plan.id, "error": error.as_dict()}


class _Executor:
    """Carries one plan through its steps. Each step observes, acts where needed, and is recorded when done."""

    def __init__(
        self,
        config: Config,
        plan: Plan,
        service: ServiceControl,
        clock: Clock,
        journal: Journal,
        progress: Progress,
    ) -> None:
        self.config = config
        self.plan = plan
        self.service = service
        self.clock = clock
        self.journal = journal
        self.progress = progress
        self.reserve = Reserve(config.state_dir / ".restore-reserve")

    # -- before the service is touched -------------------------------------------------------------------------

    def stage(self, source: Source | None) -> None:
        """Step 1. On failure the service has not been touched and the plan is dropped."""
        self.reserve.take(_RESERVE_BYTES)
        self._save()
        self._tell("start", request=self.plan.request.as_dict())
        try:
            self._step("stage", lambda: self._stage(source))
            # From now on the plan grows little; each save needs room for a second one.
            self.reserve.take(_RESERVE_BYTES + 2 * restore_plan.plan_file(self.config).stat().st_size)
        except BaseException as error:
            # Also on the way out of a stopped process: decrypted data does not wait for a resume that may never come.
            # What was fetched and verified serves the next request when only consent was lacking.
            self._end_untouched(error, keep_stage=isinstance(error, ConsentNeeded))
            raise

    def _stage(self, source: Source | None) -> None:
        plan = self.plan
        files = restore_stage.acquire(self.config, plan, source)
        if plan.request.stage_only:
            return
        plan.items = restore_stage.build_items(self.config, plan, files)
        changes = restore_stage.config_changes(plan.items)
        plan.evidence["config_diff"] = changes
        if changes and not plan.request.config_consent:
            raise ConsentNeeded(
                "differs from the generation and is not replaced without consent",
                subject=str(changes[0]["path"]),
                untouched="the service",
                remedy="set config_consent to replace it, or leave config out of include",
                config_diff=changes,
            )
        restore_stage.prepare(self.config, plan)
        plan.restore_point = str(self.config.state_dir / "restore-points" / plan.id)

    def drop(self) -> dict[str, Any]:
        """End a plan whose process died before the service was touched."""
        self._end_untouched(PreconditionError("the process ended before the service was touched"), keep_stage=False)
        return {"result": "dropped", "changed": False, "id": self.plan.id, "request": self.plan.request.as_dict()}

    def _end_untouched(self, error: BaseException, *, keep_stage: bool) -> None:
        self.plan.state = DROPPED
        self.plan.failure = _described(error)
        restore_stage.discard(self.config, self.plan, keep_stage=keep_stage)
        self._save()
        self.reserve.release()
        self._tell("end", "failed", error=self.plan.failure)

    def put_by(self) -> None:
        """Room for the rest of a plan whose process died, where the disk has it."""
        with contextlib.suppress(PreconditionError):
            self.reserve.take(_RESERVE_BYTES)

    # -- with the service --------------------------------------------------------------------------------------

    def carry_on(self) -> dict[str, Any]:
        """All that follows `stage`, from wherever the plan stands."""
        plan = self.plan
        if plan.state == STAGING:
            if plan.request.stage_only:
                return self._end("staged", changed=True)
            if not plan.changing and not self._must_start():
                return self._end("unchanged", changed=False)
        lease = Lease(self.config.lease_file, purpose="restore", clock=self.clock)
        # A backup reads the database without the host's lease; it must neither be cut off nor start now.
        no_backup = Lease(self.config.run_dir / "backup.lock", purpose="restore", clock=self.clock)
        try:
            with lease, no_backup:
                if plan.state == ROLLING_BACK:
                    self._go_back()
                return self._go_forward()
        except LeaseError as error:
            if plan.state == STAGING:
                self._end_untouched(error, keep_stage=True)
            raise

    def _must_start(self) -> bool:
        return self.plan.request.start_units and not set(self.config.units) <= set(self._active())

    def _active(self) -> list[str]:
        """The units that run; where nobody can tell that, the service is not touched."""
        try:
            return self.service.active()
        except Exception as error:
            self._end_untouched(error, keep_stage=False)
            raise

    def _go_forward(self) -> dict[str, Any]:
        plan = self.plan
        if plan.state == STAGING:
            plan.units = self._active()
            plan.state = APPLYING
            self._save()
        try:
            if "stop" in plan.done and "start" not in plan.done:
                self._still_stopped()
            for name in FORWARD[1:-1]:
                self._step(name, getattr(self, f"_{name}"))
        except Exception as error:  # noqa: BLE001 - whatever it is, the service has to come back
            plan.failure = _described(error)
            plan.state = ROLLING_BACK
            self._save()
            self._go_back()
        self._step("finish", self._finish)
        return self._end("restored", changed=True)

    def _go_back(self) -> NoReturn:
        """Bring back what was there. Always raises RestoreFailed, with both facts."""
        plan = self.plan
        try:
            if "stop_again" in plan.done and "start_old" not in plan.done:
                self._still_stopped()
            for name in BACK:
                self._step(name, getattr(self, f"_{name}"))
        except Exception as error:
            plan.evidence["rollback_error"] = _described(error)
            self._save()
            failure = self._failed(rolled_back=False)
            self._tell("end", "failed", error=failure.as_dict())
            raise failure from error
        plan.state = UNDONE
        self._save()
        self.reserve.release()
        failure = self._failed(rolled_back=True)
        self._tell("end", "failed", error=failure.as_dict())
        raise failure

    def _failed(self, *, rolled_back: bool) -> RestoreFailed:
        plan = self.plan
        cause = plan.failure or {}
        where = [
            {"path": old.path, "now_at": old.keep if os.path.lexists(old.keep) else old.path}
            for item in plan.items
            for old in item.old
        ]
        healthy = plan.evidence.get("old_healthy")
        if rolled_back:
            message = f"the restore failed ({cause.get('message')}) and every file is as it was before"
            message += "" if healthy is not False else ", but the service is not healthy with its old data either"
            remedy = str(cause.get("remedy") or "see cause; the generation can be restored again")
        else:
            back = plan.evidence["rollback_error"]
            message = f"the restore failed ({cause.get('message')}) and so did the way back ({back['message']})"
            moved = [f"{entry['path']} is at {entry['now_at']}" for entry in where if entry["now_at"] != entry["path"]]
            remedy = "the units are held; " + ("; ".join(moved) or "no old file has been moved") + (
                "; remove the cause and resume the restore"
            )
        return RestoreFailed(
            message,
            subject=str(cause.get("subject") or plan.require_contents().generation_id),
            untouched="the old files" if rolled_back else "",
            remedy=remedy,
            cause=cause,
            rolled_back=rolled_back,
            old_healthy=healthy,
            generation_id=plan.require_contents().generation_id,
            restore_point=plan.restore_point,
            where=where,
            plan=str(restore_plan.plan_file(self.config)),
            phases=plan.phases,
            **({} if rolled_back else {"rollback_error": plan.evidence["rollback_error"]}),
        )

    def _step(self, name: str, act: Callable[[], None]) -> None:
        if name in self.plan.done:
            return
        self.progress("begin", name)
        started = self.clock.monotonic()
        try:
            act()
        except OSError as error:
            # What is fetched would take the reserve as well; all other steps need next to nothing.
            if name == "stage" or not is_full(error) or not self.reserve.release():
                raise
            act()
        self.progress("acted", name)
        seconds = round(self.clock.monotonic() - started, 3)
        self.plan.done.append(name)
        self.plan.phases.append({"name": name, "seconds": seconds})
        self._save()
        self._tell("step", step=name, duration_s=seconds)
        self.progress("recorded", name)

    def _save(self) -> None:
        self._with_reserve(lambda: restore_plan.save(self.config, self.plan))

    def _tell(self, event: str, result: str = "", **evidence: Any) -> None:
        self._with_reserve(
            lambda: self.journal.append("restore", event, result, operation_id=self.plan.id, **evidence)
        )

    def _with_reserve(self, write: Callable[[], object]) -> None:
        """Write what must be written, on a full disk into the room that was put by."""
        try:
            write()
        except (OSError, PreconditionError) as error:
            if not is_full(error) or not self.reserve.release():
                raise
            write()

    # -- forward -----------------------------------------------------------------------------------------------

    def _still_stopped(self) -> None:
        """After a resumption: nothing may have come to life in between."""
        self.service.hold()
        self.service.stop()
        holders.require_closed(self._database_files())

    def _database_files(self) -> list[Path]:
        paths = []
        for item in self.plan.items:
            if item.database:
                paths += [Path(path) for path in item.companions()]
                paths += [Path(old.keep) for old in item.old]
        return paths

    def _stop(self) -> None:
        self.service.hold()
        self.service.stop()
        holders.require_closed(self._database_files())
        for item in self.plan.items:
            if item.action == "keep" and not restore_stage.same(item):
                item.action = "replace"  # the service wrote until it was stopped
            item.old = [] if item.action == "keep" else self._present(item)
        link = self._release_link()
        self.plan.old_link = os.readlink(link) if link is not None and link.is_symlink() else ""

    def _present(self, item: Item) -> list[Old]:
        found = []
        number = self.plan.items.index(item)
        for path in item.companions():
            if os.path.lexists(path):
                status = os.lstat(path)
                keep = Path(item.keep_dir) / f"{number}-{Path(path).name}"
                found.append(Old(path, str(keep), status.st_ino, status.st_size, status.st_mtime_ns))
        return found

    def _set_aside(self) -> None:
        """Move the old files into the restore point, each database before its companions.

        A database without its `-wal` looks whole and lacks its last transactions; a `-wal` without its
        database is nothing. So the database goes first, and comes back last.
        """
        plan = self.plan
        point = Path(plan.restore_point)
        for directory in sorted({str(point), *(item.keep_dir for item in plan.changing)}):
            _make_private(Path(directory))
        index = {
            "id": plan.id,
            "made_at": utc_text(self.clock.now()),
            "replaced_by": plan.require_contents().generation_id,
            "directories": sorted({str(point), *(item.keep_dir for item in plan.changing)}),
            "files": [{"path": old.path, "kept": old.keep} for item in plan.changing for old in item.old],
        }
        write_json(point / restore_point.INDEX, index)
        for item in plan.changing:
            for old in item.old:
                self._move(old.path, old.keep, old)

    def _place(self) -> None:
        for item in self.plan.changing:
            if not os.path.lexists(item.staged):
                continue  # renamed by an earlier process; `prove` looks at it
            if any(os.path.lexists(path) for path in item.companions()):
                raise IntegrityError("something has made this file while the units were stopped", subject=item.place)
            restore_stage.make_parents(Path(item.place), item.uid, item.gid)
            self._rename(item.staged, item.place)
        link = self._release_link()
        if link is not None:
            _point(link, os.path.relpath(self.plan.require_contents().release, link.parent))

    def _release_link(self) -> Path | None:
        release = self.plan.require_contents().release
        if not self.plan.request.switch_release or self.config.system is None:
            return None
        return self.config.system.release_link if restore_plan.release_allowed(self.config, release) else None

    def _prove(self) -> None:
        tables: dict[str, Any] = {}
        content: list[bool] = []
        for item in self.plan.items:
            _prove_file(item)
            if item.action == "keep" or not item.database:
                continue
            tables[item.name] = self._prove_database(item)
            if tables[item.name]["content_equal"] is not None:
                content.append(tables[item.name]["content_equal"])
        self.plan.evidence["tables"] = tables
        self.plan.evidence["digests_equal"] = True  # `prove` has raised otherwise
        self.plan.evidence["content_digests_equal"] = all(content) if content else None

    def _prove_database(self, item: Item) -> dict[str, Any]:
        """First open: the same tables, rows, content and invariants as when the snapshot was taken."""
        facts = self.plan.require_contents().databases[item.name]
        place = Path(item.place)
        # Proven closed and complete, so it is opened as immutable: nothing is created beside it.
        with connect.reading(place, immutable=True) as connection:
            rows = fingerprint.count_rows(connection)
            schema = fingerprint.schema_digest(connection)
        expected = facts.rows.items()
        wrong = [f"table {name} has {rows.get(name)} rows, not {n}" for name, n in expected if rows.get(name) != n]
        if schema != facts.schema_digest:
            wrong.append("the schema differs")
        for name, sql, expect in facts.invariants:
            value = fingerprint.query_value(place, sql, immutable=True)
            if value != expect:
                wrong.append(f"invariant {name} is {value!r}, not {expect!r}")
        equal = None
        if facts.content:
            digests = fingerprint.content_digests(place, list(facts.content), immutable=True)
            equal = all(digests[table]["sha256"] == digest for table, digest in facts.content.items())
            if not equal:
                wrong.append("the content digests differ")
        if wrong:
            raise IntegrityError(
                f"is not what the manifest describes: {'; '.join(wrong)}", subject=item.place, mistakes=wrong
            )
        invariants = [name for name, _sql, _expect in facts.invariants]
        return {"rows": rows, "schema_equal": True, "content_equal": equal, "invariants": invariants}

    def _latch(self) -> None:
        """Old positions must not be traded on: the latch is there before the first process starts."""
        halt = self.config.halt_file
        if halt is None or not self.plan.request.halt_trading or not any(i.database for i in self.plan.changing):
            return
        self.plan.latch = str(halt)
        if os.path.lexists(halt) and not self.plan.latch_made:
            return
        self.plan.latch_made = True
        self._save()
        users, groups = restore_stage.accounts([self.config.user], [self.config.group])
        generation = self.plan.require_contents().generation_id
        text = f"restored from generation {generation}; check positions before trading\n"
        owner = (users[self.config.user], groups[self.config.group])
        atomic_write(halt, text.encode(), _LATCH_MODE, owner if os.geteuid() == 0 else None)

    def _start(self) -> None:
        self.service.release()
        if self.plan.request.start_units:
            self.service.start(self.config.units)

    def _healthy(self) -> None:
        if not self.plan.request.start_units:
            self.plan.evidence["health"] = None
            return
        self.service.start(self.config.units)  # a reboot may have come between
        self.plan.evidence["health"] = self.service.wait_healthy()

    def _finish(self) -> None:
        """The restore has succeeded: what is left is tidying, and cannot turn it into a failure."""
        try:
            self._prune()
            keep = self.plan.request.keep_stage
            restore_stage.discard(self.config, self.plan, keep_stage=keep)
            if not keep:
                restore_stage.remove_stages(self.config)
        except OSError as error:
            self.plan.evidence["warnings"] = [f"tidying up after the restore failed: {error}"]

    def _prune(self) -> None:
        points = self.config.state_dir / "restore-points"
        made = sorted(points.iterdir(), key=lambda point: (point.name == self.plan.id, point.stat().st_mtime_ns))
        gone = set(restore_plan.prunable([point.name for point in made], self.plan.request.restore_points))
        request = self.plan.request
        if request.discard_replaced:
            names = (self.plan.id, request.generation[len(restore_point.PREFIX) :])
            gone |= set(names if restore_point.is_point(request.generation) else names[:1])
        for name in sorted(gone & {point.name for point in made}):
            index = points / name / restore_point.INDEX
            others = read_json(index)["directories"] if index.exists() else []
            for directory in others:
                if Path(directory).name == f".fluxmaint-restore-point-{name}":
                    shutil.rmtree(directory, ignore_errors=True)
            shutil.rmtree(points / name)
        if request.discard_replaced:
            self.plan.restore_point = ""

    # -- back --------------------------------------------------------------------------------------------------

    def _stop_again(self) -> None:
        if "stop" not in self.plan.done:
            return  # nothing has been moved; a unit that cannot be stopped must not keep the rest down
        self.service.hold()
        self.service.stop()
        holders.require_closed(self._database_files())

    def _withdraw(self) -> None:
        """Move whatever is new at a place into the restore point's `rejected`; it may hold transactions."""
        for item in self.plan.changing:
            old = {entry.path: entry for entry in item.old}
            for path in item.companions():
                entry = old.get(path)
                still_old = entry is not None and not os.path.lexists(entry.keep)
                never_placed = path == item.place and entry is None and os.path.lexists(item.staged)
                if still_old or never_placed or not os.path.lexists(path) or "stop" not in self.plan.done:
                    continue
                rejected = Path(item.keep_dir) / "rejected"
                _make_private(rejected)
                self._rename(path, str(rejected / f"{self.plan.items.index(item)}-{Path(path).name}"))
        link = self._release_link()
        if link is not None and "stop" in self.plan.done:
            _point(link, self.plan.old_link)

    def _put_back(self) -> None:
        for item in self.plan.changing:
            for old in reversed(item.old):
                self._move(old.keep, old.path, old)

    def _prove_old(self) -> None:
        for item in self.plan.changing:
            for old in item.old:
                status = os.lstat(old.path)
                if (status.st_ino, status.st_size, status.st_mtime_ns) != (old.inode, old.bytes, old.mtime_ns):
                    raise IntegrityError("is not the file that was there before", subject=old.path)

    def _start_old(self) -> None:
        if self.plan.latch_made:
            Path(self.plan.latch).unlink(missing_ok=True)
        self.service.release()
        self.service.start(self.plan.units)

    def _healthy_old(self) -> None:
        if not self.plan.units:
            self.plan.evidence["old_healthy"] = None
            return
        self.service.start(self.plan.units)
        try:
            self.plan.evidence["old_health"] = self.service.wait_healthy()
            self.plan.evidence["old_healthy"] = True
        except EngineError as error:
            self.plan.evidence["old_healthy"] = False
            self.plan.evidence["old_health"] = error.as_dict()

    def _finish_back(self) -> None:
        for directory in reversed(self.plan.made_dirs):
            if os.path.isdir(directory) and not os.listdir(directory):
                os.rmdir(directory)
        restore_stage.discard(self.config, self.plan, keep_stage=False)
        if not any(item.old for item in self.plan.items):
            _remove_empty_point(Path(self.plan.restore_point))

    # -- moving ------------------------------------------------------------------------------------------------

    def _move(self, source: str, destination: str, old: Old) -> None:
        """Rename an old file unless an earlier process has done so."""
        if os.path.lexists(destination):
            if os.lstat(destination).st_ino != old.inode:
                raise IntegrityError("another file is where an old one belongs", subject=destination)
            if os.path.lexists(source):
                raise IntegrityError("something has made this file while the units were stopped", subject=source)
            return
        if not os.path.lexists(source):
            raise IntegrityError("has vanished while the units were stopped", subject=source)
        self._rename(source, destination)

    def _rename(self, source: str, destination: str) -> None:
        os.rename(source, destination)
        fsync_dir(Path(destination).parent)
        fsync_dir(Path(source).parent)
        self.progress("moved", destination)

    # -- the end -----------------------------------------------------------------------------------------------

    def _end(self, result: str, *, changed: bool) -> dict[str, Any]:
        plan = self.plan
        plan.state = DONE
        contents = plan.require_contents()
        if result == "unchanged":
            restore_stage.discard(self.config, plan, keep_stage=plan.request.keep_stage)
        outcome: dict[str, Any] = {
            "id": plan.id,
            "result": result,
            "changed": changed,
            "request": plan.request.as_dict(),
            "generation_id": contents.generation_id,
            "kind": contents.kind,
            "host": contents.host,
            "started_at": contents.started_at,
            "release": contents.release,
            "revision": contents.revision,
            "phases": plan.phases,
            "left_out": plan.evidence.get("left_out", []),
            "fetched_bytes": plan.evidence.get("fetched_bytes", 0),
            "warnings": [*plan.evidence.get("target_problems", []), *plan.evidence.get("warnings", [])],
        }
        if result == "restored":
            outcome |= {
                "files": [{"part": i.part, "path": i.path, "action": i.action, "bytes": i.bytes} for i in plan.items],
                "restore_point": plan.restore_point,
                "previous": {"units": plan.units, "files": [old.path for i in plan.items for old in i.old]},
                "units": list(self.config.units) if plan.request.start_units else [],
                "digests_equal": plan.evidence["digests_equal"],
                "content_digests_equal": plan.evidence["content_digests_equal"],
                "tables": plan.evidence["tables"],
                "health": plan.evidence.get("health"),
                "config_diff": plan.evidence.get("config_diff", []),
                "halt_file": plan.latch,
                "resume_trading": f"remove {plan.latch} after checking the open positions" if plan.latch else "",
            }
        plan.evidence["result"] = outcome
        self._save()
        self.reserve.release()
        self._tell("end", "ok", **_brief(outcome))
        return outcome


class ConsentNeeded(PreconditionError):
    """A configuration file would be replaced by one with other content, and nobody has agreed to that."""


def _brief(outcome: dict[str, Any]) -> dict[str, Any]:
    keys = ("generation_id", "changed", "restore_point", "digests_equal", "halt_file", "phases")
    return {"outcome": outcome["result"], **{key: outcome[key] for key in keys if key in outcome}}


def _described(error: BaseException) -> dict[str, Any]:
    if isinstance(error, EngineError):
        return error.as_dict()
    return {"error": type(error).__name__, "message": f"{type(error).__name__}: {error}", "subject": "", "remedy": ""}


def _prove_file(item: Item) -> None:
    """The file in place has the content, the owner and the mode of the manifest."""
    place = Path(item.place)
    if item.link:
        if not place.is_symlink() or os.readlink(place) != item.link:
            raise IntegrityError(f"is not a link to {item.link}", subject=item.place)
        return
    if sha256_file(place) != item.sha256:
        raise IntegrityError("has not the digest of the manifest", subject=item.place)
    status = place.stat()
    if (status.st_uid, status.st_gid, status.st_mode & 0o7777) != (item.uid, item.gid, item.mode):
        raise IntegrityError(
            f"does not belong to {item.owner}:{item.group} with mode {item.mode:04o}", subject=item.place
        )


def _make_private(directory: Path) -> None:
    missing = [directory]
    while not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    for path in reversed(missing):
        if not path.is_dir():
            path.mkdir(mode=0o700)
            fsync_dir(path.parent)


def _point(link: Path, target: str) -> None:
    """Let a symbolic link point somewhere else, atomically; an empty target removes it."""
    if not target:
        link.unlink(missing_ok=True)
    elif not link.is_symlink() or os.readlink(link) != target:
        temporary = link.with_name(f".{link.name}.new")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        os.replace(temporary, link)
    fsync_dir(link.parent)


def _remove_empty_point(point: Path) -> None:
    if point.is_dir() and all(entry.name == restore_point.INDEX for entry in point.iterdir()):
        shutil.rmtree(point)
