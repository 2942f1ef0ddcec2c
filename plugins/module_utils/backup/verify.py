# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a verifier does unattended: prove the newest generation of each host, and some older ones at random.

`choose_first` and `choose_older` decide; `run` acts, and leaves for `status` what it has found. A generation that
failed its proof stays in the status until it is proven after all, or is gone.
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ..core.clock import Clock, parse_utc, utc_text
from ..core.config import Config, Origin, Verify
from ..core.errors import (
    EngineError,
    InputError,
    IntegrityError,
    PreconditionError,
    StoreError,
    as_engine_error,
)
from ..core.fsio import read_json, write_json
from ..core.journal import Journal, Operation
from ..core.lease import Lease
from ..core.progress import Report
from ..core.run import require_tool
from ..core.run import run as run_command
from ..store.base import Store
from ..store.open import open_store
from . import catalog, layout, proof, recipients
from .fetch import open_generation

FORMAT = 1
EVIDENCE = "evidence"  # directory of this host's copies of its proofs
PROVEN, FAILED, UNREADABLE, UNREACHABLE, UNFINISHED = "proven", "failed", "unreadable", "unreachable", "unfinished"


@dataclass(frozen=True)
class Candidate:
    """A committed generation: when it was started, and when it was last proven (None: never)."""

    id: str
    started_at: datetime
    proven_at: datetime | None = None


def choose_first(candidates: Sequence[Candidate], now: datetime) -> list[str]:
    """What to prove first, in the order in which to try until one holds.

    The generations that were never proven, newest first, and after them the newest that was. Those whose ids lie in
    the future come last: they must not keep the true ones from being proven.
    """
    ordered = sorted(candidates, key=lambda item: (item.started_at, item.id), reverse=True)
    here = [item for item in ordered if not _ahead(item, now)]
    unproven = [item.id for item in here if item.proven_at is None]
    proven = [item.id for item in here if item.proven_at is not None]
    return unproven + proven[:1] + [item.id for item in ordered if _ahead(item, now)]


def choose_older(candidates: Sequence[Candidate], now: datetime, draw: random.Random) -> list[str]:
    """All candidates in random order; the longer ago one was proven, or made when it never was, the sooner it comes.

    Each comes first with a probability in proportion to that time: nothing is left out for ever.
    """

    def key(item: Candidate) -> float:
        weight = max((now - (item.proven_at or item.started_at)).total_seconds(), 1.0)
        # Of exponential times with these rates, the shortest is the weighted draw.
        return -math.log(1.0 - draw.random()) / weight

    keyed = [(key(item), item.id) for item in sorted(candidates, key=lambda item: item.id)]
    return [identity for _key, identity in sorted(keyed)]


def _ahead(item: Candidate, now: datetime) -> bool:
    return item.started_at > now + layout.FUTURE


def run(
    config: Config,
    *,
    hosts: Sequence[str] = (),
    generation: str = "",
    older: int | None = None,
    seed: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
    clock: Clock | None = None,
    journal: Journal | None = None,
    progress: Report | None = None,
) -> dict[str, Any]:
    """Prove generations of every configured host; the failure of one does not stop the others.

    Args:
        hosts: only these; all when empty.
        generation: only this one; the newest and random older ones when empty.
        older: how many beside the newest; that of the configuration when None.
        seed: of the random choice; it is in the result, so that a choice can be repeated.
        stopped: tells whether the process was asked to end; what fails then says nothing about a generation.

    Returns:
        `result` (`ok`, `degraded`, `failed`), the `exit_code` that says the same, `outcomes` (one for each generation
        that was tried), `origins` (what is known of each host's generations), `failed` (every generation that does not
        hold, of earlier runs too) and `problems`.

    Raises:
        LeaseError: another verification runs.
    """
    clock = clock or Clock()
    settings = config.require_verify()
    unknown = sorted(set(hosts) - {origin.host for origin in settings.origins})
    if unknown:
        known = ", ".join(origin.host for origin in settings.origins)
        raise InputError(f"this host does not verify {', '.join(unknown)}; it verifies {known}")
    origins = [origin for origin in settings.origins if origin.host in hosts or not hosts]
    if generation and len(origins) != 1:
        raise InputError("say of which host the generation is", subject=generation)
    _require_identity(settings)
    with Lease(config.run_dir / "verify.lock", purpose="verify", clock=clock):
        verification = _Verification(config, settings, seed, stopped, clock, journal, progress)
        if journal is None:
            return verification.run(origins, generation, older)
        with journal.operation("verify", target=settings.target.name, verifier=settings.verifier) as operation:
            report = verification.run(origins, generation, older)
            _tell(operation, report)
            return report


