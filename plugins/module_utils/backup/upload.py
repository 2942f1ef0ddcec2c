# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring what is staged to the targets: each on its own and at the same time, committed last, completed by a later run.

A pruner may be at work on a target meanwhile, from another machine and without a common lock. It removes only what
is older than a day or more and belongs to no committed generation. Therefore nothing of that kind is relied on as it
is: an object that a generation in the making needs, and that is not known to be listed by a committed one of that
target, is renewed when it is old. A pruner that decided before removes an older version of it, not the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ..core.clock import Clock
from ..core.config import Config
from ..core.errors import EngineError, StoreError, TimeoutExceeded, as_engine_error
from ..sqlite.connect import Deadline
from ..store.base import Store
from ..store.open import open_store
from . import layout, staging
from .manifest import Manifest, Stored

Step = Callable[..., None]
# Half of the shortest time that a pruner leaves alone what no committed generation lists.
RENEW_AFTER_S = 12 * 3600
_STOP_WAIT_S = 5


class Targets:
    """The targets of one run.

    Args:
        step: called with the name and the facts of each step; what it raises ends that target's work.
        note: called in the same way for what has happened already, and therefore ends nothing.

    Attributes:
        stores: the targets that answered, by name.
        errors: the last error of each target that failed, by name.
        late: what could not be caught up with in time, for people.
        unnoted: what is stored, but could not be noted on this host, for people.
    """

    def __init__(self, config: Config, clock: Clock, step: Step, note: Step) -> None:
        self._config = config
        self._backup = config.require_backup()
        self._clock = clock
        self._call_step = step
        self._call_note = note
        self._one_at_a_time = threading.Lock()
        self._stopped = threading.Event()
        self._index = staging.CacheIndex.load(config.state_dir)
        self.stores: dict[str, Store] = {}
        self.errors: dict[str, str] = {}
        self.late: list[str] = []
        self.unnoted: list[str] = []

    def open(self) -> None:
        """Ask every target whether it is there."""
        for target in self._backup.targets:
            try:
                store = open_store(target, self._clock)
                store.check()
                self.stores[target.name] = store
            except EngineError as error:
                self._failed(target.name, error)

    def catch_up(self, limit: Deadline) -> dict[str, dict[str, str]]:
        """Complete the staged generations of earlier runs on the targets that lacked them.

        A target that is not done by `limit` fails with this, and has all the rest of the time for the new generation.
        """
        done = {}
        for staged in staging.ready(self._backup.staging_dir):
            manifest = Manifest.from_bytes(staged.manifest_file.read_bytes(), subject=str(staged.manifest_file))
            targets = self.store(staged, manifest, limit)
            done[staged.id] = targets
            if all(state == "stored" for state in targets.values()):
                staged.remove()
        return done

    def store(self, staged: staging.Staged, manifest: Manifest, limit: Deadline | None = None) -> dict[str, str]:
        """Store a ready generation on every target that lacks it; the caller unstages it when all hold it.

        One target that fails does not keep the others from being completed.

        Args:
            limit: when it is over, the targets that are not done fail.

        Returns:
            `stored` or `failed` for each target.
        """
        states = {target.name: "failed" for target in self._backup.targets}
        wanted = []
        for target in self._backup.targets:
            if target.name in staged.stored_on():
                states[target.name] = "stored"
            elif target.name in self.stores:
                wanted.append(self.stores[target.name])
        # Staged files that no other target waits for may become the objects.
        last = list(states.values()).count("failed") == 1
        for store, error in self._each(wanted, lambda store: self._store_within(limit, staged, manifest, store, last)):
            if error is None:
                with self.noting(f"generation {staged.id} on target {store.name}"):
                    staged.note_stored(store.name)
                states[store.name] = "stored"
                continue
            self._failed(store.name, error)
            if limit is not None and isinstance(error, TimeoutExceeded):
                self.late.append(
                    f"target {store.name} did not get generation {staged.id} within {limit.timeout_s:.0f} s:"
                    " the next run goes on with it"
                )
        return states

    def _each(
        self, stores: Sequence[Store], work: Callable[[Store], None]
    ) -> Iterator[tuple[Store, EngineError | None]]:
        """Work on every store, each in a thread of its own; gives each with its error when it is done."""
        done: queue.Queue[tuple[Store, BaseException | None]] = queue.Queue()

        def one(store: Store) -> None:
            error: BaseException | None = None
            try:
                work(store)
            except BaseException as caught:  # noqa: BLE001 - raised again below
                error = caught
            done.put((store, error))

        if len(stores) == 1:
            one(stores[0])
        # A daemon does not keep an interrupted run alive; what it leaves half done the next run completes.
        threads = [threading.Thread(target=one, args=(store,), daemon=True) for store in stores if len(stores) > 1]
        try:
            for thread in threads:
                thread.start()
            for _unused in stores:
                store, error = done.get()
                if error is not None and not isinstance(error, EngineError):
                    raise error
                yield store, error
        except BaseException:
            self._stopped.set()
            for thread in threads:
                thread.join(_STOP_WAIT_S)
            raise

    def _step(self, name: str, **facts: Any) -> None:
        if self._stopped.is_set():
            raise StoreError("the run was stopped", subject=name)
        with self._one_at_a_time:
            self._call_step(name, **facts)

    def _note(self, name: str, **facts: Any) -> None:
        # One target's bad news must not end the work of the others, nor what follows a commit.
        with self._one_at_a_time, contextlib.suppress(EngineError):
            self._call_note(name, **facts)

    def shelves(self) -> CacheShelves:
        """The cache files that the targets hold now."""
        return CacheShelves(self._config, self.stores, self._index, self.noting)

    def _failed(self, target: str, error: EngineError) -> None:
        self.errors[target] = str(error)
        self._note("target_failed", target=target, error=error.as_dict())

    def _store_within(
        self, limit: Deadline | None, staged: staging.Staged, manifest: Manifest, store: Store, last: bool
    ) -> None:
        store.interrupt = limit.check if limit is not None else None
        try:
            self._store(staged, manifest, store, last)
        finally:
            store.interrupt = None

    def _store(self, staged: staging.Staged, manifest: Manifest, store: Store, last: bool) -> None:
        base = layout.base(manifest.service, manifest.host)
        prefix = layout.generation(manifest.service, manifest.host, manifest.id)
        facts = {"generation": manifest.id, "target": store.name}
        if store.interrupt is not None:
            store.interrupt(f"storing {manifest.id}")
        commit = (hashlib.sha256(staged.manifest_file.read_bytes()).hexdigest() + "\n").encode()
        if store.exists(prefix + layout.COMMIT):  # stored by a run that was killed before it could note it
            if store.get_bytes(prefix + layout.COMMIT) != commit:
                raise StoreError("belongs to another manifest", subject=prefix + layout.COMMIT)
            return
        cached = self._store_cache(staged, manifest, store, base, last)
        for part in manifest.parts:
            self._step("store", object=part.object, **facts)
            file = staged.objects / part.object
            store.put_file(prefix + part.object, file, part.stored.sha256, renew_after_s=RENEW_AFTER_S, give=last)
        for name in (layout.INSTRUCTIONS, layout.MANIFEST, layout.SIGNATURE):
            file = staged.objects / name
            self._step("store", object=name, **facts)
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            store.put_file(prefix + name, file, digest, renew_after_s=RENEW_AFTER_S, give=last)
        self._step("commit", **facts)
        store.put_new(prefix + layout.COMMIT, commit)
        self._note("committed", **facts)
        with self._one_at_a_time, self.noting(f"the cache files on target {store.name}"):
            for name, form in cached.items():
                self._index.put(name, store.name, form)
            self._index.save()

    @contextlib.contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """What is stored stays so when this host cannot write that down: people hear of it, a later run looks."""
        try:
            yield
        except OSError as error:
            self.unnoted.append(f"{what}: stored, but this host cannot note it: {as_engine_error(error)}")

    def _store_cache(
        self, staged: staging.Staged, manifest: Manifest, store: Store, base: str, last: bool
    ) -> dict[str, Stored]:
        """The cache files that the target lacks. Returns the forms that it holds now, to be noted once it is committed.

        What is noted is listed by every generation since one that is committed there: no pruner removes it.
        """
        there = {item.key: item.size for item in store.list(base + "cache/")} if manifest.cache else {}
        cached: dict[str, Stored] = {}
        for item in manifest.cache:
            key = base + item.object
            if key in there and there[key] not in {stored.bytes for stored in item.stored}:
                raise StoreError(f"target {store.name} holds another object under this key", subject=key)
            if item.object in cached:
                continue
            if key not in there:
                cached[item.object] = self._put_cache(staged, store, item.object, key, last)
                continue
            known = self._index.get(item.object, store.name)
            if known is None:
                self._renew(store, key)
                # Encrypting twice gives other bytes of the same size: only the content tells which form it is.
                known = Stored(there[key], store.digest(key))
            if known not in item.stored:
                raise StoreError(f"target {store.name} holds a form of it that the manifest does not list", subject=key)
            cached[item.object] = known
        return cached

    def _put_cache(self, staged: staging.Staged, store: Store, name: str, key: str, last: bool) -> Stored:
        file = staged.cache_file(name)
        if not file.exists():
            raise StoreError(
                f"target {store.name} lost it, and it is no longer staged", subject=key, remedy="take a new generation"
            )
        form = staged.cache_form(name)
        self._step("store", object=name, generation=staged.id, target=store.name)
        store.put_file(key, file, form.sha256, give=last)
        return form

    def _renew(self, store: Store, key: str) -> None:
        found = store.stat(key)
        if found is None or (store.now() - found.modified).total_seconds() >= RENEW_AFTER_S:
            store.renew(key)


