# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places of the configuration that get into each other's way, by real paths.

For work on the host that the configuration describes: elsewhere its symbolic links lead to other places, or nowhere.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.config import Config, TargetPath
from ..core.errors import ConfigError
from ..sqlite.connect import SIDE_FILES


@dataclass(frozen=True)
class _Place:
    """A path of the configuration; `key` tells an operator where it stands there."""

    key: str
    path: Path
    real: Path

    def __str__(self) -> str:
        return f"{self.key} {self.path}" + ("" if self.real == self.path else f" (really {self.real})")

    def inside(self, other: _Place) -> bool:
        return self.real == other.real or other.real in self.real.parents


def require_apart(config: Config) -> None:
    """Raise ConfigError, naming both of each pair, when places of the configuration are one, or one inside another."""
    found = overlaps(config)
    if found:
        raise ConfigError(
            "; ".join(found),
            untouched="everything",
            remedy="correct the configuration: each of them needs a place of its own",
            mistakes=found,
        )


def overlaps(config: Config) -> list[str]:
    """Each pair of places that may not be one, or one inside another, as a sentence; none when all are apart.

    A database or a configuration file may lie in a directory of logs, cache files or the release, and the directory of
    logs in that of cache files or the other way round: what is inside is left out there.
    """
    databases = [_place(f"database {item.name}", item.path) for item in config.databases]
    files = [_place("config_files", path) for path in config.config_files]
    own = [_place("state_dir", config.state_dir), _place("run_dir", config.run_dir)]
    system = _system(config)
    archives = [_place("archives.directory", config.archives.directory)] if config.archives else []
    directories = [_place("logs.directory", config.logs.directory)] if config.logs else []
    directories += [_place("cache.directory", config.cache.directory)] if config.cache else []
    filled = _filled(config)
    backed_up = [*directories, *system]
    return [
        *_same([*databases, *files], system),
        *_side_files(databases, [*databases, *files, *system]),
        *(f"{other} is the same as {one}" for one, other in _pairs(directories) if one.real == other.real),
        *_nested(system),
        *_nested(filled),
        *(
            f"{place} is inside {top}, and each backup would contain the former ones"
            for place, top in itertools.product([*filled, *own], backed_up)
            if place.inside(top) and not _excluded(place, top, config)
        ),
        # Such a directory becomes private to the engine, or is emptied by it.
        *(
            f"{place} contains {live}"
            for place, live in itertools.product([*filled, *own], [*databases, *files, *backed_up, *archives])
            if live.inside(place) and live.real != place.real
        ),
        *(f"{place} is inside {other}" for place, other in itertools.product(own, filled) if place.inside(other)),
    ]


def _place(key: str, path: Path) -> _Place:
    return _Place(key, path, Path(os.path.realpath(path)))


def _system(config: Config) -> list[_Place]:
    if config.system is None:
        return []
    release = _place("system.release_link", config.system.release_link)
    return [release, *(_place("system.paths", path) for path in config.system.paths)]


def _filled(config: Config) -> list[_Place]:
    """Directories that the engine fills and empties: no two may be one."""
    found = []
    if config.backup is not None:
        paths = [item for item in config.backup.targets if isinstance(item, TargetPath)]
        found = [_place(f"target {item.name}", item.path) for item in paths]
        found.append(_place("backup.staging_dir", config.backup.staging_dir))
    if config.verify is not None:
        found.append(_place("verify.work_dir", config.verify.work_dir))
    return found


def _same(files: Sequence[_Place], others: Sequence[_Place]) -> Iterator[str]:
    """What two parts would hold is restored twice, the second time over the first."""
    for one, other in (*_pairs(files), *itertools.product(files, others)):
        if one.real == other.real:
            yield f"{other} is the same file as {one}"


def _side_files(databases: Sequence[_Place], files: Sequence[_Place]) -> Iterator[str]:
    for database, file in itertools.product(databases, files):
        if str(file.real) in {f"{database.real}{suffix}" for suffix in SIDE_FILES}:
            yield f"{file} belongs to {database}"


def _pairs(places: Sequence[_Place]) -> Iterator[tuple[_Place, _Place]]:
    yield from itertools.combinations(places, 2)


def _nested(places: Sequence[_Place]) -> Iterator[str]:
    for one, other in _pairs(places):
        if one.real == other.real:
            yield f"{other} is the same as {one}"
        elif one.inside(other):
            yield f"{one} is inside {other}"
        elif other.inside(one):
            yield f"{other} is inside {one}"


def _excluded(place: _Place, top: _Place, config: Config) -> bool:
    """Whether the names that a `full` generation leaves out lead to this place."""
    exclude = config.system.exclude if config.system is not None and top.key.startswith("system.") else ()
    return any(part in exclude for part in place.real.relative_to(top.real).parts)