def status(config: Config, clock: Clock | None = None) -> dict[str, Any] | None:
    """What the last verification on this host has found; None on a host that verifies nothing.

    `result` is `never` when there has been none; `age_s` says how long ago it ended.
    """
    if config.verify is None:
        return None
    path = _state_file(config)
    if not path.exists():
        return {"verifier": config.verify.verifier, "result": "never", "failed": [], "problems": [], "origins": []}
    report: dict[str, Any] = read_json(path)
    age = (clock or Clock()).now() - parse_utc(report["finished_at"])
    return {**report, "age_s": round(age.total_seconds())}


class _Verification:
    """One run over all hosts."""

    def __init__(
        self,
        config: Config,
        settings: Verify,
        seed: int | None,
        stopped: Callable[[], bool],
        clock: Clock,
        journal: Journal | None,
        progress: Report | None,
    ) -> None:
        self.config = config
        self.settings = settings
        self.stopped = stopped
        self.clock = clock
        self.journal = journal
        self.progress = progress
        self.seed = secrets.randbits(32) if seed is None else seed
        self.draw = random.Random(self.seed)  # noqa: S311 - a sample, not a secret
        self.begun = clock.monotonic()
        self.outcomes: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.identities: set[str] = set()

    def run(self, chosen: Sequence[Origin], generation: str, older: int | None) -> dict[str, Any]:
        """All newest ones first, then older ones, host by host in turn."""
        started = self.clock.now()
        proof.sweep(self.settings.work_dir, self.clock)
        self.identities = _own_fingerprints(self.settings.identity_file)
        store = open_store(
            self.settings.target, self.clock, write_credentials_file=self.settings.proof_credentials_file
        )
        origins = [_Origin(self, store, item) for item in chosen]
        for origin in origins:
            origin.look()
        for origin in origins:
            if generation:
                origin.prove(generation, "asked for")
            else:
                origin.prove_first()
        if not generation:
            self._prove_older(origins, self.settings.older if older is None else older)
        self._forget(started)
        facts = [origin.facts() for origin in origins]
        report = {
            "format": FORMAT,
            "verifier": self.settings.verifier,
            "target": self.settings.target.name,
            "started_at": utc_text(started),
            "finished_at": utc_text(self.clock.now()),
            "duration_s": round(self.clock.monotonic() - self.begun, 3),
            "seed": self.seed,
            "outcomes": self.outcomes,
            "origins": facts,
            "failed": self._still_failed(origins),
            "problems": self.problems,
        }
        code = exit_code(report)
        report.update(exit_code=code, result={0: "ok", 3: "degraded"}.get(code, "failed"))
        write_json(_state_file(self.config), report, 0o640)
        return report

    def left_s(self) -> float:
        """Seconds of the budget that are left."""
        return self.settings.budget_s - (self.clock.monotonic() - self.begun)

    def _prove_older(self, origins: Sequence[_Origin], count: int) -> None:
        draws = [(origin, origin.older()) for origin in origins]
        for turn in range(count):
            for origin, draw in draws:
                if self.left_s() <= 0:
                    self.problems.append(
                        f"{origin.name}: the time was up after {self.settings.budget_s:g} s,"
                        f" {count - turn} older generations wait for another run"
                    )
                else:
                    next(draw, None)

    def _forget(self, now: datetime) -> None:
        """Old copies of proofs; the proofs themselves are in the store, as long as their generations."""
        evidence = self.config.state_dir / EVIDENCE
        try:
            proof.forget_evidence(evidence, now - timedelta(days=self.settings.evidence_days))
        except OSError as error:
            self.problems.append(f"old evidence cannot be removed: {as_engine_error(error)}")

    def _still_failed(self, origins: Sequence[_Origin]) -> list[dict[str, Any]]:
        """Failures of this run, and earlier ones that nothing has cleared since."""
        path = _state_file(self.config)
        earlier = read_json(path)["failed"] if path.exists() else []
        now = {_name(item): item for item in self.outcomes}
        there = {origin.name: origin.ids() for origin in origins}
        kept = []
        for item in earlier:
            outcome = now.get(_name(item))
            ids = there.get(f"{item['service']}/{item['host']}")
            settled = outcome is not None and outcome["result"] in (PROVEN, FAILED)
            gone = ids is not None and item["generation"] not in ids
            if not settled and not gone:
                kept.append(item)
        new = [item for item in self.outcomes if item["result"] == FAILED]
        first_seen = {_name(item): item["since"] for item in earlier}
        kept += [
            {
                **{key: item[key] for key in ("service", "host", "generation", "error")},
                "since": first_seen.get(_name(item), item["at"]),
            }
            for item in new
        ]
        return sorted(kept, key=_name)


