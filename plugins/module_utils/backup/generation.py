# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a generation: snapshot, prove, encrypt, sign, store on every target, commit.

Everything is made ready in a private staging directory first. From then on a generation is immutable: a
target that is down is completed by a later run from what is staged. Killed at any point, a run leaves no
committed generation that is not complete.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import fnmatch
import hashlib
import json
import os
import platform
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..core.clock import Clock, utc_text
from ..core.config import Backup, Cache, Config, Database
from ..core.errors import (
    ConfigError,
    EngineError,
    InputError,
    IntegrityError,
    PreconditionError,
    StoreError,
    TimeoutExceeded,
)
from ..core.fsio import free_bytes, private_umask, replace, write_json
from ..core.journal import Journal, Operation
from ..core.lease import Lease
from ..core.priority import background
from ..core.progress import Report
from ..core.run import require_tool, run
from ..core.version import VERSION
from ..sqlite import archive as row_archive
from ..sqlite import archive_file, fingerprint, hot_backup
from ..sqlite.connect import SIDE_FILES, Deadline, require_database
from ..store.open import open_store
from . import archive, checks, crypto, instructions, layout, staging
from .catalog import GenerationInfo, list_generations
from .fetch import Fetched, fetch
from .manifest import (
    FORMAT,
    KINDS,
    CacheFile,
    DatabaseRecord,
    FileEntry,
    Instructions,
    InvariantResult,
    Manifest,
    Part,
    Release,
    Snapshot,
    Stored,
    Table,
)
from .overlaps import require_apart
from .recipients import fingerprint as key_fingerprint
from .upload import CacheShelves, Targets

__all__ = ["Fetched", "GenerationInfo", "create", "fetch", "list_generations", "plan"]

REACHABLE = "reachable"
_SPARE_BYTES = 64 << 20
_DAY_S = 86400
_TOOL_TIMEOUT_S = 30
_CATCH_UP_SHARE = 1 / 2  # of the time of a run, at most


def plan(config: Config, kind: str) -> dict[str, Any]:
    """What `create` would do, from looking only: parts with their sources, targets with their state.

    Raises the errors that `create` would raise before it starts.
    """
    backup = _preconditions(config, kind)
    parts = [{"name": f"db-{item.name}", "sources": [str(item.path)]} for item in config.databases]
    if config.config_files:
        parts.append({"name": "config", "sources": [str(path) for path in config.config_files]})
    if config.logs:
        parts.append({"name": "logs", "sources": [str(config.logs.directory)]})
    if kind == "full" and config.system:
        sources = [str(config.system.release_link), *(str(path) for path in config.system.paths)]
        parts.append({"name": "system", "sources": sources})
    files = [place.directory for place in (config.cache, config.archives) if place]
    if files:
        parts.append({"name": "cache", "sources": [str(directory) for directory in files]})
    targets = {}
    for target in backup.targets:
        try:
            open_store(target).check()
            targets[target.name] = REACHABLE
        except EngineError as error:
            targets[target.name] = str(error)
    waiting = [staged.id for staged in staging.ready(backup.staging_dir)]
    return {"kind": kind, "parts": parts, "targets": targets, "waiting": waiting}


def create(
    config: Config,
    kind: str,
    *,
    clock: Clock | None = None,
    journal: Journal,
    progress: Report | None = None,
    accept_drift: bool = False,
) -> dict[str, Any]:
    """Take one generation and store it on every target; complete what earlier runs could not store.

    Args:
        kind: `daily`, or `full` with the deployed code, unit files and package list.
        progress: called with the name and the facts of each step, as the journal gets them.
        accept_drift: a person has looked at the tables that lost rows; take them as they are now.

    Returns:
        The result, JSON-serialisable: `result` is `ok`, or `degraded` when a target failed or an optional part
        could not be taken (`problems` says which).

    Raises:
        LeaseError: another backup is running.
        IntegrityError: a snapshot is not sound, or lost more rows than `drift_limit` allows; nothing was stored.
        StoreError: no target took it; it stays staged for the next run.
    """
    clock = clock or Clock()
    lock = Lease(config.run_dir / "backup.lock", purpose=f"backup {kind}", clock=clock)
    with lock, journal.operation("backup", kind=kind) as operation, private_umask():
        backup = _preconditions(config, kind)
        result = _Run(config, backup, kind, clock, journal, operation, progress, accept_drift).go()
        operation.result = result["result"]
        operation.evidence = {key: result[key] for key in _JOURNALLED}
        return result


