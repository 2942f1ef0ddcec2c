# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a store holds: generations, committed or not, and who has proven them. Listings only, nothing is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..core.clock import parse_utc, utc_text
from ..core.errors import InputError
from ..store.base import Store
from . import layout

COMMITTED = "committed"
ORPHAN = "orphan"


@dataclass(frozen=True)
class GenerationInfo:
    """One generation, as far as a listing tells.

    Attributes:
        state: `committed`, or `orphan` when COMMIT is missing: then it is no backup.
        proven_by: verifiers that left a proof; `proof.verified` checks the signatures.
        proven_at: when the newest of those proofs was written, UTC; empty when there is none.
        bytes: size of its own objects; cache files are shared and not counted.
    """

    id: str
    kind: str
    state: str
    started_at: str
    bytes: int
    objects: int
    proven_by: list[str] = field(default_factory=list)
    proven_at: str = ""

    def age_s(self, now: datetime) -> float:
        """Seconds since it was started."""
        return (now - parse_utc(self.started_at)).total_seconds()

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {**self.__dict__}


def list_generations(store: Store, service: str, host: str) -> list[GenerationInfo]:
    """Every generation of a host in a store, newest first. One listing for each thousand objects."""
    prefix = layout.generations(service, host)
    objects: dict[str, dict[str, int]] = {}
    for item in store.list(prefix):
        identity, _separator, name = item.key[len(prefix) :].partition("/")
        if layout.is_id(identity) and name:
            objects.setdefault(identity, {})[name] = item.size
    proofs: dict[str, list[tuple[str, str]]] = {}
    for identity, at, verifier in _proofs(store, service, host):
        proofs.setdefault(identity, []).append((at, verifier))
    return [
        GenerationInfo(
            id=identity,
            kind="full" if any(name.startswith("system.") for name in names) else "daily",
            state=COMMITTED if layout.COMMIT in names else ORPHAN,
            started_at=utc_text(layout.id_time(identity)),
            bytes=sum(names.values()),
            objects=len(names),
            proven_by=sorted({verifier for _at, verifier in proofs.get(identity, [])}),
            proven_at=max((at for at, _verifier in proofs.get(identity, [])), default=""),
        )
        for identity, names in sorted(objects.items(), reverse=True)
    ]


def choose(store: Store, service: str, host: str, generation: str, before: datetime | None = None) -> str:
    """The id that is meant: one given, `latest`, or the newest that was started before a time.

    Raises InputError when there is no committed generation that fits.
    """
    if generation not in ("", "latest"):
        layout.id_time(generation)
        return generation
    committed = [item for item in list_generations(store, service, host) if item.state == COMMITTED]
    fitting = [item for item in committed if before is None or layout.id_time(item.id) < before]
    if not fitting:
        when = f" before {utc_text(before)}" if before else ""
        raise InputError(
            f"target {store.name} has no committed generation of {service} on {host}{when}",
            subject=layout.generations(service, host),
        )
    return fitting[0].id


def _proofs(store: Store, service: str, host: str) -> Iterator[tuple[str, str, str]]:
    prefix = layout.proofs(service, host)
    for item in store.list(prefix):
        identity, _separator, name = item.key[len(prefix) :].partition("/")
        stamp, _separator, verifier = name.partition("-")
        written = f"{stamp}-000000"
        if layout.is_id(identity) and layout.is_id(written) and verifier.endswith(".json"):
            yield identity, utc_text(layout.id_time(written)), verifier[: -len(".json")]