class _Origin:
    """The generations of one host, as this run finds them."""

    def __init__(self, verification: _Verification, store: Store, origin: Origin) -> None:
        self.verification = verification
        self.store = store
        self.origin = origin
        self.name = f"{origin.service}/{origin.host}"
        self.candidates: dict[str, Candidate] | None = None
        self.tried: set[str] = set()
        self.unreadable = 0

    def ids(self) -> set[str] | None:
        """Ids of the committed generations; None when the target did not say."""
        return None if self.candidates is None else set(self.candidates)

    def look(self) -> None:
        """List what is there, and when each was last proven. Proofs without a good signature are none."""
        candidates: dict[str, Candidate] = {}
        try:
            self.store.check()
            listed = catalog.list_generations(self.store, self.origin.service, self.origin.host)
        except StoreError as error:
            self.verification.problems.append(f"{self.name}: {error}")
            return
        for item in listed:
            if item.state == catalog.COMMITTED:
                proven = self._last_proof(item.id) if item.proven_by else None
                candidates[item.id] = Candidate(item.id, layout.id_time(item.id), proven)
        self.candidates = candidates
        now = self.verification.clock.now()
        self.verification.problems += [
            f"{self.name}: generation {item.id} claims to come from the future"
            for item in candidates.values()
            if _ahead(item, now)
        ]
        if not candidates:
            self.verification.problems.append(f"{self.name}: there is no committed generation to prove")

    def _last_proof(self, generation: str) -> datetime | None:
        """When it was last proven. What cannot be read is no proof, and must not hide the other generations."""
        signers = self.verification.settings.allowed_signers_file
        try:
            found = proof.newest_verified(
                self.store, self.origin.service, self.origin.host, generation, allowed_signers_file=signers
            )
            return parse_utc(found["proven_at"]) if found else None
        except EngineError as error:
            if self.verification.stopped():
                raise
            self.verification.problems.append(f"{self.name}: the proofs of {generation} cannot be read: {error}")
            return None

    def prove_first(self) -> None:
        """Prove the newest generation that was never proven; one that does not hold makes way for the next."""
        verification = self.verification
        order = choose_first(list((self.candidates or {}).values()), verification.clock.now())
        for place, identity in enumerate(order):
            if verification.left_s() <= 0:
                verification.problems.append(f"{self.name}: the time was up before {identity} was proven")
                return
            result = self.prove(identity, "next newest" if place else "newest")
            if result == UNREADABLE and identity != self.facts()["newest"]:
                self._pass_over()
            elif result not in (FAILED, UNREACHABLE) or not self._answers():
                return

    def older(self) -> Iterator[str]:
        """Prove one more older generation each time it is asked for one."""
        rest = [item for item in (self.candidates or {}).values() if item.id not in self.tried]
        now = self.verification.clock.now()
        order = choose_older([item for item in rest if not _ahead(item, now)], now, self.verification.draw)
        for identity in order:
            if self.prove(identity, "older") == UNREADABLE:
                self._pass_over()
            else:
                yield identity

    def _pass_over(self) -> None:
        """An old generation, made before this verifier had its key, is no fault: another one takes its turn."""
        self.verification.outcomes.pop()
        self.unreadable += 1

    def _answers(self) -> bool:
        """Whether the target is there, so that a failure was about one generation."""
        try:
            self.store.check()
        except StoreError:
            return False
        return True

    def prove(self, generation: str, reason: str) -> str:
        """Prove one generation, and note the outcome whatever it is; returns its result."""
        clock = self.verification.clock
        self.tried.add(generation)
        outcome: dict[str, Any] = {
            "service": self.origin.service,
            "host": self.origin.host,
            "generation": generation,
            "reason": reason,
            "result": PROVEN,
            "at": utc_text(clock.now()),
        }
        begun = clock.monotonic()
        try:
            self._require_readable(generation)
            proven = self._proof(generation)
        except Exception as caught:  # whatever it is, the other generations have their turn
            if self.verification.stopped():
                raise
            error = as_engine_error(caught)
            outcome.update(result=_result_of(error), error=error.as_dict())
        else:
            kept = ("written_back", "write_back_error", "key", "evidence_file", "bytes", "files", "proven_at")
            outcome.update({name: proven[name] for name in kept})
            # Proven all the same, and somebody must look: what was stored has been overwritten or hidden.
            self.verification.problems += [f"{self.name}: {problem}" for problem in proven["problems"]]
            if proven["written_back"] and self.candidates is not None:
                proven_at = parse_utc(proven["proven_at"])
                self.candidates[generation] = Candidate(generation, layout.id_time(generation), proven_at)
        outcome["duration_s"] = round(clock.monotonic() - begun, 3)
        self.verification.outcomes.append(outcome)
        return str(outcome["result"])

    def _require_readable(self, generation: str) -> None:
        """Raise _Unreadable for a sound generation that is not encrypted to this verifier."""
        settings = self.verification.settings
        opened = open_generation(
            self.store,
            self.origin.service,
            self.origin.host,
            generation,
            allowed_signers_file=settings.allowed_signers_file,
            signer=self.origin.signer,
        )
        if not self.verification.identities & set(opened.manifest.recipients):
            raise _Unreadable(
                f"is not encrypted to this verifier's key {settings.identity_file}",
                subject=opened.prefix,
                remedy="add its public key to the recipients; what was made before that stays unreadable to it",
            )

    def _proof(self, generation: str) -> dict[str, Any]:
        verification = self.verification
        settings = verification.settings
        return proof.prove(
            self.store,
            self.origin.service,
            self.origin.host,
            generation,
            identity_file=settings.identity_file,
            allowed_signers_file=settings.allowed_signers_file,
            signer=self.origin.signer,
            work_dir=settings.work_dir,
            verifier=settings.verifier,
            signing_key_file=settings.signing_key_file,
            evidence_dir=verification.config.state_dir / EVIDENCE,
            timeout_s=max(verification.left_s(), 1.0),
            clock=verification.clock,
            journal=verification.journal,
            progress=verification.progress,
        )

    def facts(self) -> dict[str, Any]:
        """What is known of this host's generations after the run; ages in seconds, None: there is none."""
        now = self.verification.clock.now()
        found = [item for item in (self.candidates or {}).values() if not _ahead(item, now)]
        proven = [item for item in found if item.proven_at is not None]
        newest, newest_proven = _newest(found), _newest(proven)
        return {
            "service": self.origin.service,
            "host": self.origin.host,
            "reachable": self.candidates is not None,
            "generations": len(found),
            "never_proven": len(found) - len(proven),
            "unreadable": self.unreadable,
            "newest": newest.id if newest else "",
            "newest_age_s": round((now - newest.started_at).total_seconds()) if newest else None,
            "newest_proven": newest_proven.id if newest_proven else "",
            "newest_proven_age_s": round((now - newest_proven.started_at).total_seconds()) if newest_proven else None,
        }