_JOURNALLED = ("id", "targets", "errors", "problems", "caught_up", "bytes", "stored_bytes", "newest")


@dataclasses.dataclass(frozen=True)
class _Proven:
    """What the manifest says about a sound snapshot."""

    tables: dict[str, Table]
    newest: Any
    invariants: list[InvariantResult]


class _Beside:
    """Work in a thread beside the block; leaving the block early cancels its deadline, and waits for it.

    Args:
        work: called with the deadline.
    """

    def __init__(self, work: Callable[[Deadline], _Proven], deadline: Deadline) -> None:
        self._work = work
        self._deadline = deadline
        self._future: concurrent.futures.Future[_Proven] = concurrent.futures.Future()
        # A daemon, because a signal may arrive while it is being started: then nobody waits for it.
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Beside:
        try:
            self._thread.start()
        except BaseException:
            self._deadline.cancel()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self._future.done():
            self._deadline.cancel()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._future.set_result(self._work(self._deadline))
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            self._future.set_exception(error)

    def watch(self, progress: Report | None) -> Report:
        """The same progress, which also ends the block with the work's error as soon as there is one."""

        def told(step: str, facts: dict[str, Any]) -> None:
            if self._future.done():
                self._future.result()
            if progress is not None:
                progress(step, facts)

        return told

    def result(self) -> _Proven:
        """What the work gave, when it is done; its error."""
        return self._future.result()


