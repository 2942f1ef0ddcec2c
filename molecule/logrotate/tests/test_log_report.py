# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reading of logs and the weekly report as systemd runs them, across a rotation."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.units import assert_waits, ended, properties, start_held_in

LOG = "/opt/fluxhero/logs/fluxhero.log"
REPORTS = "/var/lib/fluxmaint/reports"
APPEND = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"
FAILURES = 7


def last_week() -> datetime:
    """Wednesday noon of the week before this one."""
    today = datetime.now(timezone.utc)
    return today.replace(hour=12, minute=0, second=0) - timedelta(days=today.weekday() + 5)


def failed_trades(host: Host) -> int:
    """How many failed trades of that day the reports know."""
    day = last_week()
    since, until = (f"{moment:%Y-%m-%d}T00:00:00Z" for moment in (day, day + timedelta(days=1)))
    shown = host.run(f"fluxmaint logs report --since {since} --until {until} --json").stdout
    document: dict[str, Any] = json.loads(shown)
    return int(document["totals"]["failed_trades"])


@pytest.mark.parametrize(
    ("name", "calendar"), [("fluxmaint-logs-read", "*-*-* *:00:00"), ("fluxmaint-log-report", "Mon *-*-* 05:00:00")]
)
def test_timer_waits_for_its_time(host: Host, name: str, calendar: str) -> None:
    assert_waits(host, name, calendar)
    assert f"fluxmaint-notify@{name}.service" in properties(host, f"{name}.service", "OnFailure")["OnFailure"]


def test_each_line_is_read_once_whatever_is_rotated_meanwhile(host: Host) -> None:
    moment = f"{last_week():%Y-%m-%d %H:%M:%S}"
    lines = [f"{moment}.{n:03d} | ERROR    | a.b:c:1 - Trade execution failed: probe\n" for n in range(FAILURES)]
    host.run_expect([0], "runuser -u fluxhero -- python3 -c %s %s %s", APPEND, LOG, "".join(lines))
    start_held_in(host, "fluxmaint-logs-read.service", "/var/lib/fluxmaint")
    assert ended(host, "logs_read")["result"] == "ok"
    assert failed_trades(host) == FAILURES
    host.run_expect([0], "fluxmaint rotation run --force")
    host.run_expect([0], "systemctl start fluxmaint-logs-read.service")
    assert failed_trades(host) == FAILURES


def test_the_weekly_report_is_written_and_tells_that_sources_said_nothing(host: Host) -> None:
    # A new host's journal has nothing of last week: people are told by the status, and the report is there.
    start_held_in(host, "fluxmaint-log-report.service", "/var/lib/fluxmaint", REPORTS, status=3)
    year, week, _day = last_week().isocalendar()
    name = f"{REPORTS}/report-{year}-W{week:02d}"
    assert json.loads(host.file(f"{name}.json").content_string)["totals"]["failed_trades"] == FAILURES
    assert host.file(f"{REPORTS}/latest.html").linked_to == f"{name}.html"
    assert "Trade execution failed" in host.file(f"{name}.html").content_string
    assert host.file(f"{name}.html").mode == 0o640
