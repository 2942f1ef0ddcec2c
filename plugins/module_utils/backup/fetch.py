# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a generation back from one store, believing nothing that is not verified.

The order is fixed: COMMIT, the manifest's digest, its signature, then for each object the digest of what was
received, decryption, the digest of what came out, and for databases SQLite's checks. Every failure names
the object's key. Nothing is written outside the directory that the caller gives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ..core.clock import Clock
from ..core.errors import InputError, IntegrityError, PreconditionError
from ..core.fsio import atomic_write, free_bytes, fsync_dir, private_umask
from ..core.progress import Report, counted
from ..sqlite.connect import Deadline
from ..store.base import ObjectMissing, Store, Version
from . import archive, checks, crypto, layout
from .crypto import Digest
from .manifest import CacheFile, DatabaseRecord, FileEntry, Manifest, Part
from .opening import Opened, listed, open_generation, read_version, require_listed, stored_sizes

__all__ = ["Fetched", "FetchedFile", "Opened", "fetch", "fetch_opened", "open_generation"]

_SPARE_BYTES = 16 << 20
_CHECKERS = 2  # nothing else is to be done meanwhile


@dataclass(frozen=True)
class FetchedFile:
    """A verified file, private to its owner, and what the manifest says about it.

    `part` is the part's name (`db-<name>`, `config`, `logs`, `system` or `cache`), `key` the object it came from.
    """

    part: str
    key: str
    entry: FileEntry
    path: Path


@dataclass(frozen=True)
class Fetched:
    """What was fetched into `dir`.

    `findings` holds the checks of each fetched database by its name, `problems` what is wrong with the store.
    """

    dir: Path
    manifest: Manifest
    files: list[FetchedFile]
    findings: dict[str, checks.Findings] = field(default_factory=dict)
    bytes: int = 0
    problems: list[str] = field(default_factory=list)

    def database(self, name: str) -> Path:
        """The file of a fetched database."""
        for file in self.files:
            if file.part == f"db-{name}":
                return file.path
        raise InputError(f"the database {name} was not fetched", subject=self.manifest.id)


def fetch(
    store: Store,
    service: str,
    host: str,
    generation: str,
    dest_dir: Path,
    *,
    identity_file: Path,
    allowed_signers_file: Path,
    signer: str,
    before: datetime | None = None,
    parts: Collection[str] | None = None,
    timeout_s: float = 7200,
    clock: Clock | None = None,
    progress: Report | None = None,
) -> Fetched:
    """Verify a generation and bring it, or some parts of it, into the new or empty directory `dest_dir`."""
    opened = open_generation(
        store,
        service,
        host,
        generation,
        before=before,
        allowed_signers_file=allowed_signers_file,
        signer=signer,
        clock=clock,
    )
    return fetch_opened(
        opened,
        dest_dir,
        identity_file=identity_file,
        parts=parts,
        timeout_s=timeout_s,
        clock=clock,
        progress=progress,
    )


def fetch_opened(
    opened: Opened,
    dest_dir: Path,
    *,
    identity_file: Path,
    parts: Collection[str] | None = None,
    cache_paths: Collection[str] | None = None,
    timeout_s: float = 7200,
    clock: Clock | None = None,
    progress: Report | None = None,
) -> Fetched:
    """Bring a verified generation into the new or empty directory `dest_dir`.

    Args:
        parts: names of parts, `cache` included; all when not given.
        cache_paths: of the cache, only files with these paths.
        progress: called with the name and the facts of each step.

    Returns:
        What was fetched: databases in `databases/`, archives unpacked in a directory of their name, cache files in
        `cache/`, each below its absolute path. Everything is private; owners and modes stand in the entries.
    """
    manifest = opened.manifest
    wanted = manifest.part_names() if parts is None else list(dict.fromkeys(parts))
    chosen = [manifest.part(name) for name in wanted if name != "cache"]
    if "cache" in wanted and not manifest.cache:
        raise InputError(f"generation {manifest.id} has no part 'cache'", subject=manifest.id)
    cache = [
        item
        for item in manifest.cache
        if "cache" in wanted and (cache_paths is None or item.file.path in cache_paths)
    ]
    _prepare(dest_dir, chosen, cache)
    job = _Job(opened, dest_dir, identity_file, Deadline(clock or Clock(), timeout_s, "fetch"), progress)
    with private_umask():
        job.sizes(chosen, cache)
        job.instructions()
        atomic_write(dest_dir / layout.MANIFEST, opened.manifest_bytes)
        atomic_write(dest_dir / layout.SIGNATURE, opened.signature)
        for part in chosen:
            job.part(part)
        for item in cache:
            job.cache_file(item)
    fsync_dir(dest_dir)
    size = sum(part.bytes for part in chosen) + sum(item.file.bytes for item in cache)
    return Fetched(dest_dir, manifest, job.files, job.findings, size, opened.problems)