class _Run:
    """One run of `create`."""

    def __init__(
        self,
        config: Config,
        backup: Backup,
        kind: str,
        clock: Clock,
        journal: Journal,
        operation: Operation,
        progress: Report | None,
        accept_drift: bool,
    ) -> None:
        self.config = config
        self.backup = backup
        self.kind = kind
        self.clock = clock
        self.journal = journal
        self.operation = operation
        self.progress = progress
        self.accept_drift = accept_drift
        self.deadline = Deadline(clock, backup.timeout_s, "backup")
        self.problems: list[str] = []
        self.targets = Targets(config, clock, self.step, self.note)
        self.fingerprints: list[str] = []
        self.elsewhere = elsewhere(config)

    def step(self, name: str, **facts: Any) -> None:
        """Note a step, and stop here when the time is over."""
        self.note(name, **facts)
        self.deadline.check(name)

    @property
    def left_s(self) -> float:
        """Seconds left, above 0: between a step and this the time may have ended."""
        left_s = self.deadline.left_s
        if left_s <= 0:
            raise TimeoutExceeded(f"not finished within {self.deadline.timeout_s:g} s", subject=self.deadline.subject)
        return left_s

    def note(self, name: str, **facts: Any) -> None:
        """Note what has happened, whatever the time."""
        self.operation.step(name, **facts)
        if self.progress is not None:
            self.progress(name, facts)

    def go(self) -> dict[str, Any]:
        started = self.clock.now()
        begun = self.clock.monotonic()
        for damaged, why in staging.set_aside_damaged(self.backup.staging_dir).items():
            self.problems.append(f"generation {damaged} was damaged while it was staged and is set aside: {why}")
            self.step("set_aside", generation=damaged, why=why)
        for left in staging.clear_unfinished(self.backup.staging_dir):
            self.step("removed_unfinished", generation=left)
        for dropped in staging.bound(self.backup.staging_dir):
            self.problems.append(f"generation {dropped} is no longer staged and will not reach every target")
            self.step("dropped_staged", generation=dropped)
        self.targets.open()
        # After an outage this may take longer than there is time: the new generation must not wait for the old ones.
        share_s = max(round(self.deadline.left_s * _CATCH_UP_SHARE), 1)
        caught_up = self.targets.catch_up(Deadline(self.clock, share_s, "catching up"))
        self.problems += self.targets.late
        staged = staging.Staged.begin(self.backup.staging_dir, layout.new_id(started))
        self.step("begin", generation=staged.id)
        try:
            manifest = self._make(staged, utc_text(started))
        except BaseException:
            staged.remove()
            raise
        targets = self.targets.store(staged, manifest)
        if "stored" not in targets.values():
            raise StoreError(
                f"no target took generation {staged.id}: {'; '.join(self.targets.errors.values())}",
                subject=staged.id,
                untouched="what the targets hold; the generation stays staged and the next run completes it",
                targets=targets,
            )
        with self.targets.noting(f"generation {staged.id}"):
            write_json(_last_manifest(self.config), json.loads(manifest.to_bytes()))
        with self.targets.noting(f"generation {staged.id}"):
            if all(state == "stored" for state in targets.values()):
                staged.remove()
        self.problems += self.targets.unnoted
        degraded = bool(self.problems or self.targets.errors)
        return {
            "id": staged.id,
            "kind": self.kind,
            "service": manifest.service,
            "host": manifest.host,
            "result": "degraded" if degraded else "ok",
            "started_at": manifest.started_at,
            "finished_at": utc_text(self.clock.now()),
            "duration_s": round(self.clock.monotonic() - begun, 3),
            "bytes": sum(part.bytes for part in manifest.parts) + sum(item.file.bytes for item in manifest.cache),
            "stored_bytes": manifest.stored_bytes(),
            "newest": {item.name: item.newest for item in manifest.databases},
            "parts": [
                {"name": part.name, "object": part.object, "bytes": part.bytes, "stored_bytes": part.stored.bytes,
                 "sha256": part.sha256, "files": len(part.files)}
                for part in manifest.parts
            ],
            "databases": {
                item.name: {
                    "rows": {name: table.rows for name, table in item.tables.items()},
                    "newest": item.newest,
                    **dataclasses.asdict(item.snapshot),
                }
                for item in manifest.databases
            },
            "cache": {"files": len(manifest.cache), "new": len(staged.cache_objects())},
            "release": dataclasses.asdict(manifest.release) if manifest.release else None,
            "targets": targets,
            "errors": self.targets.errors,
            "problems": self.problems,
            "caught_up": caught_up,
        }

    # ---- making it ready

    def _make(self, staged: staging.Staged, started_at: str) -> Manifest:
        recipients = crypto.read_recipients(self.backup.recipients_file)
        self.fingerprints = [key_fingerprint(recipient) for recipient in recipients]
        # The list that was checked is the list that is used, whatever happens to the file meanwhile.
        staged.recipients_file.write_text("\n".join(recipients) + "\n", encoding="ascii")
        previous = self._previous()
        parts: list[Part] = []
        records: list[DatabaseRecord] = []
        for database in self.config.databases:
            part, record = self._database(staged, database, previous)
            parts.append(part)
            records.append(record)
        parts += self._archives(staged)
        cache = self._cache(staged)
        release = self._release()
        text = instructions.render(
            identity=staged.id,
            service=self.config.service,
            host=self.config.host,
            kind=self.kind,
            started_at=started_at,
            signer=self.backup.signer,
            parts=parts,
            cache=cache,
            release=release,
            units=self.config.units,
            halt_file=self.config.halt_file,
        )
        manifest = Manifest(
            format=FORMAT,
            id=staged.id,
            kind=self.kind,
            service=self.config.service,
            host=self.config.host,
            contract_sha256=_contract_digest(self.config),
            release=release,
            started_at=started_at,
            finished_at=utc_text(self.clock.now()),
            tools=_tools(),
            recipients=self.fingerprints,
            signer=self.backup.signer,
            parts=parts,
            databases=records,
            cache=cache,
            instructions=Instructions(layout.INSTRUCTIONS, len(text), hashlib.sha256(text).hexdigest()),
            problems=list(self.problems),
        )
        data = manifest.to_bytes()
        Manifest.from_bytes(data)  # what a reader would refuse is not written
        signature = crypto.sign(data, self.backup.signing_key_file, crypto.MANIFEST_NAMESPACE)
        staged.finish({layout.INSTRUCTIONS: text, layout.MANIFEST: data, layout.SIGNATURE: signature})
        self.step("ready", generation=staged.id)
        return manifest

    def _database(
        self, staged: staging.Staged, database: Database, previous: Manifest | None
    ) -> tuple[Part, DatabaseRecord]:
        snapshot_file = staged.work / f"{database.name}.sqlite"
        source, _header = require_database(database.path)
        status = source.stat()
        self.step("snapshot", database=database.name)
        # The digest is taken while the snapshot is encrypted, and its rows are counted by the check: one pass each.
        taken = hot_backup.transient(database.path, snapshot_file, timeout_s=self.left_s, clock=self.clock)
        if taken.lock_held_s > database.busy_timeout_s:
            self.problems.append(
                f"writers of {database.path} could not commit for {taken.lock_held_s:.3g} s, and the service waits for"
                f" {database.busy_timeout_s:g} s only: give the backup memory to keep two copies of the database in"
            )
        self.step("prove", database=database.name, method=taken.method, writer_stall_s=taken.lock_held_s)
        name = f"db-{database.name}"
        file = staged.objects / f"{name}.sqlite.zst.age"
        # Both read the same private file: what is encrypted is thrown away when the proof fails.
        with _Beside(
            lambda deadline: self._prove(database, snapshot_file, taken, previous, deadline),
            Deadline(self.clock, self.left_s, str(database.path)),
        ) as proof:
            self.step("encrypt", part=name)
            with open(snapshot_file, "rb") as stream:
                watched = proof.watch(self.progress)
                done = crypto.encrypt_file(
                    stream, file, progress=watched, size=taken.bytes, **self._encryption(staged)
                )
            proven = proof.result()
        snapshot_file.unlink()
        entry = archive.describe(database.path, status, sha256=done.plain.sha256, size=done.plain.bytes)
        record = DatabaseRecord(
            name=database.name,
            path=str(database.path),
            journal_mode=taken.journal_mode,
            page_size=taken.page_size,
            page_count=taken.page_count,
            application_id=taken.application_id,
            user_version=taken.user_version,
            sqlite_version=taken.sqlite_version,
            schema_digest=taken.schema_digest,
            tables=proven.tables,
            required={table: list(columns) for table, columns in database.tables.items()},
            newest=proven.newest,
            invariants=proven.invariants,
            snapshot=Snapshot(taken.method, taken.passes, taken.duration_s, taken.lock_held_s),
        )
        return self._part(name, file, done, [entry]), record

    def _prove(
        self,
        database: Database,
        snapshot: Path,
        taken: hot_backup.Snapshot,
        previous: Manifest | None,
        deadline: Deadline,
    ) -> _Proven:
        """Everything that a snapshot has to stand; runs in a thread beside its encryption, so it changes nothing."""
        with background(self.backup.nice):
            return self._proven(database, snapshot, taken, previous, deadline)

    def _proven(
        self,
        database: Database,
        snapshot: Path,
        taken: hot_backup.Snapshot,
        previous: Manifest | None,
        deadline: Deadline,
    ) -> _Proven:
        subject = str(database.path)
        found = checks.examine(
            snapshot,
            subject=subject,
            required=database.tables,
            invariants=[(item.name, item.sql, item.expect) for item in database.invariants],
            timeout_s=deadline.left_s,
            deadline=deadline,
        )
        report = found.report
        if (report.schema_digest, report.page_count) != (taken.schema_digest, taken.page_count):
            raise IntegrityError("the snapshot differs from its source in tables or pages", subject=subject)
        self._no_drift(database, found.rows, previous)
        tables = {name: Table(rows) for name, rows in found.rows.items()}
        if self.backup.content_digests == "always" or (self.backup.content_digests == "full" and self.kind == "full"):
            digests = fingerprint.content_digests(snapshot, immutable=True, deadline=deadline)
            tables = {name: Table(rows, digests[name]["sha256"]) for name, rows in found.rows.items()}
        newest = checks.newest(snapshot, database.queries, subject=subject, deadline=deadline)
        return _Proven(tables, newest, found.invariants)

    def _no_drift(self, database: Database, rows: dict[str, int], previous: Manifest | None) -> None:
        records = previous.databases if previous and not self.accept_drift else []
        for record in records:
            if record.name != database.name:
                continue
            before = {name: table.rows for name, table in record.tables.items()}
            # What went into an archive since then is not lost: the archive is in this generation too.
            moved = row_archive.moved_since(self.journal, database.name, previous.started_at if previous else "")
            now = {name: count + moved.get(name, 0) for name, count in rows.items()}
            lost = checks.drift(before, now, self.backup.drift_limit)
            if lost:
                raise IntegrityError(
                    f"lost more than {self.backup.drift_limit:.0%} of its rows since generation"
                    f" {previous.id if previous else ''}: {'; '.join(lost)}",
                    subject=str(database.path),
                    untouched="every stored generation",
                    remedy="find out why; if it is meant, run the backup once with accept_drift",
                    lost=lost,
                )

    def _archives(self, staged: staging.Staged) -> list[Part]:
        parts = []
        if self.config.config_files:
            parts.append(self._archive(staged, "config", self._add_config))
        if self.config.logs:
            parts.append(self._archive(staged, "logs", self._add_logs))
        if self.kind == "full":
            parts.append(self._archive(staged, "system", self._add_system))
        return [part for part in parts if part is not None]

    def _archive(
        self, staged: staging.Staged, name: str, fill: Callable[[archive.ArchiveWriter, Path], None]
    ) -> Part | None:
        file = staged.objects / f"{name}.tar.zst.age"
        spool = staged.work / "spool"
        entries: list[FileEntry] = []
        self.step("encrypt", part=name)

        def produce(writer: crypto.DigestingWriter) -> None:
            with archive.ArchiveWriter(writer) as tar:
                fill(tar, spool)
            entries.extend(tar.entries)

        done = crypto.encrypt(produce, file, **self._encryption(staged))
        spool.unlink(missing_ok=True)
        if not entries:
            file.unlink()
            self.problems.append(f"there is nothing to back up for {name}")
            return None
        return self._part(name, file, done, entries)

    def _add_config(self, tar: archive.ArchiveWriter, spool: Path) -> None:
        for path in self.config.config_files:
            tar.add(archive.copy_aside(path, spool, clock=self.clock))

    def _add_logs(self, tar: archive.ArchiveWriter, spool: Path) -> None:
        logs = self.config.logs
        if logs is None:
            return
        oldest = self.clock.now().timestamp() - logs.days * _DAY_S
        with self._optional():
            for path, status in self._files(logs.directory, cache=self.config.cache, unreadable=self._unreadable):
                if status.st_mtime >= oldest and not path.is_symlink():
                    with self._optional():
                        tar.add(archive.copy_aside(path, spool, growing=True, clock=self.clock))

    def _add_system(self, tar: archive.ArchiveWriter, spool: Path) -> None:
        system = self.config.system
        if system is None:
            return
        release = Path(os.path.realpath(system.release_link))
        packages = self._packages()
        for top in [release, *system.paths, *([packages] if packages else [])]:
            if not top.is_dir():
                tar.add(archive.copy_aside(top, spool, clock=self.clock))
                continue
            for path, status in self._files(top, exclude=system.exclude):
                if path.is_symlink() and not os.readlink(path).isprintable():
                    self.problems.append(f"{path} is a link to what cannot be listed and is left out")
                elif path.is_symlink():
                    tar.add_link(path, status)
                else:
                    tar.add(archive.copy_aside(path, spool, clock=self.clock))

    def _packages(self) -> Path | None:
        """The list of installed packages, as a file in the state directory."""
        if shutil.which("dpkg-query") is None:
            self.problems.append("there is no dpkg-query, so no list of packages")
            return None
        answer = run(["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${Architecture}\n"], timeout_s=_TOOL_TIMEOUT_S)
        path = self.config.state_dir / "packages.txt"
        path.write_bytes(answer.stdout)
        return path

    def _cache(self, staged: staging.Staged) -> list[CacheFile]:
        """Files that are stored once for all generations: cache files, and the archives of old rows.

        Archives come after the databases: a row that was deleted from a database is in an archive by then.
        """
        archives = archive_file.every_file(self.config.archives)
        if self.config.cache is None and not archives:
            return []
        self.step("cache")
        shelves = self.targets.shelves()
        spool = staged.work / "spool"
        files: list[CacheFile] = []

        def add(path: Path) -> None:
            with self._optional():
                copied = archive.copy_aside(path, spool, clock=self.clock)
                files.append(self._cache_file(staged, copied, shelves))

        for path in archives:
            add(path)
        if self.config.cache is not None:
            before = len(files)
            for path in self._cached(self.config.cache):
                add(path)
            if len(files) == before:
                self.problems.append(f"there is no cache file to back up in {self.config.cache.directory}")
        spool.unlink(missing_ok=True)
        shelves.save({item.object for item in files})
        return files

    def _cached(self, cache: Cache) -> Iterator[Path]:
        """The files of the cache that are worth keeping."""
        with self._optional():
            for path, _status in self._files(cache.directory, unreadable=self._unreadable):
                if cached(path.relative_to(cache.directory).as_posix(), cache.patterns) and not path.is_symlink():
                    yield path

    def _cache_file(self, staged: staging.Staged, copied: archive.Copied, shelves: CacheShelves) -> CacheFile:
        sha256 = copied.entry.sha256
        name = layout.cache_object(sha256, self.fingerprints)
        forms, lacking = shelves.forms(name)
        file = staged.cache_file(name)
        if lacking and not file.exists():
            with open(copied.copy, "rb") as stream:
                done = crypto.encrypt_file(stream, file, **self._encryption(staged))
            if done.plain.sha256 != sha256:
                raise IntegrityError("the staged copy changed", subject=str(copied.copy))
            staged.note_cache(name, done.stored)
        if lacking:
            forms.append(staged.cache_form(name))
        return CacheFile(copied.entry, name, forms)

    def _release(self) -> Release | None:
        system = self.config.system
        if system is None:
            return None
        link = system.release_link
        if not link.exists():
            self.problems.append(f"{link} does not lead to a release")
            return None
        directory = link.resolve()
        try:
            revision = (directory / "REVISION").read_text(encoding="utf-8").strip()[:200]
        except (OSError, UnicodeDecodeError):
            revision = ""
            self.problems.append(f"{directory} has no readable file REVISION")
        return Release(str(link), str(directory), directory.name, revision)

    def _files(
        self,
        top: Path,
        *,
        exclude: Sequence[str] = (),
        cache: Cache | None = None,
        unreadable: Callable[[InputError], None] | None = None,
    ) -> Iterator[tuple[Path, Any]]:
        """The files below `top`, without those that another part of the generation holds.

        A database's raw copy among the logs would come back over its proven snapshot.

        Args:
            cache: below whose directory the files count that no pattern of it means, and so no other part holds.
        """
        real = Path(os.path.realpath(top))
        inside = self.elsewhere - {real, *real.parents}
        shelf = Path(os.path.realpath(cache.directory)) if cache else None
        for path, status in archive.regular_files(top, exclude=exclude, unreadable=unreadable):
            found = real / path.relative_to(top)
            holders = inside.intersection((found, *found.parents))
            if cache and shelf and holders == {shelf} and not cached(str(found.relative_to(shelf)), cache.patterns):
                holders = frozenset()
            if holders:
                continue
            if str(path).isprintable():
                yield path, status
            else:
                self.problems.append(f"{str(path)!r} has a name that cannot be listed and is left out")

    @contextlib.contextmanager
    def _optional(self) -> Iterator[None]:
        """What can be made again does not keep the databases from being backed up; it is reported."""
        try:
            yield
        except InputError as error:
            self.problems.append(str(error))

    def _unreadable(self, error: InputError) -> None:
        self.problems.append(str(error))

    def _part(self, name: str, file: Path, done: crypto.Encrypted, entries: list[FileEntry]) -> Part:
        return Part(
            name=name,
            object=file.name,
            bytes=done.plain.bytes,
            sha256=done.plain.sha256,
            stored=Stored(done.stored.bytes, done.stored.sha256),
            compression="zstd",
            encryption="age",
            recipients=self.fingerprints,
            files=entries,
        )

    def _encryption(self, staged: staging.Staged) -> dict[str, Any]:
        return {
            "recipients_file": staged.recipients_file,
            "level": self.backup.compression_level,
            "nice": self.backup.nice,
            "timeout_s": self.left_s,
        }

    def _previous(self) -> Manifest | None:
        path = _last_manifest(self.config)
        if not path.exists():
            return None
        try:
            return Manifest.from_bytes(path.read_bytes(), subject=str(path))
        except (EngineError, OSError) as error:
            with contextlib.suppress(OSError):
                replace(path, path.with_name("last-manifest.damaged.json"))
            self.problems.append(
                f"what the database is compared with is damaged and set aside, drift unchecked: {error}"
            )
            self.step("set_aside", file=str(path), why=str(error))
            return None


