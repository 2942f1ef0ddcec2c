# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove cache files that are too old, or too many, and that nobody would miss.

Only regular files go, never a directory, and only such as the contract calls regenerable. A file that the limits want
to go stays when one of these holds:

- it is not in the newest proven generation with the content that it has now, and that generation's target not with it;
- it was changed or made after that generation began, by its modification or its change time;
- a process has it open, or it was used within the grace;
- another name leads to it, or it is not the file any more that was looked at.

A file of which no generation can list the name may go by age, never by size. Without a proven generation within reach
nothing goes: no data is never a pass.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..backup import catalog, holders, layout, overview, proof
from ..backup.generation import cached, elsewhere
from ..backup.manifest import CacheFile
from ..backup.opening import Opened, open_generation
from ..core.clock import Clock
from ..core.config import Cache, CacheCleanup, Config
from ..core.errors import ConfigError, EngineError, PreconditionError, StoreError
from ..core.human import size_text
from ..core.journal import Journal
from ..core.lease import Lease
from ..store.open import open_store

AGE, SIZE = "age", "size"
_DAY_S = 86400.0
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Found:
    """A cache file as it was found: `path` below the cache's directory, which need not be valid text."""

    path: str
    status: os.stat_result

    @property
    def bytes(self) -> int:
        """What removing it frees."""
        return self.status.st_size

    @property
    def changed(self) -> float:
        """When its content or anything about it changed last; nobody can set this back."""
        return max(self.status.st_mtime, self.status.st_ctime)

    def same(self, status: os.stat_result) -> bool:
        """Whether this is still that file, unchanged."""
        return _identity(status) == _identity(self.status)


@dataclass
class Known:
    """The newest proven generation within reach, and what its target holds of the cache.

    Attributes:
        files: by path.
        held: sizes of the objects below `cache/`, by key.
    """

    identity: str
    target: str
    started: float
    files: Mapping[str, CacheFile]
    held: Mapping[str, set[int]] = field(default_factory=dict)
    base: str = ""

    def holds(self, item: CacheFile) -> bool:
        """Whether the target still has the object of a file, in a size that the manifest names."""
        sizes = self.held.get(self.base + item.object, set())
        return any(stored.bytes in sizes for stored in item.stored)


def cleanup(
    config: Config,
    *,
    max_age_days: float | None = None,
    max_bytes: int | None = None,
    dry_run: bool = False,
    clock: Clock | None = None,
    journal: Journal,
) -> dict[str, Any]:
    """Remove cache files beyond the limits of the configuration, or those given here.

    Args:
        max_age_days: instead of the configured age by modification time.
        max_bytes: instead of the configured size of all regenerable files; the oldest go first.
        dry_run: look at everything, remove nothing.

    Returns:
        `changed`, `removed` and `kept` (each file with `path`, `bytes`, `reason`), `freed_bytes`, `total_bytes` and
        `left_bytes` of regenerable files, `generation` with its `target`, and `problems`.

    Raises:
        ConfigError: the host has no cache, no backups or no limit.
        LeaseError: a backup or a restore runs.
        StoreError: no target could be reached.
        PreconditionError: no generation is proven.
    """
    clock = clock or Clock()
    cache = _required(config)
    limits = _limits(config, max_age_days, max_bytes)
    with contextlib.ExitStack() as stack:
        stack.enter_context(Lease(config.lease_file, purpose="cache-cleanup", clock=clock))
        stack.enter_context(Lease(config.run_dir / "backup.lock", purpose="cache-cleanup", clock=clock))
        operation = stack.enter_context(
            journal.operation("cache-cleanup", directory=str(cache.directory), dry_run=dry_run)
        )
        with _Directory(cache.directory) as directory:
            problems: list[str] = []
            files = sorted(_regenerable(config, cache, directory, problems), key=lambda file: file.status.st_mtime)
            run = _Run(config, directory, files, limits, clock, problems, dry_run=dry_run)
            if run.wanted:
                run.known = newest_proven(config, clock, problems)
                run.note = lambda path: operation.step("remove", path=path)
                run.go()
        result = run.result()
        operation.evidence.update({key: value for key, value in result.items() if key not in ("removed", "kept")})
        operation.evidence["removed"] = len(result["removed"])
    return result