class CacheShelves:
    """Which cache files the targets hold, in which encrypted forms: from their listings and the host's notes."""

    def __init__(
        self,
        config: Config,
        stores: dict[str, Store],
        index: staging.CacheIndex,
        noting: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._noting = noting
        self._targets = [target.name for target in config.require_backup().targets]
        self._stores = stores
        self._base = layout.base(config.service, config.host)
        self._index = index
        self._shelves = {name: self._shelf(store) for name, store in stores.items()}
        # What waits for a target will be there before what is made now.
        self._waiting = staging.ready(config.require_backup().staging_dir)

    def forms(self, name: str) -> tuple[list[Stored], bool]:
        """The forms of a cache object that the targets hold or are about to get, and whether one may lack it."""
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
            elif known is None:  # stored by a run that was killed before it could commit, or for a file that was gone
                known = Stored(shelf[key], self._stores[target].digest(key))
            if known is not None and known not in forms:
                forms.append(known)
        waiting = [staged.cache_form(name) for staged in self._waiting if name in staged.cache_objects()]
        return forms + [form for form in dict.fromkeys(waiting) if form not in forms], lacking

    def save(self, wanted: Collection[str]) -> None:
        """Write what was noted, for the cache objects that are still wanted."""
        self._index.keep(wanted)
        with self._noting("cache files"):
            self._index.save()

    def _shelf(self, store: Store) -> dict[str, int] | None:
        """The cache objects that a target holds, or None when it does not answer."""
        with contextlib.suppress(StoreError):
            return {item.key: item.size for item in store.list(f"{self._base}cache/")}
        return None