def _preconditions(config: Config, kind: str) -> Backup:
    """Everything that can be known before anything is done."""
    backup = config.require_backup()
    require_apart(config)
    if kind not in KINDS:
        raise InputError(f"the kind of a generation is {' or '.join(KINDS)}, not {kind!r}")
    if kind == "full" and config.system is None:
        raise ConfigError("a full generation needs the section system in the configuration")
    for tool, package in (("age", ""), ("zstd", ""), ("ssh-keygen", "openssh-client")):
        require_tool(tool, package)
    crypto.read_recipients(backup.recipients_file)
    sizes = [require_database(database.path)[0].stat().st_size for database in config.databases]
    for path in config.config_files:
        if not path.is_file():
            raise InputError("the configuration file is missing", subject=str(path), untouched="everything")
    if not backup.signing_key_file.is_file():
        raise PreconditionError(
            "the signing key is missing", subject=str(backup.signing_key_file), remedy="apply the role backup"
        )
    needed = max(sizes) + sum(sizes) // 2 + _SPARE_BYTES
    place = next(path for path in (backup.staging_dir, *backup.staging_dir.parents) if path.is_dir())
    if free_bytes(place) < needed:
        raise PreconditionError(
            f"staging needs {needed} bytes, {free_bytes(place)} are free",
            subject=str(place),
            untouched="everything",
            needed_bytes=needed,
        )
    return backup


