# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a host's backups in one word, with the reasons and the facts behind it.

`judge` decides and is pure; `status` looks. Only a generation that another machine has proven counts as proven, and
only one with a good signature counts as the newest: whoever may upload can write a commit mark.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ..backup import catalog, layout, overview, restore, verify
from ..core.clock import Clock, parse_utc, utc_text
from ..core.config import MAX_AGE_S, MAX_PROVEN_AGE_S, Config
from ..core.errors import EngineError, StoreError
from ..core.human import age_text, duration_text, size_text
from ..core.journal import Journal
from ..core.lease import held_by
from ..core.run import Completed, run
from . import upkeep_job
from .units import HOLD_FILE, UNIT_DIR, SystemdService

OK, DEGRADED, OVERDUE, FAILED = "ok", "degraded", "overdue", "failed"
INTERRUPTED = "interrupted"
_WORST_LAST = (OK, DEGRADED, OVERDUE, FAILED)
_SKEW = timedelta(hours=1)  # of the clock of whoever prunes
_TIMERS = "fluxmaint-backup@*.timer"

Runner = Callable[..., Completed]


def status(config: Config, *, clock: Clock | None = None, runner: Runner = run) -> dict[str, Any]:
    """Everything a person or the monitoring wants to know about the backups of this host.

    Returns:
        JSON-serialisable facts. `result` is `ok`, `degraded` (something is missing: a target, a proof), `overdue` (the
        newest or the newest proven generation is older than allowed) or `failed` (the last backup failed, no target
        is in reach, a restore or a database's upkeep is unfinished). `reasons` says why, each with a `code` that stays
        the same while the reason lasts, a `severity` (one of these words) and a `text`. `upkeep` is what upkeep of the
        databases has left. On a verifier `verification` says what its last run has found; a host that only verifies
        has no targets and no generations of its own.

    Raises:
        ConfigError: this host neither makes nor verifies backups.
    """
    clock = clock or Clock()
    backup = config.backup if config.verify is not None else config.require_backup()
    now = clock.now()
    entries = Journal(config.journal_file).read("backup")  # before the targets are listed, which hold more by then
    held: dict[str, Any] = {"targets": {}, "generations": [], "newest": "", "newest_proven": ""}
    try:
        if backup is not None:
            held = overview.overview(config, verify_proofs=True, clock=clock)
    except StoreError as error:
        held["targets"] = error.facts.get("targets", {})
    restoring = restore.status(config)
    proven = next((item for item in held["generations"] if item["id"] == held["newest_proven"]), None)
    facts: dict[str, Any] = {
        "service": config.service,
        "host": config.host,
        "time": utc_text(now),
        "last_backup": _last_backup(config),
        "newest": held["newest"],
        "newest_age_s": _age_s(held["newest"], now),
        "newest_proven": held["newest_proven"],
        "newest_proven_age_s": _age_s(held["newest_proven"], now),
        "newest_proven_at": proven["proven_at"] if proven else "",
        "newest_proven_by": proven["proven_by"] if proven else [],
        "makes_backups": backup is not None,
        "max_age_s": backup.max_age_s if backup else MAX_AGE_S,
        "max_proven_age_s": backup.max_proven_age_s if backup else MAX_PROVEN_AGE_S,
        "schedule": schedule(runner),
        "due_by": _due_by(held["newest"], backup.max_age_s) if backup else "",
        "targets": held["targets"],
        "generations": held["generations"],
        "lost": _lost(entries, held, backup.retention.keep_days, now) if backup else {},
        "lease": held_by(config.lease_file),
        "unfinished_restore": restoring["id"] if restoring and restoring["open"] else None,
        "running_restore": held_by(config.run_dir / "restore.lease") is not None,
        "held_units": SystemdService(config, clock=clock).held(),
        "upkeep": upkeep_job.left(config),
        "verification": verify.status(config, clock),
    }
    reasons = judge(facts)
    return {"result": worst(reasons), "reasons": reasons, **facts}


