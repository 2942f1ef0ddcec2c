# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The word for the state of the backups, and what a person reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fluxmaint.backup.overview import merged, suspicion, table
from fluxmaint.core.errors import PreconditionError
from fluxmaint.core.journal import Journal
from fluxmaint.core.lease import Lease
from fluxmaint.service import backup_status

ID = "20261123T020000Z-7f3a2c"
OLDER = "20261122T020000Z-aaaaaa"
ENTRY = {"id": ID, "kind": "daily", "age_s": 14400, "bytes": 1500, "state": "committed", "proven_by": ["staging"]}
ENTRY |= {"suspect_on": [], "error": ""}


VACUUM = {"database": "trades", "path": "/data/trades.db", "way": "stopped", "step": "placing"}
VACUUM |= {"units": ["a.service"], "since": "2026-11-22T03:00:01Z"}
COPY = {"path": "/data/.fluxmaint-upkeep/trades.db.before", "bytes": 2_000_000, "kept": False}


def upkeep(running: bool = False, unfinished: Any = None, *files: dict[str, Any]) -> dict[str, Any]:
    return {"running": running, "unfinished": unfinished, "files": list(files)}


def facts(**changes: Any) -> dict[str, Any]:
    """A host whose backups are well; `changes` replace facts."""
    target = {"reachable": True, "error": "", "committed": 2, "orphans": 0, "newest": ID, "newest_proven": ID}
    return {
        "service": "fluxhero",
        "host": "production",
        "result": "ok",
        "reasons": [],
        "time": "2026-11-23T06:00:00Z",
        "last_backup": {"id": ID, "time": "2026-11-23T02:01:00Z", "result": "ok"},
        "newest": ID,
        "newest_age_s": 14400,
        "newest_proven": ID,
        "newest_proven_age_s": 14400,
        "newest_proven_at": "2026-11-23T04:00:00Z",
        "newest_proven_by": ["staging"],
        "max_age_s": 26 * 3600.0,
        "max_proven_age_s": 50 * 3600.0,
        "schedule": [{"kind": "daily", "at": "2026-11-24T02:00:00Z"}],
        "due_by": "2026-11-24T04:00:00Z",
        "targets": {"offsite": target, "local": dict(target)},
        "generations": [
            {
                **ENTRY,
                "proven_at": "2026-11-23T04:00:00Z",
                "targets": ["local", "offsite"],
                "orphan_on": [],
                "missing_on": [],
                "suspect_on": [],
                "error": "",
            }
        ],
        "lost": {},
        "lease": None,
        "unfinished_restore": None,
        "running_restore": False,
        "held_units": [],
        "upkeep": upkeep(),
        "makes_backups": True,
        "verification": None,
        **changes,
    }


def target(**changes: Any) -> dict[str, Any]:
    return {"offsite": {**facts()["targets"]["offsite"], **changes}, "local": facts()["targets"]["local"]}


FAILED_PROOF = {"host": "production", "generation": OLDER, "error": {"message": "damaged"}}


def run(**changes: Any) -> dict[str, Any]:
    """What a verifier has found."""
    found = {"result": "ok", "finished_at": "2026-11-23T04:10:00Z", "age_s": 6600, "failed": [], "problems": []}
    return {**found, **changes}


def test_a_verifier_that_makes_no_backups_is_judged_by_its_proofs_alone() -> None:
    seen = facts(makes_backups=False, last_backup=None, targets={}, newest="", newest_proven="", verification=run())
    assert backup_status.judge(seen) == []
    assert "verification   ok, 2026-11-23T04:10:00Z, 110 min ago" in backup_status.text(seen)


def test_all_well_has_no_reason() -> None:
    assert backup_status.judge(facts()) == []
    assert backup_status.worst([]) == "ok"


