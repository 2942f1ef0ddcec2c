# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All targets at a glance: which generations each holds, how old they are, and who has proven them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.clock import Clock
from ..core.config import Config
from ..core.errors import EngineError, StoreError
from ..store.base import Store
from ..store.open import open_store
from . import catalog, proof


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
        `targets` with the state of each, `generations` newest first, `newest` and `newest_proven`: the ids of the
        newest committed and newest proven generation on any target, empty when there is none.

    Raises:
        StoreError: no target could be reached.
    """
    clock = clock or Clock()
    backup = config.require_backup()
    service, host = service or config.service, host or config.host
    chosen = [backup.target(target)] if target else list(backup.targets)
    targets: dict[str, Any] = {}
    generations: list[dict[str, Any]] = []
    for one in chosen:
        try:
            store = open_store(one, clock)
            store.check()
            found = [
                _described(store, item, service, host, backup.allowed_signers_file if verify_proofs else None, clock)
                for item in catalog.list_generations(store, service, host)
            ]
        except EngineError as error:
            targets[one.name] = {"reachable": False, "error": str(error), **_summary([])}
            continue
        targets[one.name] = {"reachable": True, "error": "", **_summary(found)}
        generations += found
    if not any(state["reachable"] for state in targets.values()):
        errors = "; ".join(state["error"] for state in targets.values())
        raise StoreError(f"no target can be reached: {errors}", subject=", ".join(targets), targets=targets)
    generations.sort(key=lambda item: (item["id"], item["target"]), reverse=True)
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


def table(facts: dict[str, Any]) -> str:
    """The result of `overview` as text for people."""
    rows = [("generation", "kind", "target", "age", "size", "state", "proven by")]
    rows += [
        (
            item["id"],
            item["kind"],
            item["target"],
            _duration(item["age_s"]),
            _size(item["bytes"]),
            item["state"],
            ", ".join(item["proven_by"]) or "nobody",
        )
        for item in facts["generations"]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    if len(rows) == 1:
        lines.append("no generation")
    lines.append(f"newest: {facts['newest'] or 'none'}, newest proven: {facts['newest_proven'] or 'none'}")
    return "\n".join([*lines, *facts["problems"]])


def _described(
    store: Store, item: catalog.GenerationInfo, service: str, host: str, signers: Path | None, clock: Clock
) -> dict[str, Any]:
    facts = {**item.as_dict(), "target": store.name, "age_s": round(item.age_s(clock.now()))}
    if signers is not None and item.proven_by and item.state == catalog.COMMITTED:
        proofs = proof.verified(store, service, host, item.id, allowed_signers_file=signers)
        facts["proven_by"] = sorted({str(found["verifier"]) for found in proofs})
        facts["proven_at"] = max((str(found["proven_at"]) for found in proofs), default="")
    return facts


def _summary(generations: list[dict[str, Any]]) -> dict[str, Any]:
    committed = [item["id"] for item in generations if item["state"] == catalog.COMMITTED]
    proven = [item["id"] for item in generations if item["state"] == catalog.COMMITTED and item["proven_by"]]
    return {
        "committed": len(committed),
        "orphans": len(generations) - len(committed),
        "newest": max(committed, default=""),
        "newest_proven": max(proven, default=""),
    }


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
