# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore point as something to restore: what an earlier restore has moved aside goes back the same safe way.

It is named `point-<id>`, where a generation is named by its id. A database that lies there with its `-wal` or
`-journal` is settled in a copy first; the restore point itself is only read.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.clock import from_timestamp, utc_text
from ..core.config import Config
from ..core.errors import InputError, IntegrityError
from ..core.fsio import private_umask, read_json, sha256_file
from ..sqlite import connect, fingerprint
from .restore_plan import SQLITE_SIBLINGS, Contents, DatabaseFacts, File, Request

PREFIX = "point-"
INDEX = "restore-point.json"


def is_point(generation: str) -> bool:
    """Whether what is to be restored is a restore point."""
    return generation.startswith(PREFIX)


class PointSource:
    """Implements `restore_stage.Source` for the restore points of this host. Nothing is encrypted: no key is needed."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._settled: tempfile.TemporaryDirectory[str] | None = None
        self._files: dict[tuple[str, str], Path] = {}

    def contents(self, request: Request) -> Contents:
        """What was moved aside, with the digests that it has now."""
        index = self._index(request.generation)
        kept = {os.path.realpath(item["path"]): Path(item["kept"]) for item in index["files"]}
        files, databases = [], {}
        for database in self._config.databases:
            place = os.path.realpath(database.path)
            if place not in kept:
                continue
            whole = self._whole(kept.pop(place), database.name)
            for suffix in SQLITE_SIBLINGS:
                kept.pop(place + suffix, None)
            files.append(self._file("databases", database.name, str(database.path), whole))
            databases[database.name] = facts_of(database.name, whole)
        for path, file in kept.items():
            part = self._part_of(Path(path))
            if part:
                files.append(self._file(part, "", path, file))
        return Contents(
            generation_id=request.generation,
            kind="restore point",
            host=self._config.host,
            started_at=str(index["made_at"]),
            revision="",
            release="",
            files=files,
            databases=databases,
        )

    def fetch(self, _contents: Contents, files: Sequence[File], directory: Path) -> list[File]:
        """Copy the files; the restore point stays whole until the restore has succeeded."""
        fetched = []
        for number, file in enumerate(files):
            copy = directory / str(number)
            source = self._files[file.part, file.name or file.path]
            with private_umask():
                shutil.copyfile(source, copy, follow_symlinks=False)
            fetched.append(File(**{**vars(file), "staged": str(copy)}))
        return fetched

    def _index(self, generation: str) -> dict[str, Any]:
        name = generation[len(PREFIX) :]
        points = self._config.state_dir / "restore-points"
        if not name or Path(name).name != name or not (points / name / INDEX).is_file():
            there = sorted(path.parent.name for path in points.glob(f"*/{INDEX}"))
            raise InputError(
                f"there is no restore point {name!r}; there are: {', '.join(there) or 'none'}", subject=generation
            )
        index: dict[str, Any] = read_json(points / name / INDEX)
        lost = [item["kept"] for item in index["files"] if not os.path.lexists(item["kept"])]
        if lost:
            raise IntegrityError("is not in the restore point any more", subject=str(lost[0]), untouched="the service")
        return index

    def _whole(self, kept: Path, name: str) -> Path:
        """The database as one file; where something lies beside it, a copy into which SQLite has worked that."""
        beside = [kept.with_name(kept.name + suffix) for suffix in SQLITE_SIBLINGS]
        if not any(path.exists() for path in beside):
            return kept
        if self._settled is None:
            self._config.state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._settled = tempfile.TemporaryDirectory(prefix="settled-", dir=self._config.state_dir)
        copy = Path(self._settled.name) / name
        with private_umask():
            for path in (kept, *beside):
                if path.exists() and not path.name.endswith("-shm"):  # SQLite makes that anew
                    shutil.copyfile(path, copy.with_name(name + path.name[len(kept.name) :]))
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        left = [str(path) for path in copy.parent.glob(f"{name}-*")]
        if left:
            raise IntegrityError("SQLite has not worked in what lay beside the database", subject=left[0])
        shutil.copystat(kept, copy)
        status = kept.stat()
        if os.geteuid() == 0:
            os.chown(copy, status.st_uid, status.st_gid)
        return copy

    def _part_of(self, path: Path) -> str:
        config = self._config
        if path in config.config_files:
            return "config"
        if config.cache is not None and config.cache.directory in path.parents:
            return "cache"
        return "logs" if config.logs is not None and config.logs.directory in path.parents else ""

    def _file(self, part: str, name: str, path: str, source: Path) -> File:
        self._files[part, name or path] = source
        status = source.lstat()
        return File(
            part=part,
            name=name,
            path=path,
            sha256="" if source.is_symlink() else sha256_file(source),
            bytes=status.st_size,
            owner=pwd.getpwuid(status.st_uid).pw_name,
            group=grp.getgrgid(status.st_gid).gr_name,
            mode=status.st_mode & 0o7777,
            modified=utc_text(from_timestamp(status.st_mtime)),
            link=os.readlink(source) if source.is_symlink() else "",
        )


def facts_of(name: str, path: Path) -> DatabaseFacts:
    """What a private database file holds, to compare with once it is in place."""
    with connect.reading(path, immutable=True) as connection:
        rows = fingerprint.count_rows(connection)
        schema = fingerprint.schema_digest(connection)
    return DatabaseFacts(name=name, rows=rows, schema_digest=schema)