def table(result: Mapping[str, Any]) -> str:
    """The result of `cleanup` as text for people."""
    verb = "would remove" if result["dry_run"] else "removed"
    lines = [f"{verb} {item['path']}  {size_text(item['bytes'])}  {item['reason']}" for item in result["removed"]]
    lines += [f"kept {item['path']}  {size_text(item['bytes'])}  {item['reason']}" for item in result["kept"]]
    lines += [f"problem: {text}" for text in result["problems"]]
    freed, left = size_text(result["freed_bytes"]), size_text(result["left_bytes"])
    against = f", judged by generation {result['generation']} on {result['target']}" if result["generation"] else ""
    lines.append(f"{verb} {len(result['removed'])} files, {freed}; {left} left in {result['directory']}{against}")
    return "\n".join(lines)


def newest_proven(config: Config, clock: Clock, problems: list[str]) -> Known:
    """The newest generation of this host with a good proof, on any target within reach.

    Raises StoreError when no target can be reached, PreconditionError when no generation there is proven.
    """
    backup = config.require_backup()
    best: tuple[str, Opened] | None = None
    reached = False
    errors = []
    for target in backup.targets:
        try:
            store = open_store(target, clock)
            store.check()
            opened = _proven_on(config, store, clock)
        except EngineError as error:
            errors.append(f"target {target.name}: {error}")
            continue
        reached = True
        if opened is not None and (best is None or opened.manifest.id > best[1].manifest.id):
            best = (target.name, opened)
    if not reached:
        raise StoreError(
            f"no target can be reached, so no cache file is known to be in a backup: {'; '.join(errors)}",
            untouched="every cache file",
        )
    problems.extend(errors)
    if best is None:
        raise PreconditionError(
            "no generation is proven, so no cache file is known to be in a backup",
            untouched="every cache file",
            remedy="make a backup and let a verifier prove it; `fluxmaint status` tells what is missing",
        )
    name, opened = best
    held: dict[str, set[int]] = {}
    for version in opened.store.versions(opened.base + "cache/"):
        if not version.marker:
            held.setdefault(version.key, set()).add(version.size)
    return Known(
        identity=opened.manifest.id,
        target=name,
        started=layout.id_time(opened.manifest.id).timestamp(),
        files={item.file.path: item for item in opened.manifest.cache},
        held=held,
        base=opened.base,
    )


def _proven_on(config: Config, store: Any, clock: Clock) -> Opened | None:
    backup = config.require_backup()
    place = (store, config.service, config.host)
    for item in catalog.list_generations(*place):
        future = overview.is_future({"age_s": item.age_s(clock.now())})
        if item.state != catalog.COMMITTED or not item.proven_by or future:
            continue
        try:
            opened = open_generation(
                *place, item.id, allowed_signers_file=backup.allowed_signers_file, signer=backup.signer
            )
        except EngineError:
            continue  # one that does not verify counts for nothing; `fluxmaint status` tells about it
        if proof.newest_verified(
            *place,
            item.id,
            allowed_signers_file=backup.allowed_signers_file,
            manifest_sha256=opened.manifest_sha256,
        ):
            return opened
    return None


def _required(config: Config) -> Cache:
    config.require_backup()
    if config.cache is None:
        raise ConfigError("the configuration has no cache", remedy="set service_cache_dir")
    if not config.cache.regenerable:
        raise ConfigError(
            "no cache file counts as regenerable, so none may go", remedy="set service_cache_regenerable_patterns"
        )
    return config.cache