class _Job:
    """One fetch in progress."""

    def __init__(
        self, opened: Opened, dest: Path, identity_file: Path, deadline: Deadline, progress: Report | None
    ) -> None:
        self.opened = opened
        self.dest = dest
        self.identity_file = identity_file
        self.deadline = deadline
        self.progress = progress
        self.files: list[FetchedFile] = []
        self.findings: dict[str, checks.Findings] = {}
        self.there: dict[str, list[Version]] = {}

    def sizes(self, parts: Sequence[Part], cache: Sequence[CacheFile]) -> None:
        """Look at every object first: what is missing is found before gigabytes are fetched."""
        expected = stored_sizes(self.opened, parts, cache)
        self.there = require_listed(expected, listed(self.opened, cache=bool(cache)), self.opened.store.name)
        for key, versions in self.there.items():
            if not versions[0].latest:
                self._replaced(key)

    def instructions(self) -> None:
        """The instructions are covered by the signature too."""
        said = self.opened.manifest.instructions
        key = self.opened.prefix + said.object

        def described(data: bytes) -> bytes:
            if hashlib.sha256(data).hexdigest() != said.sha256:
                raise IntegrityError("is not what the manifest describes", subject=key)
            return data

        problems = self.opened.problems
        data = read_version(self.opened.store, key, described, limit=said.bytes + 1, problems=problems)
        atomic_write(self.dest / said.object, data)

    def part(self, part: Part) -> None:
        """Fetch one part: a database, or an archive that is unpacked."""
        key = self.opened.prefix + part.object
        self._note("fetch", part.name, key)
        if part.name.startswith("db-"):
            self._database(part, key)
            return
        tar = self.dest / f"{part.name}.tar"
        self._decrypt(key, tar, [Digest(part.stored.bytes, part.stored.sha256)], Digest(part.bytes, part.sha256))
        directory = self.dest / part.name
        directory.mkdir(mode=0o700)
        for entry in archive.extract(tar, directory, part.files, subject=key):
            self.files.append(FetchedFile(part.name, key, entry, directory / entry.member))
        tar.unlink()

    def cache_file(self, item: CacheFile) -> None:
        """Fetch one cache file."""
        key = self.opened.base + item.object
        self._note("fetch", "cache", key)
        path = self.dest / "cache" / item.file.member
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        plain = Digest(item.file.bytes, item.file.sha256)
        self._decrypt(key, path, [Digest(stored.bytes, stored.sha256) for stored in item.stored], plain)
        self.files.append(FetchedFile("cache", key, item.file, path))

    def _database(self, part: Part, key: str) -> None:
        record = _record(self.opened.manifest, part)
        directory = self.dest / "databases"
        directory.mkdir(mode=0o700, exist_ok=True)
        path = directory / f"{record.name}.sqlite"
        self._decrypt(key, path, [Digest(part.stored.bytes, part.stored.sha256)], Digest(part.bytes, part.sha256))
        self._note("check", part.name, key)
        found = checks.examine(
            path,
            subject=key,
            required=record.required,
            invariants=[(item.name, item.sql, item.expect) for item in record.invariants],
            timeout_s=self.deadline.left_s,
            workers=_CHECKERS,
        )
        checks.compare(record, found, subject=key)
        self.findings[record.name] = found
        self.files.append(FetchedFile(part.name, key, part.files[0], path))

    def _decrypt(self, key: str, dest: Path, stored: Sequence[Digest], plain: Digest) -> None:
        failed: IntegrityError | None = None
        for version in self.there[key]:
            try:
                self._decrypt_version(key, version.version, dest, stored, plain)
            except IntegrityError as error:
                failed = failed or error
                continue
            if failed is not None:
                self._replaced(key)
            return
        raise failed or IntegrityError("is missing", subject=key)

    def _replaced(self, key: str) -> None:
        self.opened.problems.append(f"{key}: its newest version is not the one that was stored; an older one is used")

    def _decrypt_version(
        self, key: str, version: str, dest: Path, stored: Sequence[Digest], plain: Digest
    ) -> None:
        try:
            with self.opened.store.read(key, version) as chunks:
                crypto.decrypt(
                    counted(chunks, self.progress, stored[0].bytes),
                    dest,
                    identity_file=self.identity_file,
                    stored=stored,
                    plain=plain,
                    subject=key,
                    timeout_s=self.deadline.left_s,
                )
        except ObjectMissing as error:
            raise IntegrityError(error.message, subject=key) from None

    def _note(self, step: str, part: str, key: str) -> None:
        self.deadline.check(f"{step} {key}")
        if self.progress is not None:
            self.progress(step, {"part": part, "object": key})


def _prepare(dest: Path, parts: Sequence[Part], cache: Sequence[CacheFile]) -> None:
    """The directory exists, is empty, and its file system has room."""
    try:
        dest.mkdir(mode=0o700, parents=True, exist_ok=True)
        occupied = any(dest.iterdir())
    except OSError as error:
        raise PreconditionError(f"cannot be used: {error.strerror}", subject=str(dest)) from None
    if occupied:
        raise PreconditionError("is not empty; a generation is fetched into an empty directory", subject=str(dest))
    archives = [part.bytes for part in parts if not part.name.startswith("db-")]
    needed = sum(part.bytes for part in parts) + max(archives, default=0) + sum(item.file.bytes for item in cache)
    needed += _SPARE_BYTES
    if free_bytes(dest) < needed:
        raise PreconditionError(
            f"{needed} bytes are needed, {free_bytes(dest)} are free", subject=str(dest), needed_bytes=needed
        )


def _record(manifest: Manifest, part: Part) -> DatabaseRecord:
    return next(record for record in manifest.databases if f"db-{record.name}" == part.name)
