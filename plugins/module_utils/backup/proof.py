# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove a generation by restoring it: on another machine, from one store, into an empty directory.

A proof is a signed statement that at this time this verifier fetched and decrypted every object, repeated
every check, and computed the content digests of every table. It lies in the store beside the generation.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ..core.clock import Clock, utc_text
from ..core.errors import EngineError, InputError, IntegrityError, StoreError
from ..core.fsio import atomic_write, json_bytes, private_umask
from ..core.journal import Journal
from ..core.lease import Lease
from ..core.progress import Report
from ..sqlite import fingerprint
from ..store.base import Store
from . import crypto, layout
from .fetch import Fetched, Opened, fetch_opened, open_generation
from .opening import committed_manifests, read_version

FORMAT = 1
_PREFIX = "prove-"
_LOCK = "prove.lock"
_LIMIT = 16 << 20
_EVIDENCE = "proof-"
_ID_LENGTH = len("20261123T020000Z-7f3a2c")


def prove(
    store: Store,
    service: str,
    host: str,
    generation: str = "latest",
    *,
    identity_file: Path,
    allowed_signers_file: Path,
    signer: str,
    work_dir: Path,
    verifier: str,
    signing_key_file: Path | None = None,
    evidence_dir: Path | None = None,
    write_back: bool = True,
    timeout_s: float = 7200,
    clock: Clock | None = None,
    journal: Journal | None = None,
    progress: Report | None = None,
) -> dict[str, Any]:
    """Restore a generation from this one store, check everything, and state that in a signed proof.

    Args:
        work_dir: where it is restored to; the data is removed afterwards, whatever happens.
        verifier: name of the machine that proves.
        signing_key_file: key to sign the proof with; without it the proof is not signed and not written back.
        evidence_dir: where to keep the proof locally, too.
        write_back: put the proof into the store. When the credentials do not allow that, or the verifier is the host
            that made the generation, `written_back` is false and `write_back_error` says why.

    Returns:
        The proof, with `written_back`, `key` and `evidence_file` added, and `problems`: what is wrong with the store
        although the generation is proven, such as objects that were overwritten.

    Raises:
        IntegrityError: naming the object that is not what it should be.
    """
    clock = clock or Clock()
    if not verifier or not verifier.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise InputError(f"{verifier!r} cannot be the name of a verifier: letters, digits, '-', '_' and '.' only")
    with contextlib.ExitStack() as stack:
        operation = None
        if journal is not None:
            operation = stack.enter_context(journal.operation("prove", generation=generation, target=store.name))
        stack.enter_context(private_umask())
        work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        stack.enter_context(Lease(work_dir / _LOCK, purpose=f"prove {generation}", clock=clock))
        _remove_left(work_dir)
        started, begun = clock.now(), clock.monotonic()
        opened = open_generation(
            store, service, host, generation, allowed_signers_file=allowed_signers_file, signer=signer, clock=clock
        )
        directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{opened.manifest.id}-", dir=work_dir))
        try:
            fetched = fetch_opened(
                opened, directory, identity_file=identity_file, timeout_s=timeout_s, clock=clock, progress=progress
            )
            databases = _digests(opened, fetched, timeout_s)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        proof: dict[str, Any] = {
            "format": FORMAT,
            "generation": opened.manifest.id,
            "kind": opened.manifest.kind,
            "service": service,
            "host": host,
            "manifest_sha256": opened.manifest_sha256,
            "signed_by": opened.signing_key,
            "verifier": verifier,
            "target": store.name,
            "started_at": utc_text(started),
            "proven_at": utc_text(clock.now()),
            "duration_s": round(clock.monotonic() - begun, 3),
            "bytes": fetched.bytes,
            "files": len(fetched.files),
            "parts": opened.manifest.part_names(),
            "databases": databases,
            "result": "proven",
        }
        result = {**proof, **_keep(store, proof, clock, signing_key_file, evidence_dir, write_back)}
        result["problems"] = opened.problems
        if operation is not None:
            noted = ("generation", "verifier", "bytes", "written_back", "problems")
            operation.evidence = {key: result[key] for key in noted}
            operation.result = "degraded" if opened.problems else "ok"
        return result


def sweep(work_dir: Path, clock: Clock | None = None) -> list[str]:
    """Remove what a killed proof has left: decrypted data must not lie around. Returns what was removed.

    Raises LeaseError while a proof runs.
    """
    if not work_dir.is_dir():
        return []
    with Lease(work_dir / _LOCK, purpose="sweep", clock=clock):
        return _remove_left(work_dir)


def _remove_left(work_dir: Path) -> list[str]:
    left = sorted(work_dir.glob(f"{_PREFIX}*"))
    for directory in left:
        shutil.rmtree(directory)
    return [str(directory) for directory in left]


def verified(
    store: Store, service: str, host: str, generation: str, *, allowed_signers_file: Path
) -> list[dict[str, Any]]:
    """The proofs of a generation whose signatures are good and whose manifest is the committed one.

    A verifier signs as `<service>@<verifier>`, as every host does. Proofs that do not hold are left out, and so are
    those of the host that made the generation: whoever holds that host could make them.
    """
    return list(_verified(store, service, host, generation, allowed_signers_file))


