# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete from one target what retention no longer keeps, and what interrupted runs left.

The order makes a kill at any point harmless: COMMIT goes first, its newest version before older ones, so that what is
left is a whole generation or an orphan, which a later run removes. Proofs go after their generation, cache files
after the last generation that lists them.

Backups may be made while another machine prunes, without a common lock. What no committed generation lists is
therefore removed only when it is older than a grace of a day or more by the store's own clock, version by version as
they were listed before; and a backup renews what it needs and cannot be sure of (see `upload`). The newest generation
is never deleted, so what it lists stays, and that is what a backup is sure of.

Only manifests that verify count for the policy: made-up generations neither fill a week's place nor are they
deleted. They are named.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from ..core.clock import Clock, utc_text
from ..core.config import Config, Retention, TargetPath
from ..core.errors import ConfigError, IntegrityError, StoreError
from ..core.human import size_text, table_lines
from ..core.journal import Journal, Operation
from ..core.lease import Lease
from ..core.progress import Report
from ..store.base import AccessDenied, ObjectMissing, Store, TooLarge, Version
from ..store.open import open_store
from . import layout, proof, retention, staging
from .manifest import MANIFEST_LIMIT, Manifest
from .opening import Opened, listing, open_generation, require_whole


class Witness(Protocol):
    """What is known of another target."""

    def holds(self, _opened: Opened, /) -> bool:
        """Whether it holds the same generation, committed."""

    def proven(self, _opened: Opened, /) -> bool:
        """Whether a good proof of it lies there."""


class StoreWitness:
    """Another target that can be asked."""

    def __init__(self, store: Store, service: str, host: str, allowed_signers_file: Path) -> None:
        self._store = store
        self._place = (service, host)
        self._signers = allowed_signers_file
        self._cached: dict[str, list[Version]] | None = None

    def holds(self, opened: Opened) -> bool:
        """Whether COMMIT there names the same manifest, with all its objects. What does not answer holds nothing."""
        with contextlib.suppress(StoreError, IntegrityError):
            commit = self._store.get_bytes(opened.prefix + layout.COMMIT, 4096)
            if commit.decode("ascii", "replace").strip() == opened.manifest_sha256:
                if self._cached is None:
                    self._cached = listing(self._store, layout.cache(*self._place))
                own = listing(self._store, opened.prefix)
                require_whole(opened, {**self._cached, **own}, target=self._store.name)
                return True
        return False

    def proven(self, opened: Opened) -> bool:
        """Whether a proof with a good signature lies there."""
        with contextlib.suppress(StoreError):
            return _is_proven(self._store, *self._place, opened, self._signers)
        return False


