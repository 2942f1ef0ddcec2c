# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All targets at a glance: which generations there are, how old, on which targets, and who has proven them when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.clock import Clock
from ..core.config import Config
from ..core.errors import EngineError, IntegrityError, StoreError
from ..core.human import age_text, size_text, table_lines
from ..store.base import Store
from ..store.open import open_store
from . import catalog, layout, proof
from .opening import open_generation, require_whole


def overview(
    config: Config,
    *,
    target: str = "",
    service: str = "",
    host: str = "",
    verify_proofs: bool = False,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """What the configured targets hold.

    Args:
        target: only this one; all when empty.
        service, host: whose generations; those of the configuration when empty.
        verify_proofs: believe nothing that is not signed: count a generation as proven only when the signature of a
            proof is good, and as committed only when its manifest is. Reads the proofs, and on each target manifests
            from the newest on until one verifies and its objects are there, and then those of proven ones until one
            does; those before it are suspect, whatever proofs they once had.

    Returns:
        `targets` with the state of each; `generations` newest first, each once with the `targets` that hold it
        (`missing_on` lists those in reach that do not; `orphan_on` and `suspect_on` those whose copy is no backup);
        `newest` and `newest_proven`: the ids of the newest committed and newest proven generation on any target, empty
        when there is none. What claims to come from the future is neither: it would look fresh for ever.

    Raises:
        StoreError: no target could be reached.
    """
    clock = clock or Clock()
    now = clock.now()
    backup = config.require_backup()
    service, host = service or config.service, host or config.host
    signer = backup.signer if (service, host) == (config.service, config.host) else f"{service}@{host}"
    chosen = [backup.target(target)] if target else list(backup.targets)
    targets: dict[str, Any] = {}
    found: list[dict[str, Any]] = []
    for one in chosen:
        try:
            store = open_store(one, clock)
            store.check()
            listed = catalog.list_generations(store, service, host)
            held = [
                {**item.as_dict(), "target": one.name, "age_s": round(item.age_s(now)), "error": ""} for item in listed
            ]
            if verify_proofs:
                _believe_signatures(store, listed, held, service, host, backup.allowed_signers_file, signer)
        except EngineError as error:
            targets[one.name] = {"reachable": False, "error": str(error), **_summary([])}
            continue
        targets[one.name] = {"reachable": True, "error": "", **_summary(held)}
        found += held
    if not any(state["reachable"] for state in targets.values()):
        errors = "; ".join(state["error"] for state in targets.values())
        raise StoreError(f"no target can be reached: {errors}", subject=", ".join(targets), targets=targets)
    generations = merged(found, [name for name, state in targets.items() if state["reachable"]])
    summary = _summary(generations)
    return {
        "service": service,
        "host": host,
        "targets": targets,
        "generations": generations,
        "newest": summary["newest"],
        "newest_proven": summary["newest_proven"],
        "problems": [
            *(f"target {name}: {state['error']}" for name, state in targets.items() if state["error"]),
            *(suspicion(item) for item in generations if item["suspect_on"]),
        ],
    }


def merged(found: Iterable[dict[str, Any]], reachable: list[str]) -> list[dict[str, Any]]:
    """One entry for each generation, newest first, from what each target holds of it."""
    by_id: dict[str, list[dict[str, Any]]] = {}
    for item in found:
        by_id.setdefault(item["id"], []).append(item)
    generations = []
    for _identity, copies in sorted(by_id.items(), reverse=True):
        whole = [item for item in copies if item["state"] == catalog.COMMITTED]
        told = {key: value for key, value in (whole or copies)[0].items() if key != "target"}
        holding = [item["target"] for item in whole]
        told["proven_by"] = sorted({name for item in whole for name in item["proven_by"]})
        told["proven_at"] = max((item["proven_at"] for item in whole), default="") if told["proven_by"] else ""
        generations.append(
            {
                **told,
                "targets": holding,
                "orphan_on": [item["target"] for item in copies if item["state"] == catalog.ORPHAN],
                "suspect_on": [item["target"] for item in copies if item["state"] == catalog.SUSPECT],
                "error": next((item["error"] for item in copies if item["error"]), ""),
                "missing_on": [name for name in reachable if name not in holding],
            }
        )
    return generations


def table(facts: dict[str, Any]) -> str:
    """The result of `overview` as text for people: one line for each generation."""
    rows = [("generation", "kind", "age", "size", "on", "proven")]
    rows += [
        (
            item["id"],
            item["kind"],
            age_text(item["age_s"]),
            size_text(item["bytes"]),
            _places(item),
            f"{item['proven_at']} by {', '.join(item['proven_by'])}" if item["proven_by"] else "never",
        )
        for item in facts["generations"]
    ]
    lines = table_lines(rows)
    if len(rows) == 1:
        lines.append("no generation")
    lines.append(f"newest: {facts['newest'] or 'none'}, newest proven: {facts['newest_proven'] or 'never'}")
    return "\n".join([*lines, *facts["problems"]])


def _places(item: dict[str, Any]) -> str:
    if not item["targets"]:
        found = {"incomplete on": item["orphan_on"], "does not verify on": item["suspect_on"]}
        return "; ".join(f"{what} {', '.join(names)}" for what, names in found.items() if names) + ": no backup"
    missing = f" (not on {', '.join(item['missing_on'])})" if item["missing_on"] else ""
    return ", ".join(item["targets"]) + missing


def suspicion(item: Mapping[str, Any]) -> str:
    """What is wrong with a generation that does not verify, for people."""
    places = ", ".join(item["suspect_on"])
    return f"generation {item['id']} on {places} does not verify and does not count: {item['error']}"


def _believe_signatures(
    store: Store,
    listed: Sequence[catalog.GenerationInfo],
    held: Sequence[dict[str, Any]],
    service: str,
    host: str,
    signers: Path,
    signer: str,
) -> None:
    """Correct in `held` what a listing says: who has proven what, and that what looks newest is a backup."""
    for item, facts in zip(listed, held):
        if item.proven_by and item.state == catalog.COMMITTED:
            proofs = proof.verified(store, service, host, item.id, allowed_signers_file=signers)
            facts["proven_by"] = sorted({str(found["verifier"]) for found in proofs})
            facts["proven_at"] = max((str(found["proven_at"]) for found in proofs), default="")
    good = False
    for item, facts in zip(listed, held):
        if item.state != catalog.COMMITTED or is_future(facts) or (good and not facts["proven_by"]):
            continue
        proven = facts["proven_by"]
        try:
            require_whole(open_generation(store, service, host, item.id, allowed_signers_file=signers, signer=signer))
        except IntegrityError as error:
            facts.update(state=catalog.SUSPECT, error=str(error), proven_by=[], proven_at="")
        else:
            good = True
            if proven:
                return  # older ones make nothing look fresher or better proven than it is


def is_future(item: Mapping[str, Any]) -> bool:
    """Whether a generation claims to be further ahead than clocks that are kept in time can be."""
    return bool(item["age_s"] < -layout.FUTURE.total_seconds())


def _summary(generations: list[dict[str, Any]]) -> dict[str, Any]:
    committed = [item for item in generations if item["state"] == catalog.COMMITTED]
    true = [item for item in committed if not is_future(item)]
    return {
        "committed": len(committed),
        "orphans": sum(item["state"] == catalog.ORPHAN for item in generations),
        "suspect": sum(item["state"] == catalog.SUSPECT for item in generations),
        "newest": max((item["id"] for item in true), default=""),
        "newest_proven": max((item["id"] for item in true if item["proven_by"]), default=""),
    }
