# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a recovery refuses, and what it brings back: rehearsed on a bare host while production trades on.

Runs on the lab's hosts, against the real store, with the playbooks of the installed artifact.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import hosts, names
from tests.lab.drill import (
    STORE_PORT,
    DrillError,
    newest_backup,
    on_host,
    playbook,
    query,
    sample,
    status_of,
    wait_for,
)
from tests.lab.drill_report import Phase, Sample
from tests.lab.offsite import Offsite, tunnel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.drill_report import Report

RELEASE_LINK = "/opt/fluxhero/current"
TRACES = "ls -lA /opt /etc /etc/systemd/system /usr/local/bin /var/lib; dpkg-query -W"
MORE_TRADES = 100


@dataclass
class Generations:
    """The manifests of a full generation and of the daily one after it, with trades between them."""

    full: dict[str, Any]
    daily: dict[str, Any]


@dataclass
class Refusal:
    """What a recovery said that was not to be, and the bare host before and after it."""

    message: str
    before: str
    after: str


@dataclass
class Rehearsal:
    """The report of a rehearsed recovery, and production before it."""

    report: dict[str, Any]
    production: Sample


def trades_of(manifest: dict[str, Any]) -> int:
    [database] = manifest["databases"]
    return int(database["tables"]["trades"]["rows"])


def back_up(kind: str) -> dict[str, Any]:
    """Take a generation of production; returns its manifest."""
    playbook("backup", Phase("backup", 0), target="production", backup_kind=kind)
    with tunnel("store", STORE_PORT) as port:
        return Offsite(port, "production", newest_backup("production"), "reader").manifest()


@pytest.fixture(scope="module")
def generations(lab: Report) -> Iterator[Generations]:
    hosts.create(["standby"], fresh=True)
    full = back_up("full")
    wait_for("more trades", lambda: sample("production").trades > trades_of(full) + MORE_TRADES, 30)
    yield Generations(full, back_up("daily"))
    hosts.destroy(["standby"])


@pytest.fixture(scope="module")
def refusal(generations: Generations) -> Refusal:
    before = on_host("standby", TRACES)
    with pytest.raises(DrillError) as caught:
        playbook("disaster_recovery", Phase("recover", 0))
    return Refusal(str(caught.value), before, on_host("standby", TRACES))


@pytest.fixture(scope="module")
def rehearsal(refusal: Refusal) -> Rehearsal:
    file = names.LAB / "dr_drill.json"
    file.unlink(missing_ok=True)
    production = sample("production")
    playbook("dr_drill", Phase("rehearse", 0), dr_drill_report_file=str(file))
    return Rehearsal(json.loads(file.read_text(encoding="utf-8")), production)


def test_d76_no_recovery_while_production_may_trade(refusal: Refusal) -> None:
    assert "production answers, and its units run or are enabled" in refusal.message
    assert refusal.after == refusal.before


def test_d12_the_newest_data_comes_back_on_every_day(rehearsal: Rehearsal, generations: Generations) -> None:
    """A daily generation is as good as a full one: what was written since the last full one is not lost."""
    assert (generations.full["kind"], generations.daily["kind"]) == ("full", "daily")
    assert (rehearsal.report["result"], rehearsal.report["generation_id"]) == ("ok", generations.daily["id"])
    assert rehearsal.report["digests_equal"] is True
    trades = trades_of(generations.daily)
    assert trades > trades_of(generations.full) + MORE_TRADES
    assert query("standby", "SELECT count(*) FROM trades") == [trades]
    # Production goes on to write, but not to these rows.
    rows = f"SELECT count(*), max(timestamp), total(quantity * price) FROM trades WHERE id <= {trades}"
    assert query("standby", rows) == query("production", rows)


def test_d75_the_code_is_the_release_that_ran(rehearsal: Rehearsal, generations: Generations) -> None:
    release = generations.full["release"]
    assert rehearsal.report["code_generation_id"] == generations.full["id"]
    assert on_host("standby", "readlink", "-f", RELEASE_LINK).strip() == release["directory"]
    assert on_host("standby", "cat", f"{RELEASE_LINK}/REVISION").strip() == release["revision"]
    code = f"cd {release['directory']} && find fluxhero -name '*.py' | sort | xargs sha256sum"
    assert on_host("standby", code) == on_host("production", code)


def test_d76_a_rehearsal_leaves_production_trading_and_does_not_trade(rehearsal: Rehearsal) -> None:
    production, standby = sample("production"), sample("standby")
    assert status_of("production")["trading"] == "active"
    assert production.trades > rehearsal.production.trades + MORE_TRADES
    assert status_of("standby")["trading"] == "halted"
    wait_for("the rehearsal's heartbeat", lambda: sample("standby").heartbeat > standby.heartbeat + 1, 10)
    assert sample("standby").trades == standby.trades
    assert sample("production").trades > production.trades


def test_a_rehearsal_makes_no_backups(rehearsal: Rehearsal) -> None:
    assert rehearsal.report["result"] == "ok"
    assert "fluxmaint" not in on_host("standby", "systemctl", "list-timers", "--all", "--no-pager")
    assert "fluxmaint-backup" in on_host("production", "systemctl", "list-timers", "--all", "--no-pager")


def test_a_rehearsal_leaves_no_secrets_behind(rehearsal: Rehearsal) -> None:
    assert rehearsal.report["result"] == "ok"
    assert on_host("standby", "ls", "-A", "/var/lib/fluxmaint/staged") == ""
    assert "identity" not in on_host("standby", "ls", "-A", "/run/fluxmaint")
