# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a restore: what was asked for, what goes where, which steps are done.

Everything here is data and decisions about data; `restore.py` acts. The plan is one JSON file, replaced
atomically after each step, and holds all that a later process needs to finish or undo the restore:
no identity, no network, no generation store.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.config import ArchivedTable, Config
from ..core.errors import InputError
from ..core.fsio import read_json, write_json
from ..sqlite import archive_file

FORMAT = 1
INCLUDE = ("databases", "config", "cache", "logs", "system")
SQLITE_SIBLINGS = ("-wal", "-shm", "-journal")

# Steps in their order. `stage` is all that happens before the service is touched.
FORWARD = ("stage", "stop", "set_aside", "place", "prove", "latch", "start", "healthy", "finish")
BACK = ("stop_again", "withdraw", "put_back", "prove_old", "start_old", "healthy_old", "finish_back")

# Where a plan stands.
STAGING = "staging"  # nothing of the service is touched; may be dropped
APPLYING = "applying"  # between the stop of the units and their proven health
ROLLING_BACK = "rolling_back"  # a step failed; the restore point is on its way back
DONE = "done"
UNDONE = "undone"  # failed, and everything is as before
DROPPED = "dropped"  # ended before the service was touched
OPEN = (STAGING, APPLYING, ROLLING_BACK)


@dataclass(frozen=True)
class Request:
    """What the operator asks for.

    Attributes:
        generation: an id, `latest`, `point-<id>` for a restore point, `salvage-<id>.<candidate>` for what was salvaged,
            or empty together with `before`.
        before: take the newest generation that started before this UTC time; empty to not use it.
        host: name of the host that made the generation; empty means this host.
        target: name of the backup target to fetch from; empty means the first one configured.
        include: which parts, of `INCLUDE`.
        databases: names of databases; empty means all that the generation and the contract share.
        config_consent: replace configuration files that exist with other content.
        halt_trading: create the contract's halt file before the units start.
        start_units: start the units and wait for health; otherwise leave them stopped.
        switch_release: let the release link point to the restored release (part `system`).
        stage_only: end after everything is fetched and verified; a later request uses it.
        keep_stage: keep what was fetched after success, for a later request on the same generation.
        restore_points: how many restore points to keep.
        discard_replaced: after success, keep neither what was replaced nor the restore point that was put back.
    """

    generation: str = "latest"
    before: str = ""
    host: str = ""
    target: str = ""
    include: Sequence[str] = ("databases",)
    databases: Sequence[str] = ()
    config_consent: bool = False
    halt_trading: bool = True
    start_units: bool = True
    switch_release: bool = False
    stage_only: bool = False
    keep_stage: bool = False
    restore_points: int = 3
    discard_replaced: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable form; holds no secret."""
        return {**dataclasses.asdict(self), "include": list(self.include), "databases": list(self.databases)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Request:
        """The reverse of `as_dict`. Raises InputError for unknown keys and senseless combinations."""
        known = {item.name for item in dataclasses.fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise InputError(f"a restore request has no {', '.join(unknown)}")
        request = cls(**dict(data))
        request.check()
        return request

    def check(self) -> None:
        """Raise InputError when the request cannot be meant."""
        wrong = [part for part in self.include if part not in INCLUDE]
        if wrong or not self.include:
            raise InputError(f"include takes some of {', '.join(INCLUDE)}, not {', '.join(wrong) or 'nothing'}")
        if self.databases and "databases" not in self.include:
            raise InputError("databases are named, but include does not hold databases")
        if self.before and self.generation not in ("", "latest"):
            raise InputError("give a generation id or a time, not both")
        if self.restore_points < 1:
            raise InputError("restore_points must be at least 1")


@dataclass(frozen=True)
class File:
    """One file of a generation, as its signed manifest describes it.

    `modified` is UTC. `staged` is empty until the file has been fetched and verified. `link` is the target of a
    symbolic link.
    """

    part: str
    name: str
    path: str
    sha256: str
    bytes: int
    owner: str
    group: str
    mode: int
    modified: str = ""
    staged: str = ""
    link: str = ""


@dataclass(frozen=True)
class DatabaseFacts:
    """What the manifest says about a database.

    `content` holds per-table digests when they were taken; `invariants` are name, SQL and expected value.
    """

    name: str
    rows: Mapping[str, int]
    schema_digest: str
    content: Mapping[str, str] = field(default_factory=dict)
    invariants: Sequence[Sequence[Any]] = ()


@dataclass(frozen=True)
class Contents:
    """A generation, verified: its files and the facts to compare them with. `release` is the code's directory."""

    generation_id: str
    kind: str
    host: str
    started_at: str
    revision: str
    release: str
    files: Sequence[File]
    databases: Mapping[str, DatabaseFacts]

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Contents:
        """The reverse of `as_dict`."""
        return cls(
            **{
                **data,
                "files": [File(**item) for item in data["files"]],
                "databases": {name: DatabaseFacts(**item) for name, item in data["databases"].items()},
            }
        )