def cached(inner: str, patterns: Iterable[str]) -> bool:
    """Whether patterns mean a cache file, by its name or by its path in the cache's directory."""
    name = inner.rpartition("/")[2]
    return any(fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(inner, pattern) for pattern in patterns)


def elsewhere(config: Config) -> frozenset[Path]:
    """Real paths of the databases with what SQLite keeps beside them, configuration files, archives, logs, cache."""
    databases = [os.path.realpath(database.path) for database in config.databases]
    others = [*config.config_files, *archive_file.every_file(config.archives)]
    others += [part.directory for part in (config.logs, config.cache) if part]
    names = [*map(os.path.realpath, others), *(name + suffix for name in databases for suffix in ("", *SIDE_FILES))]
    return frozenset(map(Path, names))


def _last_manifest(config: Config) -> Path:
    """The newest stored generation's manifest: what the next one is compared with."""
    return config.state_dir / "last-manifest.json"


def _contract_digest(config: Config) -> str:
    """Digest of what the configuration says about the service; where backups go is not part of it."""
    facts = dataclasses.asdict(config)
    for key in ("backup", "verify", "cache_cleanup", "notify", "state_dir", "run_dir"):
        facts.pop(key)
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _tools() -> dict[str, str]:
    def first_line(argv: list[str]) -> str:
        done = run(argv, timeout_s=_TOOL_TIMEOUT_S, check=False)
        lines = (done.stdout or done.stderr).decode("utf-8", "replace").strip().splitlines()
        return lines[0].strip() if lines else "unknown"

    return {
        "fluxmaint": VERSION,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "age": first_line(["age", "--version"]),
        "zstd": first_line(["zstd", "--version"]),
        "ssh": first_line(["ssh", "-V"]),
    }
