# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All targets at a glance: which generations there are, how old, on which targets, and who has proven them when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..core.clock import Clock
from ..core.config import Config
from ..core.errors import EngineError, StoreError
from ..core.human import duration_text, size_text, table_lines
from ..store.base import Store
from ..store.open import open_store
from . import catalog, layout, proof


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
        verify_proofs: count a generation as proven only when the signature of a proof is good. Reads the proofs.

    Returns:
        `targets` with the state of each; `generations` newest first, each once with the `targets` that hold it
        (`missing_on` lists those in reach that do not); `newest` and `newest_proven`: the ids of the newest committed
        and newest proven generation on any target, empty when there is none. What claims to come from the future is
        neither: it would look fresh for ever.

    Raises:
        StoreError: no target could be reached.
    """
    clock = clock or Clock()
    backup = config.require_backup()
    service, host = service or config.service, host or config.host
    chosen = [backup.target(target)] if target else list(backup.targets)
    targets: dict[str, Any] = {}
    found: list[dict[str, Any]] = []
    for one in chosen:
        try:
            store = open_store(one, clock)
            store.check()
            held = [
                _described(store, item, service, host, backup.allowed_signers_file if verify_proofs else None, clock)
                for item in catalog.list_generations(store, service, host)
            ]
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
        "problems": [f"target {name}: {state['error']}" for name, state in targets.items() if state["error"]],
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
                "orphan_on": [item["target"] for item in copies if item not in whole],
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
            duration_text(item["age_s"]),
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
        return f"incomplete on {', '.join(item['orphan_on'])}: no backup"
    missing = f" (not on {', '.join(item['missing_on'])})" if item["missing_on"] else ""
    return ", ".join(item["targets"]) + missing


def _described(
    store: Store, item: catalog.GenerationInfo, service: str, host: str, signers: Path | None, clock: Clock
) -> dict[str, Any]:
    facts = {**item.as_dict(), "target": store.name, "age_s": round(item.age_s(clock.now()))}
    if signers is not None and item.proven_by and item.state == catalog.COMMITTED:
        proofs = proof.verified(store, service, host, item.id, allowed_signers_file=signers)
        facts["proven_by"] = sorted({str(found["verifier"]) for found in proofs})
        facts["proven_at"] = max((str(found["proven_at"]) for found in proofs), default="")
    return facts


def is_future(item: Mapping[str, Any]) -> bool:
    """Whether a generation claims to be further ahead than clocks that are kept in time can be."""
    return bool(item["age_s"] < -layout.FUTURE.total_seconds())


def _summary(generations: list[dict[str, Any]]) -> dict[str, Any]:
    committed = [item for item in generations if item["state"] == catalog.COMMITTED]
    true = [item for item in committed if not is_future(item)]
    return {
        "committed": len(committed),
        "orphans": len(generations) - len(committed),
        "newest": max((item["id"] for item in true), default=""),
        "newest_proven": max((item["id"] for item in true if item["proven_by"]), default=""),
    }
