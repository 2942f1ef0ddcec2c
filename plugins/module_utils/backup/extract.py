# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring single files of a generation into an empty directory, to look at them; nothing of the service is touched."""

from __future__ import annotations

import fnmatch
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.clock import Clock
from ..core.errors import InputError, PreconditionError
from ..core.fsio import fsync_dir, private_umask
from ..core.journal import Journal
from ..core.progress import Report
from .fetch import Opened, fetch_opened
from .manifest import FileEntry

_MOST_NAMED = 5


def listing(opened: Opened, pattern: str = "*", part: str = "") -> list[dict[str, Any]]:
    """The files of a generation, from its signed manifest; nothing is decrypted.

    Args:
        pattern: an absolute path as the host had it, or a shell pattern of such, in which `*` matches slashes too.
        part: only of this part: `db-<name>`, `config`, `logs`, `system` or `cache`; of all when empty.
    """
    return [
        {"part": name, "path": entry.path, "bytes": entry.bytes, "modified": entry.modified, "sha256": entry.sha256}
        for name, entry in _entries(opened)
        if part in ("", name) and fnmatch.fnmatchcase(entry.path, pattern)
    ]


def extract(
    opened: Opened,
    pattern: str,
    to: Path,
    *,
    identity_file: Path,
    part: str = "",
    timeout_s: float = 7200,
    clock: Clock | None = None,
    journal: Journal,
    progress: Report | None = None,
) -> list[dict[str, Any]]:
    """Fetch, verify and decrypt the files that match into the new or empty directory `to`.

    Each lies there below its absolute path, private to whoever runs this; owner and mode of the original are told.
    A part is decrypted whole on the way, so its size is needed for a while.

    Raises:
        InputError: no file matches, or several parts hold a file of the same path.
        PreconditionError: `to` is not empty.
    """
    wanted = listing(opened, pattern, part)
    if not wanted:
        known = sorted({name for name, _entry in _entries(opened)})
        raise InputError(
            f"generation {opened.manifest.id} has no file {pattern}{f' in part {part}' if part else ''}",
            subject=pattern,
            untouched="everything",
            remedy=f"list its files; it has the parts {', '.join(known)}",
        )
    _require_single(wanted)
    _require_empty(to)
    paths = {(item["part"], item["path"]) for item in wanted}
    names = sorted({item["path"] for item in wanted})
    with journal.operation("extract", generation=opened.manifest.id, files=names[:_MOST_NAMED]) as operation:
        with private_umask():
            to.mkdir(mode=0o700, parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=".fluxmaint-extract-", dir=to))
            try:
                fetched = fetch_opened(
                    opened,
                    work / "fetched",
                    identity_file=identity_file,
                    parts=sorted({name for name, _path in paths}),
                    cache_paths={path for name, path in paths if name == "cache"},
                    timeout_s=timeout_s,
                    clock=clock,
                    progress=progress,
                )
                found = [
                    _kept(file.path, file.entry, file.part, to)
                    for file in fetched.files
                    if (file.part, file.entry.path) in paths
                ]
            finally:
                shutil.rmtree(work)
            fsync_dir(to)
        operation.evidence = {"extracted": len(found), "to": str(to)}
    return found


def _entries(opened: Opened) -> Iterator[tuple[str, FileEntry]]:
    for part in opened.manifest.parts:
        for entry in part.files:
            yield part.name, entry
    for item in opened.manifest.cache:
        yield "cache", item.file


def _require_single(wanted: list[dict[str, Any]]) -> None:
    """Older generations may hold a database twice: as a proven snapshot, and raw among the logs."""
    parts: dict[str, list[str]] = {}
    for item in wanted:
        parts.setdefault(item["path"], []).append(item["part"])
    several = {path: names for path, names in parts.items() if len(names) > 1}
    if several:
        path, names = next(iter(several.items()))
        more = f", and {len(several) - 1} more paths" if len(several) > 1 else ""
        raise InputError(
            f"several parts hold this file: {', '.join(names)}{more}",
            subject=path,
            untouched="everything",
            remedy="choose one with --part; a part db-NAME is the proven snapshot of a database",
            parts=several,
        )


def _require_empty(to: Path) -> None:
    if to.is_symlink() or (to.exists() and (not to.is_dir() or any(to.iterdir()))):
        raise PreconditionError(
            "is not a new or empty directory", subject=str(to), untouched="everything", remedy="name another directory"
        )


def _kept(fetched: Path, entry: FileEntry, part: str, to: Path) -> dict[str, Any]:
    place = to / entry.path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(place):
        raise PreconditionError("is there already, and nothing is written over", subject=str(place))
    os.replace(fetched, place)
    return {
        "part": part,
        "path": entry.path,
        "file": str(place),
        "bytes": entry.bytes,
        "sha256": entry.sha256,
        "owner": entry.owner,
        "group": entry.group,
        "mode": entry.mode,
    }