@pytest.mark.parametrize(
    ("changes", "word", "code"),
    [
        ({"last_backup": None}, "degraded", "never_backed_up"),
        ({"last_backup": {"time": "t", "result": "failed"}}, "failed", "last_backup_failed"),
        ({"last_backup": {"time": "t", "result": "degraded"}}, "degraded", "last_backup_degraded"),
        ({"last_backup": {"time": "t", "result": "interrupted"}}, "failed", "last_backup_interrupted"),
        ({"newest_age_s": 26 * 3600 + 1}, "overdue", "backup_overdue"),
        ({"newest_proven_age_s": 50 * 3600 + 1}, "overdue", "proof_overdue"),
        ({"newest_proven": "", "newest_proven_age_s": None}, "degraded", "never_proven"),
        ({"targets": target(reachable=False, error="gone")}, "degraded", "target_away_offsite"),
        ({"targets": target(committed=0, newest="")}, "degraded", "target_empty_offsite"),
        ({"targets": target(newest=OLDER)}, "degraded", "target_behind_offsite"),
        ({"targets": {"offsite": target(reachable=False)["offsite"]}}, "failed", "no_target"),
        ({"generations": [{**ENTRY, "age_s": -3 * 86400}]}, "degraded", f"future_{ID}"),
        ({"generations": [{**ENTRY, "state": "suspect", "suspect_on": ["local"]}]}, "degraded", f"suspect_{ID}"),
        ({"lost": {"local": [OLDER, ID]}}, "degraded", "generations_lost_local"),
        ({"newest_age_s": -601}, "degraded", "newest_ahead"),
        ({"unfinished_restore": "r1"}, "failed", "restore_unfinished"),
        ({"unfinished_restore": "r1", "running_restore": True}, "degraded", "restore_running"),
        ({"held_units": ["a.service"]}, "failed", "units_held"),
        ({"upkeep": upkeep(False, VACUUM, COPY)}, "failed", "upkeep_unfinished"),
        ({"upkeep": upkeep(False, {"error": "not JSON"})}, "failed", "upkeep_unfinished"),
        ({"upkeep": upkeep(False, None, COPY)}, "degraded", "upkeep_left"),
        ({"upkeep": upkeep(False, None, {**COPY, "kept": True})}, "failed", "upkeep_damaged"),
        ({"upkeep": upkeep(True, VACUUM, COPY), "held_units": ["a.service"]}, "degraded", "upkeep_running"),
        ({"verification": {"result": "never"}}, "degraded", "never_verified"),
        ({"verification": run(failed=[FAILED_PROOF], result="failed")}, "failed", f"proof_failed_{OLDER}"),
        ({"verification": run(result="degraded", problems=["x"])}, "degraded", "verification_degraded"),
        ({"verification": run(age_s=27 * 3600)}, "overdue", "verifier_silent"),
    ],
)
def test_each_trouble_has_its_word_and_its_code(changes: dict[str, Any], word: str, code: str) -> None:
    reasons = backup_status.judge(facts(**changes))
    assert code in [reason["code"] for reason in reasons]
    assert backup_status.worst(reasons) == word


@pytest.mark.parametrize("changes", [{"newest_age_s": 26 * 3600}, {"newest_proven_age_s": 50 * 3600}])
def test_as_old_as_allowed_is_not_too_old(changes: dict[str, Any]) -> None:
    assert backup_status.judge(facts(**changes)) == []


def test_the_worst_reason_comes_first() -> None:
    reasons = backup_status.judge(facts(newest_age_s=1e6, unfinished_restore="r1", held_units=["a.service"]))
    assert [reason["severity"] for reason in reasons] == ["failed", "overdue"]
    assert "a.service" in reasons[0]["text"]
    assert "fluxmaint restore --resume" in reasons[0]["text"]


def test_upkeep_that_runs_is_no_trouble() -> None:
    assert backup_status.judge(facts(upkeep=upkeep(True, VACUUM, COPY))) == []


