# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which generations to keep: a pure function of what there is, the policy and the time.

It looks at one target at a time. Kept are all generations of the last days, and of the older ones one of each of the
newest weeks and one of each of the newest months that have any: a proven one before others, a full one before daily
ones, and of those the newest. Weeks and months are counted by what is there, not by the calendar: when backups stop,
the old ones stay. They are counted apart, so that what was deleted is never missed as time goes on and new ones come.

Three things stand above the policy. The newest generation, the newest full one, and of each kind the newest proven
one are never deleted. Nothing is deleted unless a newer generation is proven and held by enough targets. And what
the store itself retains is a fact: it is kept, with the time until which, and comes back then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ..core.clock import utc_text
from ..core.config import Retention
from . import layout


@dataclass(frozen=True)
class Held:
    """A committed generation that a target holds, as far as retention is concerned.

    Attributes:
        proven: a verifier's signed proof of this very manifest was found.
        copies: how many targets hold it, committed; this one included.
        retained_until: until when the store refuses to delete it; None when it does not, or nobody has asked.
    """

    id: str
    kind: str = "daily"
    proven: bool = False
    copies: int = 1
    retained_until: datetime | None = None

    @property
    def at(self) -> datetime:
        """When it was started."""
        return layout.id_time(self.id)


@dataclass(frozen=True)
class Decision:
    """What happens to one generation, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Every generation is in exactly one of the lists, newest first.

    `locked` are those that would be deleted if the store did not retain them.
    """

    keep: list[Decision] = field(default_factory=list)
    delete: list[Decision] = field(default_factory=list)
    locked: list[Decision] = field(default_factory=list)

    def kept(self) -> set[str]:
        """Ids of what stays, for whatever reason."""
        return {decision.id for decision in (*self.keep, *self.locked)}

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {name: [vars(item) for item in getattr(self, name)] for name in ("keep", "delete", "locked")}


def plan(generations: Iterable[Held], policy: Retention, now: datetime, *, copies_needed: int = 1) -> Plan:
    """Decide about every committed generation of one target.

    Args:
        now: UTC.
        copies_needed: by how many targets a newer proven generation must be held before anything is deleted: two, or
            one where there is only one target.
    """
    held = sorted({item.id: item for item in generations}.values(), key=lambda item: item.id, reverse=True)
    future = [item for item in held if item.at > now + layout.FUTURE]
    present = [item for item in held if item.at <= now + layout.FUTURE]
    reasons = {item.id: "claims to come from the future: look at it" for item in future}
    for identity, reason in (*_always(present), *_recent(present, policy, now), *_sparse(present, policy, now)):
        reasons.setdefault(identity, reason)
    safe = next((item for item in present if item.proven and item.copies >= copies_needed), None)
    result = Plan()
    for item in held:
        if item.id in reasons:
            result.keep.append(Decision(item.id, reasons[item.id]))
        elif safe is None or item.at >= safe.at:
            where = "two targets" if copies_needed == 2 else f"{copies_needed} target{'s'[: copies_needed != 1]}"
            result.keep.append(Decision(item.id, f"no newer generation is proven and held by {where}"))
        elif item.retained_until is not None and item.retained_until > now:
            result.locked.append(Decision(item.id, f"retained until {utc_text(item.retained_until)}"))
        else:
            result.delete.append(Decision(item.id, "older than the policy keeps"))
    return result


def _always(present: Sequence[Held]) -> list[tuple[str, str]]:
    """The anchors: data is restored from the newest of any kind, code from the newest full one."""
    wanted: list[tuple[str, Callable[[Held], bool]]] = [
        ("the newest proven one", lambda item: item.proven),
        ("the newest one", lambda item: True),
        ("the newest proven full one", lambda item: item.proven and item.kind == "full"),
        ("the newest full one", lambda item: item.kind == "full"),
    ]
    found = [(next((item for item in present if fits(item)), None), reason) for reason, fits in wanted]
    return [(item.id, reason) for item, reason in found if item is not None]


def _recent(present: Sequence[Held], policy: Retention, now: datetime) -> list[tuple[str, str]]:
    return [(item.id, f"of the last {policy.keep_days} days") for item in present if not _is_old(item, policy, now)]


def _sparse(present: Sequence[Held], policy: Retention, now: datetime) -> list[tuple[str, str]]:
    """One of each week and one of each month, independent of each other: so what is deleted is never wanted later."""
    old = [item for item in present if _is_old(item, policy, now)]
    weeks = list(_buckets(old, lambda item: item.at.strftime("%G-W%V")).items())[: policy.keep_weekly]
    months = list(_buckets(old, lambda item: item.at.strftime("%Y-%m")).items())[: policy.keep_monthly]
    return [(_best(items).id, f"of the week {name}") for name, items in weeks] + [
        (_best(items).id, f"of the month {name}") for name, items in months
    ]


def _is_old(item: Held, policy: Retention, now: datetime) -> bool:
    return now - item.at > timedelta(days=policy.keep_days)


def _buckets(items: Sequence[Held], name: Callable[[Held], str]) -> dict[str, list[Held]]:
    found: dict[str, list[Held]] = {}
    for item in items:
        found.setdefault(name(item), []).append(item)
    return found


def _best(items: Sequence[Held]) -> Held:
    return max(items, key=lambda item: (item.proven, item.kind == "full", item.id))
