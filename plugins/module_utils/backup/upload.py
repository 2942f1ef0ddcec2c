# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring what is staged to the targets: each on its own, committed last, completed by a later run."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection

from ..core.clock import Clock
from ..core.config import Config
from ..core.errors import EngineError, StoreError
from ..store.base import Store
from ..store.open import open_store
from . import layout, staging
from .manifest import Manifest, Stored

Step = Callable[..., None]


class Targets:
    """The targets of one run.

    Args:
        step: called with the name and the facts of each step.

    Attributes:
        stores: the targets that answered, by name.
        errors: the last error of each target that failed, by name.
    """

    def __init__(self, config: Config, clock: Clock, step: Step) -> None:
        self._config = config
        self._backup = config.require_backup()
        self._clock = clock
        self._step = step
        self.stores: dict[str, Store] = {}
        self.errors: dict[str, str] = {}

    def open(self) -> None:
        """Ask every target whether it is there."""
        for target in self._backup.targets:
            try:
                store = open_store(target, self._clock)
                store.check()
                self.stores[target.name] = store
            except EngineError as error:
                self._failed(target.name, error)

    def catch_up(self) -> dict[str, dict[str, str]]:
        """Complete the staged generations of earlier runs on the targets that lacked them."""
        done = {}
        for staged in staging.ready(self._backup.staging_dir):
            manifest = Manifest.from_bytes(staged.manifest_file.read_bytes(), subject=str(staged.manifest_file))
            targets = self.store(staged, manifest)
            done[staged.id] = targets
            if all(state == "stored" for state in targets.values()):
                staged.remove()
        return done

    def store(self, staged: staging.Staged, manifest: Manifest) -> dict[str, str]:
        """Store a ready generation on every target that lacks it; the caller unstages it when all hold it.

        One target that fails does not keep the others from being completed.

        Returns:
            `stored` or `failed` for each target.
        """
        states = {}
        for target in self._backup.targets:
            if target.name not in staged.stored_on():
                states[target.name] = "failed"
                if target.name not in self.stores:
                    continue
                try:
                    self._store(staged, manifest, self.stores[target.name])
                except EngineError as error:
                    self._failed(target.name, error)
                    continue
                staged.note_stored(target.name)
            states[target.name] = "stored"
        return states

    def shelves(self) -> CacheShelves:
        """The cache files that the targets hold now."""
        return CacheShelves(self._config, self.stores)

    def _failed(self, target: str, error: EngineError) -> None:
        self.errors[target] = str(error)
        self._step("target_failed", target=target, error=error.as_dict())

    def _store(self, staged: staging.Staged, manifest: Manifest, store: Store) -> None:
        base = layout.base(manifest.service, manifest.host)
        prefix = layout.generation(manifest.service, manifest.host, manifest.id)
        facts = {"generation": manifest.id, "target": store.name}
        commit = (hashlib.sha256(staged.manifest_file.read_bytes()).hexdigest() + "\n").encode()
        if store.exists(prefix + layout.COMMIT):  # stored by a run that was killed before it could note it
            if store.get_bytes(prefix + layout.COMMIT) != commit:
                raise StoreError("belongs to another manifest", subject=prefix + layout.COMMIT)
            return
        self._store_cache(staged, manifest, store, base)
        for part in manifest.parts:
            self._step("store", object=part.object, **facts)
            store.put_file(prefix + part.object, staged.objects / part.object, part.stored.sha256)
        for name in (layout.INSTRUCTIONS, layout.MANIFEST, layout.SIGNATURE):
            file = staged.objects / name
            self._step("store", object=name, **facts)
            store.put_file(prefix + name, file, hashlib.sha256(file.read_bytes()).hexdigest())
        self._step("commit", **facts)
        store.put_new(prefix + layout.COMMIT, commit)
        self._step("committed", **facts)

    def _store_cache(self, staged: staging.Staged, manifest: Manifest, store: Store, base: str) -> None:
        index = staging.CacheIndex.load(self._config.state_dir)
        there = {item.key: item.size for item in store.list(base + "cache/")} if manifest.cache else {}
        for item in manifest.cache:
            key = base + item.object
            if key in there:
                if there[key] not in {stored.bytes for stored in item.stored}:
                    raise StoreError(f"target {store.name} holds another object under this key", subject=key)
                continue
            file = staged.cache_file(item.object)
            if not file.exists():
                raise StoreError(
                    f"target {store.name} lost it, and it is no longer staged",
                    subject=key,
                    remedy="take a new generation",
                )
            form = staged.cache_form(item.object)
            self._step("store", object=item.object, generation=manifest.id, target=store.name)
            store.put_file(key, file, form.sha256)
            there[key] = form.bytes
            index.put(item.object, store.name, form)
        index.save()


class CacheShelves:
    """Which cache files the targets hold, in which encrypted forms: from their listings and the host's notes."""

    def __init__(self, config: Config, stores: dict[str, Store]) -> None:
        self._targets = [target.name for target in config.require_backup().targets]
        self._stores = stores
        self._base = layout.base(config.service, config.host)
        self._index = staging.CacheIndex.load(config.state_dir)
        self._shelves = {name: self._shelf(store) for name, store in stores.items()}

    def forms(self, name: str) -> tuple[list[Stored], bool]:
        """The forms that the targets hold of a cache object, and whether one of them may lack it."""
        key = self._base + name
        forms: list[Stored] = []
        lacking = False
        for target in self._targets:
            known = self._index.get(name, target)
            shelf = self._shelves.get(target)
            if shelf is None:  # the target is down: believe what was noted when it was stored
                lacking = lacking or known is None
            elif key not in shelf:
                known, lacking = None, True
            elif known is None:  # stored by a run that was killed before it could note it
                known = Stored(shelf[key], self._stores[target].digest(key))
                self._index.put(name, target, known)
            if known is not None and known not in forms:
                forms.append(known)
        return forms, lacking

    def save(self, wanted: Collection[str]) -> None:
        """Write what was noted, for the cache objects that are still wanted."""
        self._index.keep(wanted)
        self._index.save()

    def _shelf(self, store: Store) -> dict[str, int] | None:
        """The cache objects that a target holds, or None when it does not answer."""
        with contextlib.suppress(StoreError):
            return {item.key: item.size for item in store.list(f"{self._base}cache/")}
        return None