def test_nobody_is_told_to_lift_the_hold_of_unfinished_upkeep() -> None:
    (reason,) = backup_status.judge(facts(upkeep=upkeep(False, VACUUM, COPY), held_units=["a.service"]))
    assert reason["text"] == (
        "upkeep of trades is unfinished and holds a.service down: fluxmaint maintain --resume finishes or undoes it"
    )
    both = backup_status.judge(facts(upkeep=upkeep(False, VACUUM), held_units=["a.service"], unfinished_restore="r1"))
    assert [reason["code"] for reason in both] == ["restore_unfinished", "upkeep_unfinished"]
    assert "holds" not in both[1]["text"], "the restore holds it"


def test_a_person_reads_where_upkeep_stands() -> None:
    seen = facts(upkeep=upkeep(False, VACUUM, COPY))
    seen["reasons"] = backup_status.judge(seen)
    assert (
        "upkeep         unfinished: vacuum of /data/trades.db (stopped), placing at 2026-11-22T03:00:01Z; a.service ran"
        " before; beside it trades.db.before"
    ) in backup_status.text(seen).splitlines()
    assert "upkeep         running: vacuum" in backup_status.text(facts(upkeep=upkeep(True, VACUUM)))
    assert "upkeep         unfinished; x" in backup_status.text(facts(upkeep=upkeep(False, {"error": "x"})))
    left = backup_status.judge(facts(upkeep=upkeep(False, None, COPY)))
    assert "left 2.0 MB in /data/.fluxmaint-upkeep/trades.db.before: the next fluxmaint maintain" in left[0]["text"]
    verifier = facts(makes_backups=False, verification=run(), upkeep=upkeep(False, VACUUM))
    assert "upkeep         unfinished" in backup_status.text(verifier)


def test_what_a_person_reads() -> None:
    seen = facts(result="overdue", reasons=backup_status.judge(facts(newest_age_s=30 * 3600)))
    lines = backup_status.text(seen).splitlines()
    assert lines[:2] == [
        "fluxhero on production: OVERDUE",
        "  overdue: the newest generation is 30 h old, at most 26 h are allowed",
    ]
    assert f"newest proven  {ID}, 4 h old, proven 2026-11-23T04:00:00Z by staging" in lines
    assert "next backup    daily 2026-11-24T02:00:00Z (in 20 h); too old from 2026-11-24T04:00:00Z" in lines
    assert " ".join(lines[-1].split()) == f"{ID} daily 4 h 1.5 kB local, offsite 2026-11-23T04:00:00Z by staging"
    ahead = facts(newest_age_s=-5, newest_proven_age_s=-90000)
    ahead["generations"] = [{**item, "age_s": -5} for item in ahead["generations"]]
    told = backup_status.text(ahead)
    assert f"newest         {ID}, in the future\n" in told
    assert f"newest proven  {ID}, in the future, proven" in told
    assert f"{ID} daily in the future 1.5 kB" in " ".join(told.splitlines()[-1].split())
    never = backup_status.text(facts(newest_proven="", schedule=[], newest="", due_by="", generations=[]))
    assert "newest proven  never" in never
    assert "next backup    not scheduled by systemd" in never
    assert "no generation" in never


def test_a_generation_is_one_line_with_the_targets_that_hold_it() -> None:
    one = {"id": ID, "kind": "full", "age_s": 10, "bytes": 10, "proven_by": [], "proven_at": "", "error": ""}
    found = [
        {**one, "state": "committed", "target": "local"},
        {**one, "state": "orphan", "target": "offsite", "proven_by": ["x"], "proven_at": "2026"},
        {**one, "id": OLDER, "state": "orphan", "target": "offsite"},
        {**one, "id": OLDER, "state": "suspect", "target": "local", "error": "bad signature"},
    ]
    generations = merged(found, ["local", "offsite"])
    assert [(item["id"], item["targets"], item["orphan_on"], item["missing_on"]) for item in generations] == [
        (ID, ["local"], ["offsite"], ["offsite"]),
        (OLDER, [], ["offsite"], ["local", "offsite"]),
    ]
    assert generations[0]["proven_by"] == []  # a proof of what is not committed there counts for nothing
    lines = table({"generations": generations, "newest": ID, "newest_proven": "", "problems": []}).splitlines()
    assert len(lines) == 4
    assert "local (not on offsite)" in lines[1] and lines[1].endswith("never")
    assert "incomplete on offsite; does not verify on local: no backup" in lines[2]
    assert suspicion(generations[1]).endswith(f"{OLDER} on local does not verify and does not count: bad signature")


