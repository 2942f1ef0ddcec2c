# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find a generation in a store and verify what it says about itself: COMMIT, manifest, signature.

Whoever has the credentials of an uploader can put other content over an object of a bucket that keeps versions, and
make up generations. Neither may hide a good one: where the newest version of an object is not the one that was
committed and signed, the older ones are looked at; and `latest` is the newest generation that verifies.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from ..core.clock import Clock
from ..core.errors import IntegrityError
from ..store.base import ObjectMissing, Store, TooLarge, Version
from . import catalog, crypto, layout
from .manifest import MANIFEST_LIMIT, CacheFile, Manifest, Part

_COMMIT_LIMIT = 4096
_SIGNATURE_LIMIT = 64 << 10
# Nobody can put anything before the first versions of an object, so rubbish on top is not searched without end.
_MOST_VERSIONS = 50
_T = TypeVar("_T")


@dataclass(frozen=True)
class Opened:
    """A generation whose manifest is committed, signed and meant; nothing of it is decrypted yet.

    Attributes:
        prefix: the key below which its own objects lie.
        base: the key below which the shared ones lie.
        problems: what is wrong with the store, though not with this generation: newer generations that do not
            verify, objects whose newest version is not the one that was stored. People must hear of it.
    """

    store: Store
    prefix: str
    base: str
    manifest: Manifest
    manifest_bytes: bytes
    signature: bytes
    signing_key: str
    problems: list[str] = field(default_factory=list)

    @property
    def manifest_sha256(self) -> str:
        """Digest of the manifest: what COMMIT holds and proofs speak of."""
        return hashlib.sha256(self.manifest_bytes).hexdigest()


def open_generation(
    store: Store,
    service: str,
    host: str,
    generation: str = "latest",
    *,
    before: datetime | None = None,
    allowed_signers_file: Path,
    signer: str,
    clock: Clock | None = None,
) -> Opened:
    """Choose a generation and verify what it says about itself: COMMIT, the manifest's digest, its signature.

    Args:
        generation: an id, or `latest`: the newest that verifies and does not come from the future.
        before: with `latest`: the newest one that was started before this time.
        allowed_signers_file: as ssh-keygen takes it: who may sign with which key.
        signer: who must have signed, such as `fluxhero@production`.

    Raises:
        IntegrityError: it does not verify, or for `latest`, none does; names the object of the newest one.
    """
    if generation not in ("", "latest"):
        layout.id_time(generation)
        return _open(store, service, host, generation, allowed_signers_file, signer)
    choice = catalog.candidates(store, service, host, before=before, now=(clock or Clock()).now())
    # Of a machine whose clock is behind, too: it would be given an old generation without a word.
    problems = [
        f"generation {identity} claims to come from the future: look at the clocks" for identity in choice.future
    ]
    first: IntegrityError | None = None
    for identity in choice.ids:
        try:
            opened = _open(store, service, host, identity, allowed_signers_file, signer)
        except IntegrityError as error:
            first = first or error
            problems.append(f"generation {identity} is passed over: {error}")
            continue
        opened.problems[:0] = problems
        return opened
    if first is not None:
        raise first
    raise catalog.nothing_fits(store, service, host, before, choice.future)


def read_version(
    store: Store, key: str, accept: Callable[[bytes], _T], *, limit: int, problems: list[str]
) -> _T:
    """What `accept` makes of an object: of its newest version, or of the first older one that it accepts.

    Raises the error of the newest version, an IntegrityError, when `accept` refuses them all.
    """
    failed: IntegrityError | None = None
    try:
        return accept(store.get_bytes(key, limit))
    except ObjectMissing as error:
        failed = IntegrityError(error.message, subject=key)
    except TooLarge as error:
        failed = IntegrityError(error.message, subject=key)
    except IntegrityError as error:
        failed = error
    for version in older(store.versions(key.rpartition("/")[0] + "/"), key):
        try:
            found = accept(store.get_bytes(key, limit, version.version))
        except (ObjectMissing, TooLarge, IntegrityError):
            continue
        problems.append(f"{key}: its newest version is not the one that was stored; an older one is used")
        return found
    raise failed


def committed_manifests(store: Store, service: str, host: str, generation: str) -> set[str]:
    """Digests of the manifests that versions of COMMIT name: one, unless somebody meddled with it.

    Raises ObjectMissing when there is no COMMIT.
    """
    key = layout.generation(service, host, generation) + layout.COMMIT
    found = set()
    with contextlib.suppress(ObjectMissing, TooLarge):
        found.add(store.get_bytes(key, _COMMIT_LIMIT))
    for version in older(store.versions(layout.generation(service, host, generation)), key):
        with contextlib.suppress(ObjectMissing, TooLarge):
            found.add(store.get_bytes(key, _COMMIT_LIMIT, version.version))
    if not found:
        raise ObjectMissing(f"is missing on target {store.name}", subject=key)
    return {data.decode("ascii", "replace").strip() for data in found}