class ListWitness:
    """What somebody else has found on another target: ids of committed generations."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = set(ids)

    def holds(self, opened: Opened) -> bool:
        """Whether it is on the list."""
        return opened.manifest.id in self._ids

    def proven(self, _opened: Opened) -> bool:
        """False: a list proves nothing."""
        return False


@dataclass(frozen=True)
class Known:
    """A generation that was verified before, for callers that prune again and again."""

    opened: Opened
    proven: bool


def prune_configured(
    config: Config,
    *,
    target: str = "",
    credentials_file: Path | None = None,
    dry_run: bool = False,
    clock: Clock | None = None,
    journal: Journal,
    progress: Report | None = None,
) -> dict[str, Any]:
    """Prune the targets of this host: those that are directories, or the one that is named.

    Args:
        target: name of one target. A bucket needs credentials that may delete, which this host should not have.
        credentials_file: such credentials.

    Raises:
        LeaseError: a backup is running.
        StoreError: a target failed; the others are done.
    """
    clock = clock or Clock()
    backup = config.require_backup()
    chosen = [backup.target(target)] if target else [item for item in backup.targets if isinstance(item, TargetPath)]
    if not chosen:
        raise ConfigError(
            "no target is a directory; buckets are pruned from the controller, with credentials of their own",
            remedy="run the playbook backup_prune",
        )
    results, errors = [], []
    with Lease(config.run_dir / "backup.lock", purpose="prune", clock=clock):
        waiting = [
            Manifest.from_bytes(staged.manifest_file.read_bytes(), subject=str(staged.manifest_file))
            for staged in staging.ready(backup.staging_dir)
        ]
        for one in chosen:
            place = (config.service, config.host, backup.allowed_signers_file)
            others = [
                StoreWitness(open_store(other, clock), *place) for other in backup.targets if other.name != one.name
            ]
            try:
                result = prune(
                    open_store(one, clock, write_credentials_file=credentials_file),
                    config.service,
                    config.host,
                    policy=backup.retention,
                    allowed_signers_file=backup.allowed_signers_file,
                    signer=backup.signer,
                    others=others,
                    waiting=waiting,
                    dry_run=dry_run,
                    clock=clock,
                    journal=journal,
                    progress=progress,
                )
            except StoreError as error:  # the others have their turn
                errors.append(error)
            else:
                results.append(result)
    if errors:
        raise errors[0]
    degraded = any(result["result"] != "ok" for result in results)
    return {
        "result": "degraded" if degraded else "ok",
        "changed": any(result["changed"] for result in results),
        "targets": {result["target"]: result for result in results},
    }


def prune(
    store: Store,
    service: str,
    host: str,
    *,
    policy: Retention,
    allowed_signers_file: Path,
    signer: str,
    others: Sequence[Witness] = (),
    waiting: Iterable[Manifest] = (),
    dry_run: bool = False,
    clock: Clock | None = None,
    journal: Journal | None = None,
    progress: Report | None = None,
    known: dict[str, Known] | None = None,
) -> dict[str, Any]:
    """Prune one target. The caller keeps backups away where it can: on the host by the backup's lock.

    Args:
        others: the other targets. With any, a generation makes older ones superfluous only when one of them holds it.
        waiting: manifests of generations that are staged and not on every target yet.
        dry_run: say what would be done, do nothing.
        known: generations that this caller has verified before; is added to.

    Returns:
        What was done, or would be, JSON-serialisable. `result` is `degraded` when something needs a person:
        `problems` says what.
    """
    clock = clock or Clock()
    with contextlib.ExitStack() as stack:
        operation = None
        if journal is not None:
            operation = stack.enter_context(journal.operation("prune", target=store.name, dry_run=dry_run))
        run = _Run(store, service, host, policy, clock, operation, progress, dry_run=dry_run)
        store.check()
        result = run.go(allowed_signers_file, signer, others, list(waiting), {} if known is None else known)
        if operation is not None:
            operation.result = result["result"]
            operation.evidence = {key: result[key] for key in _JOURNALLED}
        return result


_JOURNALLED = ("deleted", "locked", "orphans", "cache", "proofs", "uploads", "problems", "changed")


class _Run:
    """One run of `prune`."""

    def __init__(
        self,
        store: Store,
        service: str,
        host: str,
        policy: Retention,
        clock: Clock,
        operation: Operation | None,
        progress: Report | None,
        *,
        dry_run: bool,
    ) -> None:
        self.store = store
        self.service = service
        self.host = host
        self.policy = policy
        self.clock = clock
        self.operation = operation
        self.progress = progress
        self.dry_run = dry_run
        self.problems: list[str] = []
        self.changed = False

    def step(self, name: str, **facts: Any) -> None:
        """Note a step."""
        if self.operation is not None:
            self.operation.step(name, **facts)
        if self.progress is not None:
            self.progress(name, facts)

    def go(
        self,
        signers: Path,
        signer: str,
        others: Sequence[Witness],
        waiting: Sequence[Manifest],
        known: dict[str, Known],
    ) -> dict[str, Any]:
        begun, now, store_now = self.clock.monotonic(), self.clock.now(), self.store.now()
        # The cache is listed first: what is added to it or renewed from now on is not touched.
        cached = _grouped(self.store.versions(layout.cache(self.service, self.host)))
        objects = self._objects(layout.generations(self.service, self.host))
        committed = [identity for identity, names in objects.items() if _has(names, layout.COMMIT)]
        self.problems += [
            f"{name} is no object of a backup, its name is not UTF-8; it is left alone: find out who put it there"
            for name in self.store.foreign(layout.base(self.service, self.host))
        ]
        every = [*cached.values(), *(versions for names in objects.values() for versions in names.values())]
        there = {versions[0].key: [item for item in versions if not item.marker] for versions in every}
        verified, suspect = self._verify(committed, there, signers, signer, others, known)
        held = [
            retention.Held(
                identity,
                one.opened.manifest.kind,
                proven=one.proven,
                copies=1 + sum(other.holds(one.opened) for other in others if one.proven),
            )
            for identity, one in verified.items()
        ]
        plan = self._plan(held, objects, now, copies_needed=2 if others else 1)
        refused = {item.id for item in plan.delete if not self._delete_generation(item, objects[item.id])}
        gone = {item.id for item in plan.delete} - refused
        orphans = self._orphans({key: names for key, names in objects.items() if key not in committed}, now, store_now)
        removed = gone | set(orphans["deleted"])
        listed = {item.object for identity in set(verified) - gone for item in verified[identity].opened.manifest.cache}
        listed |= {item.object for manifest in waiting for item in manifest.cache}
        listed |= self._unsigned(set(objects) - set(verified) - removed)
        result = {
            "target": self.store.name,
            "service": self.service,
            "host": self.host,
            "dry_run": self.dry_run,
            "kept": [vars(item) for item in plan.keep],
            "deleted": [
                {**vars(item), "bytes": _bytes(objects[item.id]), "objects": len(objects[item.id])}
                for item in plan.delete
                if item.id not in refused
            ],
            "locked": [vars(item) for item in plan.locked],
            "suspect": suspect,
            "orphans": orphans,
            "proofs": self._proofs(set(objects) - removed, store_now),
            "cache": self._cache(cached, listed, store_now),
            "uploads": self._uploads(store_now),
        }
        for identity in gone:
            known.pop(identity, None)
        return {
            **result,
            "problems": self.problems,
            "changed": self.changed,
            "result": "degraded" if self.problems else "ok",
            "duration_s": round(self.clock.monotonic() - begun, 3),
        }

    # ---- looking

    def _objects(self, prefix: str) -> dict[str, dict[str, list[Version]]]:
        """Versions by generation and name."""
        found: dict[str, dict[str, list[Version]]] = {}
        for version in self.store.versions(prefix):
            identity, _separator, name = version.key[len(prefix) :].partition("/")
            if layout.is_id(identity) and name:
                found.setdefault(identity, {}).setdefault(name, []).append(version)
        return found

    def _verify(
        self,
        committed: Sequence[str],
        there: Mapping[str, Sequence[Version]],
        signers: Path,
        signer: str,
        others: Sequence[Witness],
        known: dict[str, Known],
    ) -> tuple[dict[str, Known], list[str]]:
        verified, suspect = {}, []
        for identity in sorted(committed):
            one = known.get(identity)
            place = (self.store, self.service, self.host, identity)
            try:
                opened = one.opened if one else open_generation(*place, allowed_signers_file=signers, signer=signer)
                self._require_whole(opened, there)
            except IntegrityError as error:
                suspect.append(identity)
                self.problems.append(f"generation {identity} does not verify and is left alone: {error}")
                continue
            proven = bool(one and one.proven) or _is_proven(self.store, self.service, self.host, opened, signers)
            proven = proven or any(other.proven(opened) for other in others)
            verified[identity] = known[identity] = Known(opened, proven)
        return verified, suspect

    def _require_whole(self, opened: Opened, there: Mapping[str, Sequence[Version]]) -> None:
        """What lacks an object makes no older generation superfluous."""
        try:
            require_whole(opened, there)
        except IntegrityError:
            require_whole(opened)  # it may have been stored since that was listed

    def _plan(
        self, held: list[retention.Held], objects: Mapping[str, Any], now: datetime, *, copies_needed: int
    ) -> retention.Plan:
        """Only what is due is asked for its lock."""
        due = {item.id for item in retention.plan(held, self.policy, now, copies_needed=copies_needed).delete}
        asked = [
            dataclasses.replace(item, retained_until=self._retained(objects[item.id])) if item.id in due else item
            for item in held
        ]
        return retention.plan(asked, self.policy, now, copies_needed=copies_needed)

    def _retained(self, names: Mapping[str, Sequence[Version]]) -> datetime | None:
        """Until when something of a generation is retained."""
        versions = [item for found in names.values() for item in found if not item.marker]
        times = [self.store.retained_until(item.key, item.version) for item in versions]
        return max((time for time in times if time is not None), default=None)

    def _unsigned(self, identities: Iterable[str]) -> set[str]:
        """Cache objects that a generation lists which is not complete yet, or does not verify: listed is listed."""
        found: set[str] = set()
        for identity in identities:
            key = layout.generation(self.service, self.host, identity) + layout.MANIFEST
            # What is no manifest must not keep the rest from being pruned: anybody who may upload could put it there.
            with contextlib.suppress(IntegrityError, TooLarge, ObjectMissing):
                manifest = Manifest.from_bytes(self.store.get_bytes(key, MANIFEST_LIMIT), subject=key)
                found |= {item.object for item in manifest.cache}
        return found

    # ---- deleting

    def _delete_generation(self, item: retention.Decision, names: Mapping[str, Sequence[Version]]) -> bool:
        """COMMIT first; False when the store refuses that, and the generation is as it was."""
        rest = [version for name in sorted(names) if name != layout.COMMIT for version in names[name]]
        facts = {"generation": item.id, "target": self.store.name, "reason": item.reason}
        self.step("delete", objects=len(names), bytes=_bytes(names), **facts)
        if not self._delete(names[layout.COMMIT]):
            return False
        self.step("uncommitted", **facts)
        self._delete(rest)
        proofs = f"{layout.proofs(self.service, self.host)}{item.id}/"
        self._delete(self.store.versions(proofs))
        self.step("deleted", **facts)
        return True

    def _delete(self, versions: Iterable[Version]) -> bool:
        """Newest first, as they are listed. What the store refuses is a problem that is named."""
        done = True
        for version in versions:
            if self.dry_run:
                continue
            try:
                self.store.delete(version.key, version.version)
                self.changed = True
            except AccessDenied as error:
                done = False
                self.problems.append(f"the store refuses to delete it: {error}")
                break
        self.changed = self.changed or self.dry_run
        return done

    def _orphans(
        self, orphans: Mapping[str, Mapping[str, Sequence[Version]]], now: datetime, store_now: datetime
    ) -> dict[str, Any]:
        grace = timedelta(days=self.policy.orphan_grace_days)
        found: dict[str, Any] = {"deleted": [], "waiting": [], "locked": []}
        for identity, names in sorted(orphans.items()):
            touched = max(version.modified for versions in names.values() for version in versions)
            young = timedelta(0) <= now - layout.id_time(identity) <= grace
            retained = None if young or store_now - touched <= grace else self._retained(names)
            if young or store_now - touched <= grace:
                found["waiting"].append(identity)
            elif retained is not None and retained > store_now:
                found["locked"].append({"id": identity, "reason": f"retained until {utc_text(retained)}"})
            else:
                self.step("delete_orphan", generation=identity, target=self.store.name, last_change=utc_text(touched))
                if self._delete([version for name in sorted(names) for version in names[name]]):
                    found["deleted"].append(identity)
        return found

    def _proofs(self, there: Collection[str], store_now: datetime) -> dict[str, int]:
        """Proofs of generations that are gone: a run that was killed, or one that never was."""
        prefix = layout.proofs(self.service, self.host)
        stray: dict[str, list[Version]] = {}
        for version in self.store.versions(prefix):
            identity = version.key[len(prefix) :].partition("/")[0]
            if identity not in there:
                stray.setdefault(version.key, []).append(version)
        old = [item for item in stray.values() if self._over(item, store_now, self.policy.orphan_grace_days)]
        return {"deleted": self._remove_objects(old, store_now), "waiting": len(stray) - len(old)}

    def _cache(
        self, cached: Mapping[str, Sequence[Version]], listed: Collection[str], store_now: datetime
    ) -> dict[str, int]:
        base = layout.base(self.service, self.host)
        unlisted = [versions for key, versions in cached.items() if key[len(base) :] not in listed]
        old = [versions for versions in unlisted if self._over(versions, store_now, self.policy.cache_grace_days)]
        size = sum(version.size for versions in old for version in versions)
        deleted = self._remove_objects(old, store_now)
        return {"deleted": deleted, "bytes": size, "waiting": len(unlisted) - len(old), "kept": len(cached) - deleted}

    def _over(self, versions: Sequence[Version], store_now: datetime, days: int) -> bool:
        return store_now - max(version.modified for version in versions) > timedelta(days=days)

    def _remove_objects(self, objects: Sequence[Sequence[Version]], store_now: datetime) -> int:
        removed = 0
        for versions in objects:
            retained = self._retained({"": versions})
            if retained is not None and retained > store_now:
                continue
            self.step("delete_object", object=versions[0].key, target=self.store.name)
            removed += self._delete(versions)
        return removed

    def _uploads(self, store_now: datetime) -> dict[str, int]:
        """Uploads that nobody will end."""
        grace = timedelta(days=self.policy.orphan_grace_days)
        try:
            found = list(self.store.unfinished(layout.base(self.service, self.host)))
        except AccessDenied as error:
            self.problems.append(f"unfinished uploads cannot be listed: {error}")
            found = []
        aborted = 0
        for upload in found:
            if store_now - upload.started <= grace:
                continue
            self.step("abort_upload", object=upload.key, target=self.store.name)
            try:
                if not self.dry_run:
                    self.store.abort(upload)
            except AccessDenied as error:
                self.problems.append(f"unfinished uploads cannot be ended: {error}")
                break
            self.changed = True
            aborted += 1
        return {"aborted": aborted, "waiting": len(found) - aborted}


def table(result: dict[str, Any]) -> str:
    """The result of `prune` as text for people."""
    verb = "would be deleted" if result["dry_run"] else "deleted"
    rows = [("keep", item["id"], "", item["reason"]) for item in result["kept"]]
    rows += [("locked", item["id"], "", item["reason"]) for item in result["locked"]]
    rows += [(verb, item["id"], size_text(item["bytes"]), item["reason"]) for item in result["deleted"]]
    rows += [("suspect", identity, "", "does not verify: look at it") for identity in result["suspect"]]
    rows += [(f"orphan {verb}", identity, "", "never completed") for identity in result["orphans"]["deleted"]]
    rows += [("orphan", identity, "", "perhaps still being made") for identity in result["orphans"]["waiting"]]
    rows += [("orphan locked", item["id"], "", item["reason"]) for item in result["orphans"]["locked"]]
    rows.sort(key=lambda row: row[1], reverse=True)
    rows = [("what", "generation", "size", "why"), *rows]
    lines = [f"target {result['target']}: {result['result']}", *table_lines(rows)]
    cache, proofs, uploads = result["cache"], result["proofs"], result["uploads"]
    lines.append(
        f"{verb}: {cache['deleted']} cache files ({size_text(cache['bytes'])}), {proofs['deleted']} stray proofs,"
        f" {uploads['aborted']} unfinished uploads"
    )
    return "\n".join([*lines, *(f"problem: {text}" for text in result["problems"])])


def _is_proven(store: Store, service: str, host: str, opened: Opened, signers: Path) -> bool:
    found = proof.newest_verified(
        store,
        service,
        host,
        opened.manifest.id,
        allowed_signers_file=signers,
        manifest_sha256=opened.manifest_sha256,
    )
    return found is not None


def _grouped(versions: Iterator[Version]) -> dict[str, list[Version]]:
    found: dict[str, list[Version]] = {}
    for version in versions:
        found.setdefault(version.key, []).append(version)
    return found


def _has(names: Mapping[str, Sequence[Version]], name: str) -> bool:
    return any(not version.marker for version in names.get(name, ()))


def _bytes(names: Mapping[str, Sequence[Version]]) -> int:
    return sum(version.size for versions in names.values() for version in versions)