def test_the_schedule_is_what_systemd_says() -> None:
    listed = [
        {"next": 1795485600000000, "unit": "fluxmaint-backup@full.timer"},
        {"next": 1795399200000000, "unit": "fluxmaint-backup@daily.timer"},
        {"next": None, "unit": "fluxmaint-backup@odd.timer"},
    ]

    def runner(*_arguments: Any, **_options: Any) -> Any:
        return SimpleNamespace(text=json.dumps(listed))

    assert [item["kind"] for item in backup_status.schedule(runner)] == ["daily", "full"]
    assert backup_status.schedule(runner)[0]["at"] == "2026-11-23T02:00:00Z"


def test_without_systemd_nothing_is_scheduled() -> None:
    def missing(*_arguments: Any, **_options: Any) -> Any:
        raise PreconditionError("the command systemctl is not installed")

    assert backup_status.schedule(missing) == []
    assert backup_status.schedule(lambda *_a, **_o: SimpleNamespace(text="0 timers listed.")) == []


def _killed_backup(top: Path, script: str) -> Any:
    """A configuration whose journal a backup has written that ended with this script; SIGKILL leaves no end."""
    config = SimpleNamespace(journal_file=top / "journal.jsonl", run_dir=top)
    journal = Journal(config.journal_file)
    with journal.operation("backup") as operation:
        operation.evidence = {"id": ID}
    program = f"""
import os, sys
from pathlib import Path
import tests.conftest
from fluxmaint.core.journal import Journal
from fluxmaint.core.lease import Lease
top = Path(sys.argv[1])
with Lease(top / "backup.lock", purpose="backup"), Journal(top / "journal.jsonl").operation("backup") as operation:
    operation.step("begin")
    {script}
"""
    done = subprocess.run([sys.executable, "-c", program, str(top)], check=False, cwd=Path(__file__).parents[3])
    assert done.returncode in (0, -9)
    return config


def test_a_backup_that_was_killed_is_told(tmp_path: Path) -> None:
    config = _killed_backup(tmp_path, "os.kill(os.getpid(), 9)")
    start = [entry for entry in Journal(config.journal_file).read("backup") if entry["event"] == "start"][-1]
    assert backup_status._last_backup(config) == {"id": None, "time": start["time"], "result": "interrupted"}
    (tmp_path / "backup.lock").unlink()  # as after a boot
    assert backup_status._last_backup(config)["result"] == "interrupted"
    with Journal(config.journal_file).operation("backup") as operation:
        operation.evidence = {"id": OLDER}
    assert backup_status._last_backup(config)["id"] == OLDER, "a whole backup makes up for it"


def test_a_backup_that_runs_or_has_just_ended_is_not_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _killed_backup(tmp_path, "pass")
    journal = Journal(config.journal_file)
    with Lease(tmp_path / "backup.lock", purpose="backup"), journal.operation("backup"):
        assert backup_status._last_backup(config)["result"] == "ok"
    running = journal.append("backup", "start", operation_id="x")

    def ends_meanwhile(path: Path) -> None:
        assert path == tmp_path / "backup.lock"
        journal.append("backup", "end", "degraded", operation_id=running["operation_id"])

    monkeypatch.setattr(backup_status, "held_by", ends_meanwhile)
    assert backup_status._last_backup(config)["result"] == "degraded"
