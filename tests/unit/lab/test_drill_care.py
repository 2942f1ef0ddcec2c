# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The drill fails when the new host is not looked after as the lost one was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab import drill
from tests.lab.drill_report import Phase, Report

UNITS = "/etc/systemd/system"
SETTINGS = "/etc/fluxmaint"


class Hosts:
    """Two hosts that answer what the drill asks them."""

    def __init__(self) -> None:
        timers = [f"{name}.timer" for name in (*drill.CARE, "fluxmaint-maintain")]
        self.timers = {host: dict.fromkeys(timers, 1795000000000000) for host in ("production", "standby")}
        files = [f"{UNITS}/fluxmaint-rotation.service", f"{SETTINGS}/logrotate.d/files.conf"]
        self.files = {
            host: {**dict.fromkeys(files, "same"), f"{SETTINGS}/config.d/backup.json": f"of {host}"}
            for host in ("production", "standby")
        }
        self.started: list[str] = []

    def __call__(self, host: str, *argv: str) -> str:
        line = " ".join(argv)
        if "list-timers" in line:
            return json.dumps([{"unit": unit, "next": time} for unit, time in self.timers[host].items()])
        if line.startswith("sha256sum"):
            return "".join(f"{digest.replace(' ', '-')}  {path}\n" for path, digest in self.files[host].items())
        if line.startswith("systemctl start"):
            self.started.append(argv[-1])
        return "<html>"


def fetch(name: str, _phase: Phase, *, target: str, log_report_fetch_dir: str) -> None:
    """What the playbook log_report leaves."""
    folder = Path(log_report_fetch_dir) / target
    folder.mkdir(parents=True)
    (folder / f"{name}.html").write_text("<html>")


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hosts:
    found = Hosts()
    monkeypatch.setattr(drill, "on_host", found)
    monkeypatch.setattr(drill, "REPORTS", tmp_path)
    monkeypatch.setattr(drill, "playbook", fetch)
    return found


def check(report: Report) -> None:
    drill.check_care("standby", drill.care_of("production"), Phase("look", 0), report)


def test_a_host_that_is_looked_after_as_before_passes(hosts: Hosts) -> None:
    report = Report(scenario="server_failure", started_at="")
    check(report)
    assert report.checks["upkeep"] == "ok: 6 timers, units and settings as on the lost host"
    assert report.checks["log report"] == "ok: 6 bytes"
    assert hosts.started == ["fluxmaint-rotation.service", "fluxmaint-logs-read.service"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda hosts: hosts.timers["standby"].pop("fluxmaint-maintain.timer"), "fluxmaint-maintain.timer"),
        (lambda hosts: hosts.timers["standby"].update({"fluxmaint-maintain.timer": None}), "fluxmaint-maintain.timer"),
        (lambda hosts: hosts.files["standby"].pop(f"{SETTINGS}/logrotate.d/files.conf"), "logrotate.d/files.conf"),
        (lambda hosts: hosts.files["standby"].update({f"{UNITS}/fluxmaint-rotation.service": "x"}), "rotation.service"),
        (lambda hosts: [hosts.timers[host].pop("fluxmaint-log-report.timer") for host in hosts.timers], "neither host"),
    ],
)
def test_what_is_missing_ends_the_drill(hosts: Hosts, spoil: Callable[[Hosts], object], said: str) -> None:
    spoil(hosts)
    with pytest.raises(drill.DrillError, match=said):
        check(Report(scenario="server_failure", started_at=""))