@dataclass
class Old:
    """A file that was at its place before: where it is kept, and how to know it again."""

    path: str
    keep: str
    inode: int
    bytes: int
    mtime_ns: int


@dataclass
class Item:
    """One file to put into place.

    Attributes:
        path: the place that the contract names.
        place: the real path behind it, symbolic links resolved.
        staged: the verified file, on a file system from which it can be renamed to `place`.
        keep_dir: directory for the old file, on the same file system too.
        action: `create`, `replace` or `keep` (already the same).
        old: what was there, listed when the units were stopped.
    """

    part: str
    name: str
    path: str
    place: str
    staged: str
    keep_dir: str
    sha256: str
    bytes: int
    uid: int
    gid: int
    owner: str
    group: str
    mode: int
    action: str
    modified: str = ""
    link: str = ""
    old: list[Old] = field(default_factory=list)

    @property
    def database(self) -> bool:
        """Whether SQLite's companion files belong to it."""
        return self.part == "databases"

    def companions(self) -> list[str]:
        """The paths that make one set with `place`, itself first."""
        return [self.place, *(self.place + suffix for suffix in SQLITE_SIBLINGS)] if self.database else [self.place]


@dataclass
class Plan:
    """A restore in progress. `done` lists recorded steps, `phases` how long each took in seconds."""

    id: str
    started_at: str
    request: Request
    state: str = STAGING
    contents: Contents | None = None
    items: list[Item] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    made_dirs: list[str] = field(default_factory=list)
    own_dirs: list[str] = field(default_factory=list)
    restore_point: str = ""
    latch: str = ""
    latch_made: bool = False
    old_link: str = ""
    done: list[str] = field(default_factory=list)
    phases: list[dict[str, Any]] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)
    failure: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {"format": FORMAT, **dataclasses.asdict(self), "request": self.request.as_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """The reverse of `as_dict`. Raises InputError for another format."""
        if data.get("format") != FORMAT:
            raise InputError(f"a restore plan of format {data.get('format')!r} is not known to this version")
        values = {key: value for key, value in data.items() if key != "format"}
        values["request"] = Request.from_dict(values["request"])
        values["contents"] = Contents.from_dict(values["contents"]) if values["contents"] else None
        values["items"] = [
            Item(**{**item, "old": [Old(**old) for old in item["old"]]}) for item in values["items"]
        ]
        return cls(**values)

    @property
    def open(self) -> bool:
        """Whether this restore still has to be finished or undone."""
        return self.state in OPEN

    @property
    def changing(self) -> list[Item]:
        """The items that do not have their content already."""
        return [item for item in self.items if item.action != "keep"]

    def require_contents(self) -> Contents:
        """The verified generation. Raises InputError while nothing has been fetched."""
        if self.contents is None:
            raise InputError(f"restore {self.id} has fetched nothing yet")
        return self.contents


def plan_file(config: Config) -> Path:
    """Where the plan of the newest restore of this host is."""
    return config.state_dir / "restore.json"


def load(config: Config) -> Plan | None:
    """The plan of the newest restore, finished or not; None when there has never been one."""
    path = plan_file(config)
    if not path.exists():
        return None
    try:
        return Plan.from_dict(read_json(path))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"is not the plan of a restore: {error!r}",
            subject=str(path),
            untouched="everything",
            remedy="look at state_dir/restore-points and the units before you remove it",
        ) from None


def save(config: Config, plan: Plan) -> None:
    """Replace the plan file, atomically and durably."""
    write_json(plan_file(config), plan.as_dict())