def _limits(config: Config, max_age_days: float | None, max_bytes: int | None) -> CacheCleanup:
    configured = config.cache_cleanup or CacheCleanup()
    limits = CacheCleanup(
        max_age_days=configured.max_age_days if max_age_days is None else max_age_days,
        max_bytes=configured.max_bytes if max_bytes is None else max_bytes,
        grace_s=configured.grace_s,
    )
    if limits.max_age_days is None and limits.max_bytes is None:
        raise ConfigError("no limit is set, so no cache file is too old or too much", remedy="set an age or a size")
    return limits


def _regenerable(config: Config, cache: Cache, directory: _Directory, problems: list[str]) -> Iterator[Found]:
    """The regular files that the contract calls regenerable, without what another part of a backup holds."""
    inside = elsewhere(config) - {directory.real, *directory.real.parents}

    def failed(error: OSError) -> None:
        problems.append(f"{printable(str(error.filename))} cannot be looked into: {error.strerror}")

    for top, _directories, names, descriptor in os.fwalk(directory.real, onerror=failed, follow_symlinks=False):
        for name in names:
            path = Path(top, name)
            inner = os.path.relpath(path, directory.real)
            if not cached(inner, cache.patterns) or not cached(inner, cache.regenerable):
                continue
            if not inside.isdisjoint((path, *path.parents)):
                continue
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield Found(inner, status)


class _Directory:
    """The cache's directory, held by its descriptor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.real = Path(os.path.realpath(path))
        self._descriptor = -1

    def __enter__(self) -> _Directory:
        try:
            self._descriptor = os.open(self.real, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise PreconditionError(f"cannot be looked into: {error.strerror}", subject=str(self.path)) from None
        return self

    def __exit__(self, *_unused: object) -> None:
        os.close(self._descriptor)

    @contextlib.contextmanager
    def parent(self, inner: str) -> Iterator[tuple[int, str]]:
        """The directory of a file by its descriptor, reached through no symbolic link, and the file's name in it."""
        *directories, name = inner.split("/")
        with contextlib.ExitStack() as stack:
            at = self._descriptor
            for part in directories:
                at = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
                stack.callback(os.close, at)
            yield at, name


