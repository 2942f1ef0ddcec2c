# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A generation in a backup target, as a restore sees it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ..core.clock import Clock, parse_utc
from ..core.config import Config
from ..core.errors import InputError, IntegrityError
from ..core.progress import Report
from ..store.open import open_store
from . import fetch
from .manifest import FileEntry, Manifest
from .restore_plan import Contents, DatabaseFacts, File, Request

_DATABASE_PREFIX = "db-"


class StoreSource:
    """Implements `restore_stage.Source` for the configured targets.

    Args:
        host: the host that made the generation, which need not be this one.
        target: name of a target; empty means the first one configured.
        identity_file: age identity; only `fetch` needs it.
        allowed_signers_file, signer: who must have signed; default to the configured ones.
        progress: told the steps of fetching.
    """

    def __init__(
        self,
        config: Config,
        *,
        host: str,
        target: str = "",
        identity_file: Path | None = None,
        allowed_signers_file: Path | None = None,
        signer: str = "",
        clock: Clock | None = None,
        progress: Report | None = None,
    ) -> None:
        self._progress = progress
        self._config = config
        self._backup = config.require_backup()
        self._target = self._backup.target(target) if target else self._backup.targets[0]
        self._host = host
        self._identity_file = identity_file
        self._signers = allowed_signers_file or self._backup.allowed_signers_file
        self._signer = signer or self._backup.signer
        self._clock = clock or Clock()
        self._opened: fetch.Opened | None = None

    @property
    def problems(self) -> list[str]:
        """What is wrong with the target although the generation verifies; known once it was looked at."""
        return list(self._opened.problems) if self._opened else []

    def contents(self, request: Request) -> Contents:
        """The generation that is meant: committed, its manifest signed by the right key."""
        opened = fetch.open_generation(
            open_store(self._target, self._clock),
            self._config.service,
            self._host,
            request.generation or "latest",
            before=parse_utc(request.before) if request.before else None,
            allowed_signers_file=self._signers,
            signer=self._signer,
            clock=self._clock,
        )
        self._opened = opened
        return contents_of(opened.manifest)

    def fetch(self, contents: Contents, files: Sequence[File], directory: Path) -> list[File]:
        """Bring `files` into `directory`; a part is fetched whole, what was not asked for is removed again."""
        if self._identity_file is None:
            raise InputError(
                f"generation {contents.generation_id} is not on this host yet and no identity was given",
                subject=contents.generation_id,
                untouched="the service",
                remedy="give the age identity of one of its recipients",
            )
        if self._opened is None or self._opened.manifest.id != contents.generation_id:
            self.contents(Request(generation=contents.generation_id))
        opened = self._opened
        if opened is None or contents_of(opened.manifest).files != _unstaged(contents.files):
            raise IntegrityError("the target holds another manifest than the stage", subject=contents.generation_id)
        fetched = fetch.fetch_opened(
            opened,
            directory,
            identity_file=self._identity_file,
            parts=sorted({_manifest_part(file) for file in files}),
            cache_paths={file.path for file in files if file.part == "cache"},
            timeout_s=self._backup.timeout_s,
            clock=self._clock,
            progress=self._progress,
        )
        wanted = {_key(file): file for file in files}
        result = []
        for item in fetched.files:
            file = wanted.get((item.part, "" if item.part.startswith(_DATABASE_PREFIX) else item.entry.path))
            if file is None:
                item.path.unlink()
            else:
                result.append(dataclasses.replace(file, staged=str(item.path)))
        return result


def contents_of(manifest: Manifest) -> Contents:
    """A manifest as a restore needs it."""
    files = [
        _file(_part_of(part.name), part.name, entry) for part in manifest.parts for entry in part.files
    ]
    files += [_file("cache", "cache", item.file) for item in manifest.cache]
    databases = {
        record.name: DatabaseFacts(
            name=record.name,
            rows={name: table.rows for name, table in record.tables.items()},
            schema_digest=record.schema_digest,
            content={name: table.sha256 for name, table in record.tables.items() if table.sha256},
            invariants=[[item.name, item.sql, item.expect] for item in record.invariants],
        )
        for record in manifest.databases
    }
    return Contents(
        generation_id=manifest.id,
        kind=manifest.kind,
        host=manifest.host,
        started_at=manifest.started_at,
        revision=manifest.release.revision if manifest.release else "",
        release=manifest.release.directory if manifest.release else "",
        files=files,
        databases=databases,
    )


def _part_of(name: str) -> str:
    return "databases" if name.startswith(_DATABASE_PREFIX) else name


def _file(part: str, name: str, entry: FileEntry) -> File:
    return File(
        part=part,
        name=name[len(_DATABASE_PREFIX) :] if part == "databases" else "",
        path=entry.path,
        sha256=entry.sha256,
        bytes=entry.bytes,
        owner=entry.owner,
        group=entry.group,
        mode=entry.mode_bits,
        modified=entry.modified,
        link=entry.link,
    )


def _manifest_part(file: File) -> str:
    return f"{_DATABASE_PREFIX}{file.name}" if file.part == "databases" else file.part


def _key(file: File) -> tuple[str, str]:
    # A database is known by its name: the contract of this host says where it goes.
    return (_manifest_part(file), "" if file.part == "databases" else file.path)


def _unstaged(files: Sequence[File]) -> list[File]:
    return [dataclasses.replace(file, staged="") for file in files]
