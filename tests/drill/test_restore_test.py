# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The monthly restore test on staging, and what it refuses: with the playbooks of the installed artifact."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.lab.drill import (
    VERIFIER_KEY,
    DrillError,
    back_up,
    on_host,
    playbook,
    prove,
    query,
    sample,
    status_of,
    wait_for,
)
from tests.lab.drill_report import Phase

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.drill_report import Report

FIRST_TRADE = "SELECT min(timestamp) FROM trades"
LEFT = "ls -A /var/lib/fluxmaint/restore-points /var/lib/fluxmaint/staged"
NO_SUCH = "20200101T000000Z-000000"


@pytest.fixture(scope="module")
def proven(lab: Report) -> str:
    """A generation of production that staging has proven."""
    back_up(Phase("backup", 0), lab)
    prove(Phase("prove", 0), lab, VERIFIER_KEY)
    return lab.generation_id


def test_d23_staging_runs_on_productions_data_and_then_on_its_own_again(proven: str, tmp_path: Path) -> None:
    first = query("staging", FIRST_TRADE)
    settings = on_host("staging", "sha256sum", "/opt/fluxhero/.env")
    assert first != query("production", FIRST_TRADE)
    playbook("restore_test", Phase("test", 0), restore_test_report_dir=str(tmp_path))
    [file] = tmp_path.glob("restore-test-*.json")
    assert file.with_name(f"{file.name}.sig").exists()
    evidence = json.loads(file.read_text(encoding="utf-8"))
    assert (evidence["result"], evidence["problems"]) == ("passed", [])
    assert (evidence["generation"], evidence["proven_by"]) == (proven, ["staging"])
    assert (evidence["source_host"], evidence["host"]) == ("production", "staging")
    assert evidence["restored"]["digests_equal"] and evidence["restored"]["content_digests_equal"]
    rows = evidence["restored"]["tables"]["trades"]["rows"]
    checks = evidence["checks"]
    assert checks["databases"]["trades"]["rows"]["trades"] == rows["trades"] > 0, "halted, as the manifest says"
    assert [item["name"] for item in checks["conditions"] if item["ok"]] == ["liveness", "websocket", "frontend"]
    assert "newest" in checks["databases"]["trades"]["queries"]
    assert evidence["configuration_unchanged"] is True
    assert evidence["afterwards"] == "the host's own data is back"
    # Its own data and settings, trading on paper, and nothing of production.
    assert query("staging", FIRST_TRADE) == first
    assert on_host("staging", "sha256sum", "/opt/fluxhero/.env") == settings
    assert status_of("staging")["trading"] != "halted"
    trades = sample("staging").trades
    wait_for("staging trades on paper", lambda: sample("staging").trades > trades, 20)
    assert proven not in on_host("staging", LEFT)
    assert on_host("staging", "find /var/lib/fluxmaint/restore-points -name '*.db'") == ""


def test_a_test_that_fails_says_so_and_leaves_evidence(proven: str, tmp_path: Path) -> None:
    assert proven != NO_SUCH
    first = query("staging", FIRST_TRADE)
    with pytest.raises(DrillError, match=NO_SUCH):
        playbook(
            "restore_test",
            Phase("test", 0),
            restore_test_generation=NO_SUCH,
            restore_test_report_dir=str(tmp_path),
        )
    [file] = tmp_path.glob("restore-test-*.json")
    evidence = json.loads(file.read_text(encoding="utf-8"))
    assert evidence["result"] == "failed"
    assert "COMMIT" in evidence["problems"][0]
    assert query("staging", FIRST_TRADE) == first


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"target": "production"}, "is in the group production"),
        ({"restore_test_source_host": "staging"}, "the backups of staging are its own"),
        ({"restore_test_paper_setting": "TRADING_MODE=live"}, "could trade for real"),
        ({"restore_test_include": ["config"]}, "restore_test_include"),
    ],
)
def test_what_could_trade_for_real_is_refused(lab: Report, variables: dict[str, object], said: str) -> None:
    assert lab.scenario
    without_journal = "ls -I '*-journal' /opt/fluxhero/data"  # it is there during a commit only
    looked = f"sha256sum /opt/fluxhero/.env; {without_journal}; systemctl show -p MainPID fluxhero-backend"
    host = str(variables.get("target", "staging"))
    before = on_host(host, looked)
    with pytest.raises(DrillError, match=said):
        playbook("restore_test", Phase("test", 0), **variables)
    assert on_host(host, looked) == before
