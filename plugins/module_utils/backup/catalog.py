# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a store holds: generations, committed or not, and who has proven them. Listings only, nothing is read.

Committed is what has a COMMIT, whoever put it there; whether that is a backup, a reader has to find out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ..core.clock import Clock, parse_utc, utc_text
from ..core.errors import InputError
from ..store.base import Store
from . import layout

COMMITTED = "committed"
ORPHAN = "orphan"
SUSPECT = "suspect"
SKEW = timedelta(minutes=10)  # between clocks that are kept in time


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
        return dict(self.__dict__)


def list_generations(store: Store, service: str, host: str) -> list[GenerationInfo]:
    """Every generation of a host in a store, newest first. One listing for each thousand objects.

    What a delete marker hides is still there. Nothing is believed of what is listed but that it is there.
    """
    prefix = layout.generations(service, host)
    objects: dict[str, dict[str, int]] = {}
    for item in store.versions(prefix):
        identity, _separator, name = item.key[len(prefix) :].partition("/")
        if layout.is_id(identity) and name and not item.marker:
            objects.setdefault(identity, {}).setdefault(name, item.size)
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


@dataclass(frozen=True)
class Candidates:
    """Ids of committed generations that may be the latest, best first, and of all that are from the future.

    Attributes:
        future: newest first; those less than a day ahead are among `ids` too, at their end.
    """

    ids: list[str]
    future: list[str]


def candidates(
    store: Store, service: str, host: str, *, before: datetime | None = None, now: datetime | None = None
) -> Candidates:
    """The committed generations in the order in which to take them for `latest`.

    A host's clock that was ahead once must not keep an old generation the latest for ever: what lies in the future
    comes after everything else, the nearest first, and more than a day ahead it does not come at all.
    """
    now = now or Clock().now()
    committed = [item.id for item in list_generations(store, service, host) if item.state == COMMITTED]
    fitting = [identity for identity in committed if before is None or layout.id_time(identity) < before]
    ahead = [identity for identity in fitting if layout.id_time(identity) > now + SKEW]
    past = [identity for identity in fitting if identity not in ahead]
    near = [identity for identity in ahead[::-1] if layout.id_time(identity) <= now + layout.FUTURE]
    return Candidates(past + near, ahead)


def nothing_fits(
    store: Store, service: str, host: str, before: datetime | None, future: Sequence[str] = ()
) -> InputError:
    """The error when no committed generation can be the latest."""
    when = f" before {utc_text(before)}" if before else ""
    ahead = f"; from the future are {', '.join(future)}" if future else ""
    return InputError(
        f"target {store.name} has no committed generation of {service} on {host}{when}{ahead}",
        subject=layout.generations(service, host),
        remedy="look at the clocks of this machine and of the host" if future else "",
    )


def _proofs(store: Store, service: str, host: str) -> Iterator[tuple[str, str, str]]:
    prefix = layout.proofs(service, host)
    for item in store.versions(prefix):
        identity, _separator, name = item.key[len(prefix) :].partition("/")
        found = layout.proof_parts(name)
        if found is not None and not item.marker and layout.is_id(identity):
            yield identity, utc_text(found[0]), found[1]