def older(versions: Iterator[Version], key: str) -> list[Version]:
    """The versions of an object that are not its newest, oldest first; the original is the first of them."""
    found = [item for item in versions if item.key == key and item.version and not item.latest and not item.marker]
    return found[::-1][:_MOST_VERSIONS]


def listing(store: Store, *places: str) -> dict[str, list[Version]]:
    """The versions of all objects below these prefixes by their keys, as the store lists them; no delete markers."""
    found: dict[str, list[Version]] = {}
    for place in places:
        for version in store.versions(place):
            if not version.marker:
                found.setdefault(version.key, []).append(version)
    return found


def require_listed(
    expected: Mapping[str, Collection[int]], there: Mapping[str, Sequence[Version]], target: str
) -> dict[str, list[Version]]:
    """The versions of each object that have a size it may have: the newest first, then the oldest, stored first.

    Args:
        expected: sizes in bytes by key.
        there: what the store lists.
        target: its name, for the error.

    Raises IntegrityError naming the first object that is missing or has another size.
    """
    fitting = {}
    for key, sizes in expected.items():
        if not there.get(key):
            raise IntegrityError(
                f"is missing on target {target}",
                subject=key,
                untouched="everything",
                remedy="take this generation from another target, or an older one: fluxmaint generations lists them",
            )
        found = [version for version in there[key] if version.size in sizes]
        if not found:
            said = ", ".join(map(str, sizes))
            raise IntegrityError(f"has {there[key][0].size} bytes, the manifest says {said}", subject=key)
        fitting[key] = [found[0], *found[:0:-1]]
    return fitting


def listed(opened: Opened, *, cache: bool) -> dict[str, list[Version]]:
    """What its store lists of a generation and, where that is wanted, of the cache files of all generations."""
    return listing(opened.store, opened.prefix, *([opened.base + "cache/"] if cache else []))


def stored_sizes(opened: Opened, parts: Sequence[Part], cache: Sequence[CacheFile]) -> dict[str, list[int]]:
    """By key, the sizes in bytes that the objects of these parts and cache files may have."""
    expected = {opened.prefix + part.object: [part.stored.bytes] for part in parts}
    expected.update({opened.base + item.object: [form.bytes for form in item.stored] for item in cache})
    return expected


def require_whole(opened: Opened, there: Mapping[str, Sequence[Version]] | None = None, *, target: str = "") -> None:
    """Raise IntegrityError unless every object of a generation is listed with the size that its manifest says.

    Args:
        there: what a store lists of it and of the cache; its own store is asked when it is not given.
        target: the name of that store.
    """
    manifest = opened.manifest
    if there is None:
        there = listed(opened, cache=bool(manifest.cache))
    expected = stored_sizes(opened, manifest.parts, manifest.cache)
    expected[opened.prefix + manifest.instructions.object] = [manifest.instructions.bytes]
    require_listed(expected, there, target or opened.store.name)


def _open(store: Store, service: str, host: str, identity: str, allowed_signers_file: Path, signer: str) -> Opened:
    prefix = layout.generation(service, host, identity)
    problems: list[str] = []

    def committed(data: bytes) -> tuple[bytes, bytes, str]:
        digest = data.decode("ascii", "replace").strip()

        def whole(manifest: bytes) -> bytes:
            if hashlib.sha256(manifest).hexdigest() != digest:
                raise IntegrityError(
                    "is not the manifest that was committed: its SHA-256 is not the one in COMMIT",
                    subject=prefix + layout.MANIFEST,
                    expected=digest,
                    received=hashlib.sha256(manifest).hexdigest(),
                )
            return manifest

        manifest = read_version(store, prefix + layout.MANIFEST, whole, limit=MANIFEST_LIMIT, problems=problems)

        def signed(signature: bytes) -> tuple[bytes, str]:
            key = crypto.verify(
                manifest,
                signature,
                allowed_signers_file=allowed_signers_file,
                signer=signer,
                namespace=crypto.MANIFEST_NAMESPACE,
                subject=prefix + layout.SIGNATURE,
            )
            return signature, key

        signature, key = read_version(
            store, prefix + layout.SIGNATURE, signed, limit=_SIGNATURE_LIMIT, problems=problems
        )
        return manifest, signature, key

    commit = prefix + layout.COMMIT
    try:
        data, signature, key = read_version(store, commit, committed, limit=_COMMIT_LIMIT, problems=problems)
    except IntegrityError as error:
        if error.subject != commit or store.exists(commit) or older(store.versions(prefix), commit):
            raise
        raise IntegrityError(
            "is missing: this generation was never completed, it is no backup",
            subject=commit,
            untouched="everything",
            remedy="choose a committed generation",
        ) from None
    manifest = Manifest.from_bytes(data, subject=prefix + layout.MANIFEST)
    meant, said = (service, host, identity), (manifest.service, manifest.host, manifest.id)
    if meant != said:
        raise IntegrityError(
            f"is the manifest of {'/'.join(said)}, put in the place of {'/'.join(meant)}",
            subject=prefix + layout.MANIFEST,
        )
    return Opened(store, prefix, layout.base(service, host), manifest, data, signature, key, problems)