class _Run:
    """One cleanup: judges files from the oldest on, and removes those that may go."""

    def __init__(
        self,
        config: Config,
        directory: _Directory,
        files: Sequence[Found],
        limits: CacheCleanup,
        clock: Clock,
        problems: list[str],
        *,
        dry_run: bool,
    ) -> None:
        self._config = config
        self._directory = directory
        self._files = files
        self._limits = limits
        self._now = clock.now().timestamp()
        self._dry_run = dry_run
        self._left = self._total = sum(file.bytes for file in files)
        self._open: frozenset[str] = frozenset()
        self._unseen = 0
        self._removed: list[dict[str, Any]] = []
        self._kept: list[dict[str, Any]] = []
        self.problems = problems
        self.known: Known | None = None
        self.note: Callable[[str], object] = str
        self.wanted = any(self._too_old(file) for file in files) or self._too_much()

    def go(self) -> None:
        """Remove what may go, by age and then by size."""
        self._look_who_has_what_open()
        old = [file for file in self._files if self._too_old(file)]
        self._remove(old, AGE)
        if self._too_much():
            self._remove([file for file in self._files if not self._too_old(file)], SIZE)
        if self._too_much():
            size = f"{size_text(self._left)} are left, the limit is {size_text(self._limits.max_bytes or 0)}"
            self.problems.append(f"{size}: nothing more may go yet")

    def result(self) -> dict[str, Any]:
        """What was done, JSON-serialisable."""
        return {
            "changed": bool(self._removed),
            "dry_run": self._dry_run,
            "directory": str(self._directory.path),
            "generation": self.known.identity if self.known else "",
            "target": self.known.target if self.known else "",
            "total_bytes": self._total,
            "freed_bytes": self._total - self._left,
            "left_bytes": self._left,
            "removed": self._removed,
            "kept": self._kept,
            "problems": self.problems,
        }

    def _too_old(self, file: Found) -> bool:
        days = self._limits.max_age_days
        return days is not None and self._now - file.status.st_mtime > days * _DAY_S

    def _too_much(self) -> bool:
        return self._limits.max_bytes is not None and self._left > self._limits.max_bytes

    def _look_who_has_what_open(self) -> None:
        paths = [self._directory.real / file.path for file in self._files]
        found, self._unseen = holders.open_by(paths)
        self._open = frozenset(holder.path for holder in found)

    def _remove(self, files: Sequence[Found], by: str) -> None:
        for file in files:
            if by == SIZE and not self._too_much():
                break
            told = {"path": printable(file.path), "bytes": file.bytes}
            reason = self._judged(file, by) or self._unlink(file)
            if reason:
                self._kept.append({**told, "reason": reason})
            else:
                self._left -= file.bytes
                self._removed.append({**told, "reason": by})

    def _judged(self, file: Found, by: str) -> str:
        """Why a file stays; empty when it may go as far as it can be told without opening it."""
        if self.known is None:
            return "no generation is known"
        status = file.status
        if status.st_nlink > 1:
            return "another name leads to it"
        if self._now - max(file.changed, status.st_atime) < self._limits.grace_s:
            return "it was used a short time ago"
        if file.changed >= self.known.started:
            return f"it is newer than generation {self.known.identity}"
        if str(self._directory.real / file.path) in self._open:
            return "a process has it open"
        if self._unseen and status.st_mode & 0o066:
            return f"{self._unseen} processes of other users are hidden, and one may have it open: run as root"
        item = self._listed(file)
        if item is None:
            # No generation lists a name that cannot be printed. Any other file was never in a backup, and its times say
            # nothing: it may have come with a directory that was moved here, or by a pattern that was added since.
            nameless = not str(self._directory.path / file.path).isprintable()
            return "" if by == AGE and nameless else f"generation {self.known.identity} does not list it"
        if item.file.bytes != file.bytes:
            return f"generation {self.known.identity} has another content of it"
        if not self.known.holds(item):
            return f"target {self.known.target} does not hold it"
        return ""

    def _listed(self, file: Found) -> CacheFile | None:
        return self.known.files.get(str(self._directory.path / file.path)) if self.known else None

    def _unlink(self, file: Found) -> str:
        """Remove a file if it still is what was looked at and nobody has it open; else say why it stays."""
        reason = ""
        try:
            with self._directory.parent(file.path) as (directory, name):
                reason = self._unlink_in(directory, name, file)
        except FileNotFoundError:
            return "it has gone meanwhile"
        except OSError as error:
            self.problems.append(f"{printable(file.path)}: {error.strerror}")
            return error.strerror or "it cannot be removed"
        return reason

    def _unlink_in(self, directory: int, name: str, file: Found) -> str:
        with _opened(directory, name) as descriptor:
            if not file.same(os.fstat(descriptor)):
                return "it has changed meanwhile"
            leased = _lease(descriptor)
            if leased is False:
                return "a process has it open"
            item = self._listed(file)
            if item is not None and _sha256(descriptor) != item.file.sha256:
                return "the backup has another content of it"
            if not self._dry_run:
                self.note(printable(file.path))
            if leased and fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != fcntl.F_WRLCK:
                return "a process wants to open it"
            if not file.same(os.stat(name, dir_fd=directory, follow_symlinks=False)):
                return "it has changed meanwhile"
            if not self._dry_run:
                os.unlink(name, dir_fd=directory)
        return ""


def printable(name: str) -> str:
    """A file's name as text that every document can hold."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def _opened(directory: int, name: str) -> Iterator[int]:
    """A file to read, without its access time being set where this process may ask for that."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags | os.O_NOATIME, dir_fd=directory)
    except PermissionError:
        descriptor = os.open(name, flags, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lease(descriptor: int) -> bool | None:
    """Have the kernel hold up whoever wants to open a file.

    Returns False when somebody has it open already, None when this file system has no such leases.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # the usual signal would end this process
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        return False if error.errno == errno.EAGAIN else None
    return True


def _sha256(descriptor: int) -> str:
    digest = hashlib.sha256()
    while chunk := os.read(descriptor, _CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