class _Unreadable(PreconditionError):
    """A sound generation that this verifier's identity cannot decrypt."""


def exit_code(report: dict[str, Any]) -> int:
    """5: a generation did not hold; 6: the target was away; 1: nothing was proven; 3: not all is well; 0: it is."""
    results = [item["result"] for item in report["outcomes"]]
    if FAILED in results:
        return IntegrityError.exit_code
    if any(not origin["reachable"] for origin in report["origins"]) or UNREACHABLE in results:
        return StoreError.exit_code
    if PROVEN not in results:
        return EngineError.exit_code
    complete = all(item["result"] == PROVEN and item["written_back"] for item in report["outcomes"])
    asked = any(item["reason"] == "asked for" for item in report["outcomes"])
    newest = all(origin["newest"] and origin["newest"] == origin["newest_proven"] for origin in report["origins"])
    return 0 if complete and (asked or newest) and not report["problems"] and not report["failed"] else 3


def text(report: dict[str, Any]) -> str:
    """The result of `run` for people."""
    lines = [f"verification on {report['verifier']} from target {report['target']}: {report['result']}"]
    for item in report["outcomes"]:
        name = f"  {item['host']} {item['generation']} ({item['reason']}): {item['result']}"
        if item["result"] != PROVEN:
            lines.append(f"{name}: {item['error']['subject']} {item['error']['message']}")
        elif not item["written_back"]:
            lines.append(f"{name}, but the proof is not in the store and counts nowhere: {item['write_back_error']}")
        else:
            lines.append(f"{name}, {item['bytes']} bytes in {item['duration_s']:.1f} s")
    lines += [
        f"  DOES NOT HOLD since {item['since']}: {_name(item)}: {item['error']['message']}" for item in report["failed"]
    ]
    lines += [f"  problem: {problem}" for problem in report["problems"]]
    lines += [
        f"  {item['service']}/{item['host']}: newest {item['newest'] or 'none'},"
        f" newest proven {item['newest_proven'] or 'never'},"
        f" {item['never_proven']} of {item['generations']} never proven"
        for item in report["origins"]
    ]
    return "\n".join(lines)