def judge(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """The reasons why the backups are not as they should be, worst first; none means `ok`."""
    reasons: list[dict[str, str]] = []

    def say(severity: str, code: str, text: str) -> None:
        reasons.append({"code": code, "severity": severity, "text": text})

    if facts["unfinished_restore"] and facts["running_restore"]:
        say(DEGRADED, "restore_running", f"restore {facts['unfinished_restore']} is running")
    elif facts["unfinished_restore"]:
        what = f"restore {facts['unfinished_restore']} is unfinished"
        held = f" and holds {', '.join(facts['held_units'])} down" if facts["held_units"] else ""
        say(FAILED, "restore_unfinished", f"{what}{held}: fluxmaint restore --resume finishes or undoes it")
    elif facts["held_units"] and not facts["upkeep"]["running"] and not facts["upkeep"]["unfinished"]:
        text = f"{', '.join(facts['held_units'])} cannot start, although no restore is unfinished"
        say(FAILED, "units_held", f"{text}: remove {UNIT_DIR}/UNIT.d/{HOLD_FILE} and run systemctl daemon-reload")
    _judge_upkeep(facts["upkeep"], [] if facts["unfinished_restore"] else facts["held_units"], say)
    if facts["makes_backups"]:
        _judge_last_backup(facts, say)
        _judge_targets(facts["targets"], facts["newest"], say)
        for name, lost in facts["lost"].items():
            number = f"{len(lost)} generations that were" if len(lost) > 1 else "a generation that was"
            text = f"target {name} has lost {number} stored on it, the newest {max(lost)}: find out who deletes there"
            text += "; one that was emptied on purpose needs another name"
            say(DEGRADED, f"generations_lost_{name}", text)
        for item in facts["generations"]:
            if overview.is_future(item) and item["state"] == catalog.COMMITTED:
                say(DEGRADED, f"future_{item['id']}", f"generation {item['id']} claims to come from the future")
            if item["suspect_on"]:
                say(DEGRADED, f"suspect_{item['id']}", overview.suspicion(item))
        _judge_ages(facts, say)
    if facts["verification"]:
        _judge_verification(facts["verification"], facts["max_age_s"], say)
    return sorted(reasons, key=lambda reason: -_WORST_LAST.index(reason["severity"]))


def worst(reasons: Sequence[Mapping[str, str]]) -> str:
    """The one word for all reasons together."""
    return max((reason["severity"] for reason in reasons), key=_WORST_LAST.index, default=OK)


def _lost(
    entries: Sequence[Mapping[str, Any]], held: Mapping[str, Any], keep_days: int, now: datetime
) -> dict[str, list[str]]:
    """By target: generations that this host has stored there, that retention keeps, and that are there no more."""
    there = {name: set[str]() for name, state in held["targets"].items() if state["reachable"]}
    for item in held["generations"]:
        for name in {*item["targets"], *item["suspect_on"]} & there.keys():
            there[name].add(item["id"])
    since = now - timedelta(days=keep_days) + _SKEW
    lost: dict[str, list[str]] = {}
    for entry in entries:
        name, identity = entry.get("target"), entry.get("generation", "")
        stored = entry.get("step") == "committed" and name in there and layout.is_id(identity)
        if stored and layout.id_time(identity) > since and identity not in there[name]:
            lost.setdefault(str(name), []).append(identity)
    return lost


def _last_backup(config: Config) -> dict[str, Any] | None:
    """The last backup that is over. One that was killed, or lost its power, has begun and never ended: interrupted."""
    entries = Journal(config.journal_file).read("backup")
    begun = _without_end(entries)
    if begun is not None and held_by(config.run_dir / "backup.lock") is None:
        # It may have ended between both looks; the lock is released after the end is noted.
        entries = Journal(config.journal_file).read("backup")
        if _without_end(entries) == begun:
            return {"id": None, "time": begun["time"], "result": INTERRUPTED}
    ends = [entry for entry in entries if entry["event"] == "end"]
    return {"id": ends[-1].get("id"), "time": ends[-1]["time"], "result": ends[-1]["result"]} if ends else None


def _without_end(entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The start of the newest operation, when that has no end."""
    start = next((entry for entry in reversed(entries) if entry["event"] == "start"), None)
    if start is None:
        return None
    identity = start.get("operation_id")
    ended = any(entry["event"] == "end" and entry.get("operation_id") == identity for entry in entries)
    return None if ended else start


def _judge_last_backup(facts: Mapping[str, Any], say: Callable[[str, str, str], None]) -> None:
    last = facts["last_backup"]
    if last is None:
        say(DEGRADED, "never_backed_up", "this host has never made a backup")
    elif last["result"] == INTERRUPTED:
        text = f"the last backup, begun {last['time']}, was interrupted: it was killed or lost its power"
        say(FAILED, "last_backup_interrupted", text)
    elif last["result"] != OK:
        severity = DEGRADED if last["result"] == DEGRADED else FAILED
        say(severity, f"last_backup_{last['result']}", f"the last backup, {last['time']}, ended as {last['result']}")


def _judge_upkeep(left: Mapping[str, Any], held: Sequence[str], say: Callable[[str, str, str], None]) -> None:
    if left["running"]:
        if held:
            say(DEGRADED, "upkeep_running", f"upkeep of a database is running, for which {', '.join(held)} had to stop")
        return
    unfinished = left["unfinished"]
    if unfinished:
        remedy = "fluxmaint maintain --resume finishes or undoes it"
        down = f" and holds {', '.join(held)} down" if held else ""
        what = f"upkeep of {unfinished['database']}" if "database" in unfinished else "upkeep of a database"
        why = f" ({unfinished['error']})" if "error" in unfinished else ""
        say(FAILED, "upkeep_unfinished", f"{what} is unfinished{down}{why}: {remedy}")
    for item in left["files"]:
        if item["kept"]:
            text = f"a database was damaged after its upkeep; how it was before is in {item['path']}"
            say(FAILED, "upkeep_damaged", text)
    rest = [item for item in left["files"] if not item["kept"]]
    if rest and not unfinished:
        size = size_text(sum(item["bytes"] for item in rest))
        what = f"upkeep was interrupted and left {size} in {', '.join(item['path'] for item in rest)}"
        say(DEGRADED, "upkeep_left", f"{what}: the next fluxmaint maintain removes it")


def _judge_targets(targets: Mapping[str, Any], newest: str, say: Callable[[str, str, str], None]) -> None:
    if not any(state["reachable"] for state in targets.values()):
        say(FAILED, "no_target", "no target can be reached: what is backed up and proven is not known")
    for name, state in targets.items():
        if not state["reachable"]:
            say(DEGRADED, f"target_away_{name}", f"target {name} cannot be used: {state['error']}")
        elif not state["committed"]:
            say(DEGRADED, f"target_empty_{name}", f"target {name} holds no generation")
        elif state["newest"] != newest:
            say(DEGRADED, f"target_behind_{name}", f"target {name} lacks the newest generation")


def _judge_ages(facts: Mapping[str, Any], say: Callable[[str, str, str], None]) -> None:
    for key, limit, code, what in (
        ("newest_age_s", "max_age_s", "backup_overdue", "newest"),
        ("newest_proven_age_s", "max_proven_age_s", "proof_overdue", "newest proven"),
    ):
        age, allowed = facts[key], facts[limit]
        if age is not None and age > allowed:
            old, most = duration_text(age), duration_text(allowed)
            say(OVERDUE, code, f"the {what} generation is {old} old, at most {most} are allowed")
    if facts["newest_age_s"] is not None and facts["newest_age_s"] < -catalog.SKEW.total_seconds():
        ahead = duration_text(-facts["newest_age_s"])
        text = f"the newest generation is {ahead} ahead of this host's clock: look at the clocks"
        say(DEGRADED, "newest_ahead", text)
    if any(state["reachable"] for state in facts["targets"].values()) and not facts["newest_proven"]:
        say(DEGRADED, "never_proven", "no generation has ever been proven by restoring it on another machine")


def _judge_verification(found: Mapping[str, Any], most_s: float, say: Callable[[str, str, str], None]) -> None:
    if found["result"] == "never":
        say(DEGRADED, "never_verified", "this verifier has never proven anything")
        return
    for item in found["failed"]:
        text = f"generation {item['generation']} of {item['host']} failed its proof: {item['error']['message']}"
        say(FAILED, f"proof_failed_{item['generation']}", text)
    if found["result"] != OK and not found["failed"]:
        problems = "; ".join(found["problems"]) or "see fluxmaint journal --operation verify"
        say(DEGRADED, "verification_degraded", f"the last verification ended as {found['result']}: {problems}")
    if found["age_s"] > most_s:
        say(OVERDUE, "verifier_silent", f"this verifier has last proven something {age_text(found['age_s'], 'ago')}")


def schedule(runner: Runner = run) -> list[dict[str, str]]:
    """When systemd will make the next generations: `kind` and `at`, soonest first; empty where nothing is scheduled."""
    command = ["systemctl", "list-timers", "--all", "--output=json", "--", _TIMERS]
    try:
        listed = json.loads(runner(command, timeout_s=20, check=False).text or "[]")
        soon = [(int(item["next"]), _kind(item["unit"])) for item in listed if item["next"]]
    except (EngineError, ValueError, KeyError, TypeError):
        return []  # no systemd: then nothing is scheduled
    moments = [(datetime.fromtimestamp(at / 1e6, timezone.utc), kind) for at, kind in soon]
    return [{"kind": kind, "at": utc_text(at)} for at, kind in sorted(moments)]


def _kind(timer: str) -> str:
    return timer.partition("@")[2].partition(".")[0]


def _age_s(generation: str, now: datetime) -> int | None:
    return round((now - layout.id_time(generation)).total_seconds()) if generation else None


def _due_by(newest: str, most_s: float) -> str:
    """When the newest generation becomes too old; empty when there is none."""
    return utc_text(layout.id_time(newest) + timedelta(seconds=most_s)) if newest else ""


def text(facts: Mapping[str, Any]) -> str:
    """The facts as a person at night reads them: what is wrong, what there is, what comes next, the table."""
    now = parse_utc(facts["time"])
    lines = [f"{facts['service']} on {facts['host']}: {facts['result'].upper()}"]
    lines += [f"  {reason['severity']}: {reason['text']}" for reason in facts["reasons"]]
    if facts["upkeep"]["unfinished"]:
        lines.append(f"upkeep         {_upkeep(facts['upkeep'])}")
    if facts["verification"]:
        lines.append(f"verification   {_verification(facts['verification'])}")
    if not facts["makes_backups"]:
        return "\n".join([*lines, f"lease          {_lease(facts['lease'])}"])
    last, lease = facts["last_backup"], facts["lease"]
    proven = "never"
    if facts["newest_proven"]:
        by = f"proven {facts['newest_proven_at']} by {', '.join(facts['newest_proven_by'])}"
        proven = f"{facts['newest_proven']}, {age_text(facts['newest_proven_age_s'], 'old')}, {by}"
    newest = f"{facts['newest']}, {age_text(facts['newest_age_s'], 'old')}" if facts["newest"] else "none"
    upcoming = [_upcoming(item, now) for item in facts["schedule"]]
    due = f"; too old from {facts['due_by']}" if facts["due_by"] else ""
    lines += [
        f"newest proven  {proven}",
        f"newest         {newest}",
        f"last backup    {last['time'] + ' ' + last['result'] if last else 'never'}",
        f"next backup    {', '.join(upcoming) or 'not scheduled by systemd'}{due}",
        f"lease          {_lease(lease)}",
        "",
        overview.table({**facts, "problems": []}).rpartition("\n")[0],
    ]
    return "\n".join(lines)


def _upcoming(item: Mapping[str, str], now: datetime) -> str:
    left = (parse_utc(item["at"]) - now).total_seconds()
    return f"{item['kind']} {item['at']} ({'in ' + duration_text(left) if left >= 0 else 'due now'})"


def _upkeep(left: Mapping[str, Any]) -> str:
    """Where a vacuum stands: what a person wants to know before finishing it."""
    vacuum = left["unfinished"]
    state = "running" if left["running"] else "unfinished"
    if "error" in vacuum:
        return f"{state}; {vacuum['error']}"
    ran = f"; {', '.join(vacuum['units'])} ran before" if vacuum["units"] else ""
    where = f"vacuum of {vacuum['path']} ({vacuum['way']}), {vacuum['step']} at {vacuum['since']}{ran}"
    beside = ", ".join(Path(item["path"]).name for item in left["files"])
    return f"{state}: {where}" + (f"; beside it {beside}" if beside else "")


def _verification(found: Mapping[str, Any]) -> str:
    ended = f", {found['finished_at']}, {age_text(found['age_s'], 'ago')}" if "finished_at" in found else ""
    return f"{found['result']}{ended}"


def _lease(lease: Mapping[str, Any] | None) -> str:
    if not lease:
        return "free"
    return f"held by process {lease.get('pid')} for {lease.get('purpose')} since {lease.get('since')}"