def select(config: Config, contents: Contents, request: Request) -> tuple[list[File], list[str]]:
    """The files of a generation that this request puts into place, and what of it stays out, with the reason.

    Only places that this host's contract names are ever written: a manifest is believed about content,
    not about where root should write. Raises InputError when something asked for is not in the generation.
    """
    known = {database.name for database in config.databases}
    unknown = sorted(set(request.databases) - known)
    if unknown:
        has = ", ".join(sorted(known))
        raise InputError(f"the contract has no database {', '.join(unknown)}", remedy=f"it has {has}")
    chosen: list[File] = []
    left: list[str] = []
    for file in contents.files:
        archived = _archive_of(config, file)
        if archived is not None:
            kept = _kept_archive(request, file, archived.database)
            if kept is None:
                chosen.append(file)
            elif kept:
                left.append(kept)
            continue
        if file.part not in request.include:
            continue
        if file.part == "databases":
            if request.databases and file.name not in request.databases:
                continue
            if file.name not in known:
                left.append(f"database {file.name}: the contract of this host does not name it")
                continue
            chosen.append(dataclasses.replace(file, path=str(config.database(file.name).path)))
        elif _allowed(config, file, contents.release):
            chosen.append(file)
        else:
            left.append(f"{file.path}: the contract of this host does not name this place for {file.part}")
    _require_all(request, known, chosen, contents)
    return chosen, left


def _require_all(request: Request, known: Iterable[str], chosen: Sequence[File], contents: Contents) -> None:
    held = {file.name for file in chosen if file.part == "databases"}
    missing = [f"database {name}" for name in sorted(set(request.databases or known) - held)]
    parts = {file.part for file in chosen}
    # An empty cache or no logs in the last days is a fact, not a fault; the others always have files.
    absent = [part for part in ("config", "system") if part in request.include and part not in parts]
    if "databases" not in request.include:
        missing = []
    if missing or absent:
        raise InputError(
            f"generation {contents.generation_id} does not hold {', '.join(missing + absent)}",
            subject=contents.generation_id,
            untouched="the service",
            remedy="choose another generation, or leave that part out",
        )


def _allowed(config: Config, file: File, release: str) -> bool:
    path = Path(file.path)
    if not path.is_absolute() or ".." in path.parts:
        return False
    if file.part == "config":
        return path in config.config_files
    if file.part == "logs":
        return config.logs is not None and config.logs.directory in path.parents
    if file.part == "cache":
        return config.cache is not None and config.cache.directory in path.parents
    if file.part != "system" or config.system is None:
        return False
    if any(place == path or place in path.parents for place in config.system.paths):
        return True
    return Path(release) in path.parents and release_allowed(config, release)


def _archive_of(config: Config, file: File) -> ArchivedTable | None:
    """The table of which a file holds archived rows; None for any other file."""
    if file.part != "cache" or ".." in Path(file.path).parts:
        return None
    return archive_file.table_of(config.archives, Path(file.path))


def _kept_archive(request: Request, file: File, database: str) -> str | None:
    """None when an archive goes back; else why it does not, empty where nobody asked for it.

    It goes back with its database, because rows that are in it may be nowhere else. One that is there holds whatever
    the generation's holds, and perhaps rows that have left the database since: it is replaced only together with the
    database, and only when the cache is asked for by name.
    """
    with_database = "databases" in request.include and (not request.databases or database in request.databases)
    with_cache = "cache" in request.include
    if not with_database and not with_cache:
        return ""
    if (with_database and with_cache) or not os.path.lexists(file.path):
        return None
    return f"{file.path}: this archive is there and stays; it is replaced together with the database {database} only"


def release_allowed(config: Config, release: str) -> bool:
    """Whether a directory can be one of this host's releases: below the release link's, and holding no data."""
    top = Path(release)
    if config.system is None or ".." in top.parts or config.system.release_link.parent not in top.parents:
        return False
    shared = [*(database.path for database in config.databases), *config.config_files]
    shared += [config.logs.directory] if config.logs else []
    shared += [part.directory for part in (config.cache, config.archives) if part]
    return not any(top == path or top in path.parents for path in shared)


def env_diff(old: bytes, new: bytes) -> dict[str, list[str]]:
    """Compare two `KEY=value` files by key: names only, so that the result may be shown and logged."""
    before, after = _env(old), _env(new)
    return {
        "added": sorted(set(after) - set(before)),
        "removed": sorted(set(before) - set(after)),
        "changed": sorted(key for key in set(before) & set(after) if before[key] != after[key]),
    }


def _env(data: bytes) -> dict[str, str]:
    values = {}
    for line in data.decode("utf-8", "replace").splitlines():
        text = line.strip()
        if text and not text.startswith("#") and "=" in text:
            key, _equals, value = text.partition("=")
            values[key.removeprefix("export ").strip()] = value
    return values


def prunable(points: Sequence[str], keep: int) -> list[str]:
    """Which restore points may go: all but the last `keep` of `points`, which are in the order of their making."""
    return list(points[:-keep]) if keep > 0 else []
