# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill measured, as evidence that a program reads and a table that a person reads."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .steps import say

if TYPE_CHECKING:
    from collections.abc import Iterator

RTO_TARGET_S = 2 * 3600
RPO_TARGET_S = 24 * 3600


@dataclass
class Phase:
    """One part of the drill: duration in seconds, and whether it counts towards the recovery time.

    `afterwards` are those of its parts that began when the service was up: they do not count.
    """

    name: str
    seconds: float
    recovery: bool = False
    log: str = ""
    parts: list[dict[str, Any]] = field(default_factory=list)
    afterwards: list[dict[str, Any]] = field(default_factory=list)

    @property
    def recovery_s(self) -> float:
        """What of it counts towards the recovery time, in seconds."""
        return self.seconds - sum(part["seconds"] for part in self.afterwards) if self.recovery else 0.0


@dataclass
class Sample:
    """What the service's database held at one moment: the last heartbeat number, the number of trades."""

    at: str
    heartbeat: int
    trades: int


@dataclass
class Report:
    """Everything that a drill measured, filled in as it goes; `failure` says why it stopped."""

    scenario: str
    started_at: str
    phases: list[Phase] = field(default_factory=list)
    generation_id: str = ""
    before: Sample | None = None
    restored: Sample | None = None
    digests: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: dict[str, str] = field(default_factory=dict)
    proof: dict[str, Any] = field(default_factory=dict)
    failure: str = ""

    @contextmanager
    def phase(self, name: str, *, recovery: bool = False, log: str = "") -> Iterator[Phase]:
        """Announce and time one phase; it is recorded even when it fails."""
        say(f"==> {name}")
        phase = Phase(name, 0.0, recovery, log)
        self.phases.append(phase)
        started = time.monotonic()
        try:
            yield phase
        finally:
            phase.seconds = round(time.monotonic() - started, 1)
            say(f"    {phase.seconds:.1f} s")

    @property
    def rto_s(self) -> float | None:
        """Seconds from the loss of the host until the service was checked from outside."""
        return round(sum(phase.recovery_s for phase in self.phases), 1) if self.restored else None

    @property
    def rpo_s(self) -> int | None:
        """Seconds of data lost: the service writes one numbered heartbeat a second."""
        return self.before.heartbeat - self.restored.heartbeat if self.before and self.restored else None

    @property
    def rows_lost(self) -> int | None:
        """Trades that were written before the loss and are not in the restored database."""
        return self.before.trades - self.restored.trades if self.before and self.restored else None

    @property
    def digests_equal(self) -> bool | None:
        """Whether each table's content has the digest that the manifest gives; None when nothing was compared."""
        return all(row["equal"] for row in self.digests.values()) if self.digests else None

    @property
    def result(self) -> str:
        """`passed` only when everything was measured, is as it should be, and within its target."""
        measured = self.rto_s is not None and self.rpo_s is not None and self.rows_lost is not None
        within = measured and 0 <= (self.rto_s or 0) <= RTO_TARGET_S and 0 <= (self.rpo_s or 0) <= RPO_TARGET_S
        healthy = bool(self.checks) and all(value.startswith("ok") for value in self.checks.values())
        good = within and (self.rows_lost or 0) >= 0 and healthy and self.digests_equal is True and not self.failure
        return "passed" if good else "failed"

    def evidence(self) -> dict[str, Any]:
        """The record that goes to the evidence file."""
        return {
            "scenario": self.scenario,
            "result": self.result,
            "failure": self.failure,
            "started_at": self.started_at,
            "generation_id": self.generation_id,
            "rto_s": self.rto_s,
            "rto_target_s": RTO_TARGET_S,
            "rpo_s": self.rpo_s,
            "rpo_target_s": RPO_TARGET_S,
            "rows_lost": self.rows_lost,
            "digests_equal": self.digests_equal,
            "digests": self.digests,
            "before": asdict(self.before) if self.before else None,
            "restored": asdict(self.restored) if self.restored else None,
            "proof": self.proof,
            "checks": self.checks,
            "total_s": round(sum(phase.seconds for phase in self.phases), 1),
            "phases": [asdict(phase) for phase in self.phases],
        }

    def table(self) -> str:
        """The phases and the verdict for a terminal."""
        rows = [(phase.name, phase.seconds, phase.recovery) for phase in self.phases]
        for index, phase in reversed(list(enumerate(self.phases))):
            parts = [(f"  {part['name']}", part["seconds"], False) for part in phase.parts]
            parts += [(f"  (the service is up) {part['name']}", part["seconds"], False) for part in phase.afterwards]
            rows[index + 1 : index + 1] = parts
        width = max([len(row[0]) for row in rows] + [20])
        lines = [f"{'phase':{width}}  seconds", "-" * (width + 9)]
        lines += [f"{name:{width}}  {seconds:7.1f}{'  *' if counts else ''}" for name, seconds, counts in rows]
        lines += ["-" * (width + 9), f"{'total':{width}}  {sum(phase.seconds for phase in self.phases):7.1f}", ""]
        lines += [
            f"recovery time (*)    {_seconds(self.rto_s)}   target {_seconds(RTO_TARGET_S)}",
            f"data lost            {_seconds(self.rpo_s)}   target {_seconds(RPO_TARGET_S)}",
            f"trades lost          {'not measured' if self.rows_lost is None else self.rows_lost}",
            f"content digests      {_digests(self.digests)}",
        ]
        lines += [f"{name:20} {value}" for name, value in self.checks.items()]
        lines += [f"generation           {self.generation_id or 'none'}", f"result               {self.result.upper()}"]
        if self.failure:
            lines.append(f"why                  {self.failure}")
        return "\n".join(lines)


def _seconds(value: float | None) -> str:
    if value is None:
        return "not measured"
    minutes, seconds = divmod(round(value), 60)
    return f"{value:g} s" if value < 120 else f"{value:g} s ({minutes} min {seconds} s)"


def _digests(digests: dict[str, dict[str, Any]]) -> str:
    if not digests:
        return "not compared"
    wrong = [name for name, row in digests.items() if not row["equal"]]
    return f"differ: {', '.join(wrong)}" if wrong else f"equal to the manifest's ({len(digests)} tables)"