def newest_verified(
    store: Store, service: str, host: str, generation: str, *, allowed_signers_file: Path, manifest_sha256: str = ""
) -> dict[str, Any] | None:
    """The proof with the newest name of those that `verified` gives; reads no more than it takes to find it.

    Args:
        manifest_sha256: only proofs of this manifest, which the caller knows to be the committed one.
    """
    commits = {manifest_sha256} if manifest_sha256 else None
    return next(_verified(store, service, host, generation, allowed_signers_file, commits), None)


def _verified(
    store: Store,
    service: str,
    host: str,
    generation: str,
    allowed_signers_file: Path,
    commits: Collection[str] | None = None,
) -> Iterator[dict[str, Any]]:
    # Rubbish over COMMIT, a proof or its signature must not hide what was there before it.
    if commits is None:
        commits = committed_manifests(store, service, host, generation)
    keys = {item.key for item in store.versions(f"{layout.proofs(service, host)}{generation}/") if not item.marker}

    def good(key: str, data: bytes) -> dict[str, Any]:
        try:
            found = json.loads(data)
            said = (found["generation"], found["host"], found["result"])
            verifier, manifest = str(found["verifier"]), found["manifest_sha256"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise IntegrityError("is no proof", subject=key) from None
        if said != (generation, host, "proven") or manifest not in commits or verifier == host:
            raise IntegrityError("is not a proof of this generation", subject=key)

        def signed(signature: bytes) -> dict[str, Any]:
            crypto.verify(
                data,
                signature,
                allowed_signers_file=allowed_signers_file,
                signer=f"{service}@{verifier}",
                namespace=crypto.PROOF_NAMESPACE,
                subject=key,
            )
            return dict(found)

        return read_version(store, key + ".sig", signed, limit=_LIMIT, problems=[])

    for key in sorted(keys, reverse=True):
        if key.endswith(".json"):
            with contextlib.suppress(EngineError):
                yield read_version(store, key, functools.partial(good, key), limit=_LIMIT, problems=[])


def _digests(opened: Opened, fetched: Fetched, timeout_s: float) -> dict[str, Any]:
    """Content digests of every table, equal to the manifest's where it has them."""
    databases = {}
    for record in opened.manifest.databases:
        path = fetched.database(record.name)
        digests = fingerprint.content_digests(path, immutable=True, timeout_s=timeout_s)
        compared = 0
        for name, table in record.tables.items():
            if table.sha256:
                compared += 1
                if digests[name]["sha256"] != table.sha256:
                    raise IntegrityError(
                        f"the content of table {name} is not what the manifest describes",
                        subject=opened.prefix + opened.manifest.part(f"db-{record.name}").object,
                        table=name,
                    )
        databases[record.name] = {
            "sha256": opened.manifest.part(f"db-{record.name}").sha256,
            "schema_digest": record.schema_digest,
            "tables": digests,
            "compared_with_manifest": compared,
            "invariants": len(record.invariants),
            "newest": record.newest,
        }
    return databases


def _free_key(store: Store, proof: dict[str, Any], now: datetime) -> str:
    """Where to put a proof. A killed one may have left its signature under this second's name."""
    place = (proof["service"], proof["host"], proof["generation"])
    keys = [layout.proof(*place, now + timedelta(seconds=later), proof["verifier"]) for later in range(5)]
    with contextlib.suppress(StoreError):  # the store says it again when the proof is put there
        return next((key for key in keys if not store.exists(key + ".sig")), keys[0])
    return keys[0]


def forget_evidence(evidence_dir: Path, before: datetime) -> int:
    """Remove this host's copies of proofs that were made before a time, and nothing else that lies there.

    Returns how many files were removed. Raises OSError when one cannot be.
    """
    old = []
    for file in evidence_dir.glob(f"{_EVIDENCE}*"):
        name = file.name[len(_EVIDENCE) :]
        found = layout.proof_parts(name[_ID_LENGTH + 1 :].removesuffix(".sig"))
        if found is not None and layout.is_id(name[:_ID_LENGTH]) and found[0] < before:
            old.append(file)
    for file in old:
        file.unlink()
    return len(old)


def _keep(
    store: Store,
    proof: dict[str, Any],
    clock: Clock,
    signing_key_file: Path | None,
    evidence_dir: Path | None,
    write_back: bool,
) -> dict[str, Any]:
    data = json_bytes(proof)
    signature = crypto.sign(data, signing_key_file, crypto.PROOF_NAMESPACE) if signing_key_file else b""
    key = _free_key(store, proof, clock.now())
    kept: dict[str, Any] = {"written_back": False, "write_back_error": "", "key": key, "evidence_file": ""}
    if evidence_dir is not None:
        evidence_dir.mkdir(parents=True, exist_ok=True)
        file = evidence_dir / f"{_EVIDENCE}{proof['generation']}-{Path(key).name}"
        atomic_write(file, data, 0o640)
        if signature:
            atomic_write(file.with_name(file.name + ".sig"), signature, 0o640)
        kept["evidence_file"] = str(file)
    if write_back and proof["verifier"] == proof["host"]:
        kept["write_back_error"] = "a host's proofs of its own generations do not count"
    elif write_back and not signature:
        kept["write_back_error"] = "there is no key to sign the proof with"
    elif write_back:
        try:
            store.put_new(key + ".sig", signature)  # the proof itself comes last: it counts when it is there
            store.put_new(key, data)
            kept["written_back"] = True
        except StoreError as error:
            kept["write_back_error"] = str(error)
    return kept
