# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The staging directory: where generations are made ready, and wait for targets that were down."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..core.errors import EngineError, InputError, IntegrityError
from ..core.fsio import atomic_write, fsync_dir, read_json, replace, sha256_file, write_json
from . import layout
from .crypto import Digest
from .manifest import Manifest, Stored

MOST_WAITING = 7
MOST_DAMAGED = 2
_DAMAGED = "damaged-"
_STATE = "state.json"


class Staged:
    """One generation in the staging directory.

    It counts as ready once its state file is there, which is written last. The state notes which targets
    hold it already.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.id = directory.name
        self.work = directory / "work"
        self.objects = directory / "objects"
        self.cache = directory / "cache"
        self.recipients_file = self.work / "recipients.txt"
        self.manifest_file = self.objects / layout.MANIFEST
        self._forms: dict[str, Stored] = {}
        self._stored: list[str] = []
        if self.ready:
            state = read_json(self._state_file)
            try:
                self._stored = list(state["stored_on"])
                self._forms = {name: Stored(**form) for name, form in state["cache"].items()}
            except (KeyError, TypeError, AttributeError):
                raise InputError(
                    "is not the state of a staged generation",
                    subject=str(self._state_file),
                    remedy=f"look into {directory}, then remove it",
                ) from None

    @classmethod
    def begin(cls, staging_dir: Path, identity: str) -> Staged:
        """Make the directories of a new generation, readable by their owner only."""
        staging_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        staging_dir.chmod(0o700)
        staged = cls(staging_dir / identity)
        for directory in (staged.directory, staged.work, staged.objects, staged.cache):
            directory.mkdir(mode=0o700)
        return staged

    @property
    def ready(self) -> bool:
        """Whether it is complete, and from now on immutable."""
        return self._state_file.exists()

    @property
    def _state_file(self) -> Path:
        return self.directory / _STATE

    def finish(self, files: dict[str, bytes]) -> None:
        """Write the last files, remove what was only needed to make them, and declare it ready."""
        for name, data in files.items():
            atomic_write(self.objects / name, data)
        shutil.rmtree(self.work)
        self._save()

    def cache_file(self, name: str) -> Path:
        """Where the cache object of that name is staged, if it is."""
        return self.cache / Path(name).name

    def note_cache(self, name: str, form: Digest) -> None:
        """Note the encrypted form of a cache object that is staged."""
        self._forms[name] = Stored(form.bytes, form.sha256)

    def cache_form(self, name: str) -> Stored:
        """The encrypted form of a staged cache object."""
        return self._forms[name]

    def cache_objects(self) -> list[str]:
        """Names of the cache objects that are staged."""
        return sorted(self._forms)

    def stored_on(self) -> list[str]:
        """Names of the targets that hold it, committed."""
        return list(self._stored)

    def note_stored(self, target: str) -> None:
        """Note that a target holds it."""
        self._stored.append(target)
        self._save()

    def remove(self) -> None:
        """Remove it; the state goes first, so that a killed removal leaves nothing that looks ready."""
        self._state_file.unlink(missing_ok=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        fsync_dir(self.directory.parent)

    def _save(self) -> None:
        forms = {name: {"bytes": form.bytes, "sha256": form.sha256} for name, form in self._forms.items()}
        write_json(self._state_file, {"stored_on": self._stored, "cache": forms})


def ready(staging_dir: Path) -> list[Staged]:
    """The generations that wait for targets, oldest first."""
    return [staged for staged in _all(staging_dir) if staged.ready]


def set_aside_damaged(staging_dir: Path) -> dict[str, str]:
    """Move waiting generations that are not what they were when they were made ready out of the way of all others.

    Some are kept, encrypted as they are, for a person to look at. The caller holds the backup lock.

    Returns:
        What is wrong with each, by id.
    """
    found = {}
    for path in _directories(staging_dir):
        try:
            _require_whole(path)
        except EngineError as error:
            found[path.name] = str(error)
            shutil.rmtree(path / "work", ignore_errors=True)
            replace(path, path.with_name(_DAMAGED + path.name))
    if staging_dir.is_dir():
        aside = sorted(path for path in staging_dir.iterdir() if path.name.startswith(_DAMAGED))
        for path in aside[: max(len(aside) - MOST_DAMAGED, 0)]:
            shutil.rmtree(path, ignore_errors=True)
    return found


def _require_whole(directory: Path) -> None:
    staged = Staged(directory)
    if not staged.ready:
        return
    try:
        data = staged.manifest_file.read_bytes()
        manifest = Manifest.from_bytes(data, subject=str(staged.manifest_file))
        wanted = {staged.objects / part.object: part.stored.sha256 for part in manifest.parts}
        wanted[staged.objects / manifest.instructions.object] = manifest.instructions.sha256
        for path, sha256 in wanted.items():
            if sha256_file(path) != sha256:
                raise IntegrityError("is not what the manifest describes", subject=str(path))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", subject=str(error.filename or directory)) from None


def clear_unfinished(staging_dir: Path) -> list[str]:
    """Remove what killed runs left; the caller holds the backup lock, so nobody works on it."""
    left = [staged for staged in _all(staging_dir) if not staged.ready]
    for staged in left:
        staged.remove()
    return [staged.id for staged in left]


def bound(staging_dir: Path, most: int = MOST_WAITING) -> list[str]:
    """Remove the oldest waiting generations, so that a target that never comes back does not fill the disk."""
    waiting = ready(staging_dir)
    excess = waiting[: max(len(waiting) - most, 0)]
    for staged in excess:
        staged.remove()
    return [staged.id for staged in excess]


def _all(staging_dir: Path) -> list[Staged]:
    found = []
    for path in _directories(staging_dir):
        with contextlib.suppress(InputError):  # `set_aside_damaged` tells about it
            found.append(Staged(path))
    return found


def _directories(staging_dir: Path) -> list[Path]:
    if not staging_dir.is_dir():
        return []
    return [path for path in sorted(staging_dir.iterdir()) if layout.is_id(path.name) and path.is_dir()]


def _is_index(entries: Any) -> bool:
    forms = [entries, *(entries.values() if isinstance(entries, dict) else ())]
    if not all(isinstance(form, dict) for form in forms):
        return False
    found = [form for targets in entries.values() for form in targets.values()]
    return all(isinstance(form, dict) and set(form) == {"bytes", "sha256"} for form in found)


class CacheIndex:
    """Which encrypted form of a cache object each target holds. Lost, it is made again by reading the targets."""

    def __init__(self, path: Path, entries: dict[str, dict[str, dict[str, Any]]]) -> None:
        self._path = path
        self._entries = entries

    @classmethod
    def load(cls, state_dir: Path) -> CacheIndex:
        """The index of this host."""
        path = state_dir / "cache-index.json"
        try:
            entries = read_json(path) if path.exists() else {}
        except InputError:  # damaged is as good as lost
            entries = {}
        return cls(path, entries if _is_index(entries) else {})

    def get(self, name: str, target: str) -> Stored | None:
        """The form that a target holds, as far as it was noted."""
        found = self._entries.get(name, {}).get(target)
        return Stored(found["bytes"], found["sha256"]) if found else None

    def put(self, name: str, target: str, form: Stored) -> None:
        """Note the form that a target holds."""
        self._entries.setdefault(name, {})[target] = {"bytes": form.bytes, "sha256": form.sha256}

    def keep(self, wanted: Collection[str]) -> None:
        """Forget the objects that the host's files no longer need."""
        self._entries = {name: forms for name, forms in self._entries.items() if name in wanted}

    def save(self) -> None:
        """Write it, atomically."""
        write_json(self._path, self._entries)