def _result_of(error: EngineError) -> str:
    kinds: list[tuple[type[EngineError], str]] = [
        (_Unreadable, UNREADABLE),
        (IntegrityError, FAILED),
        (StoreError, UNREACHABLE),
    ]
    # A lack of time or space says nothing about the generation.
    return next((result for kind, result in kinds if isinstance(error, kind)), UNFINISHED)


def _tell(operation: Operation, report: dict[str, Any]) -> None:
    operation.result = report["result"]
    operation.evidence = {key: report[key] for key in ("exit_code", "seed", "problems", "origins")}
    operation.evidence["outcomes"] = [
        {key: item[key] for key in ("service", "host", "generation", "reason", "result")} for item in report["outcomes"]
    ]
    operation.evidence["failed"] = [_name(item) for item in report["failed"]]


def _require_identity(settings: Verify) -> None:
    path = settings.identity_file
    if not path.is_file():
        raise PreconditionError("is missing: the verifier has no identity", subject=str(path))
    if path.stat().st_mode & 0o077:
        raise PreconditionError("can be read by others", subject=str(path), remedy="set its mode to 0600")


def _own_fingerprints(identity_file: Path) -> set[str]:
    done = run_command([require_tool("age-keygen", "age"), "-y", str(identity_file)], timeout_s=30)
    return {recipients.fingerprint(line.strip()) for line in done.text.splitlines() if line.strip()}


def _newest(items: Sequence[Candidate]) -> Candidate | None:
    return max(items, key=lambda item: (item.started_at, item.id), default=None)


def _name(item: dict[str, Any]) -> str:
    return f"{item['service']}/{item['host']}/{item['generation']}"


def _state_file(config: Config) -> Path:
    return config.state_dir / "verify.json"
