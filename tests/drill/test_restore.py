"""The playbooks that a drill does not run, from the installed artifact: look at the backups, restore in place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.lab import names
from tests.lab.drill import HALT_FILE, back_up, on_host, playbook, sample, status_of, wait_for
from tests.lab.drill_report import Phase

if TYPE_CHECKING:
    from tests.lab.drill_report import Report


def test_the_generation_is_listed(lab: Report) -> None:
    back_up(Phase("backup", 0), lab)
    playbook("backup_info", Phase("look", 0), target="production")
    assert lab.generation_id in (names.LOGS / "drill-backup_info.log").read_text(encoding="utf-8")


def test_production_goes_back_to_its_backup_and_trades_on_when_told(lab: Report) -> None:
    back_up(Phase("backup", 0), lab)
    wait_for("trades after the backup", lambda: sample("production").trades > 0, 10)
    written = sample("production").trades
    playbook(
        "restore",
        Phase("restore", 0),
        restore_generation=lab.generation_id,
        restore_identity_file=str(names.KEYS / "age" / "operator.key"),
    )
    last = json.loads(on_host("production", "fluxmaint", "journal", "--operation", "restore", "--limit", "1", "--json"))
    [end] = last["entries"]
    assert (end["event"], end["result"], end["digests_equal"]) == ("end", "ok", True)
    assert end["generation_id"] == lab.generation_id
    assert status_of("production")["trading"] == "halted"
    assert sample("production").trades < written
    on_host("production", "rm", HALT_FILE)
    restored = sample("production").trades
    wait_for("trading after the restore", lambda: sample("production").trades > restored, 30)
