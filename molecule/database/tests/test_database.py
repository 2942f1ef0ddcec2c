# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upkeep of the database of a service that trades forty times a second: no trade fails."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

from testinfra.host import Host

from tests.support.plays import play, words
from tests.support.units import properties

DATABASE = "/opt/fluxhero/data/trades.db"
LOG = "/opt/fluxhero/logs/fluxhero.log"
SETTINGS = "/etc/fluxmaint/config.d/database.json"
UNIT = "fluxmaint-maintain.service"


def sql(host: Host, *statements: str) -> Any:
    """The first row of the last statement, as the service's user."""
    program = (
        "import json, sqlite3, sys;"
        f"c = sqlite3.connect('{DATABASE}', timeout=20);"
        "rows = [c.execute(s).fetchone() for s in sys.argv[1:]]; c.commit(); print(json.dumps(rows[-1]))"
    )
    quoted = " ".join(f"'{statement}'" for statement in statements)
    return json.loads(host.check_output(f'runuser -u fluxhero -- python3 -c "{program}" {quoted}'))


def bloat(host: Host) -> int:
    """Four megabytes of free pages."""
    sql(
        host,
        "CREATE TABLE bloat AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)"
        " SELECT zeroblob(20000) AS data FROM n",
    )
    sql(host, "DROP TABLE bloat")
    [pages] = sql(host, "PRAGMA freelist_count")
    return int(pages)


def main_pid(host: Host) -> str:
    return str(host.check_output("systemctl show fluxhero-backend --property=MainPID --value"))


@contextlib.contextmanager
def no_trade_fails(host: Host) -> Iterator[None]:
    """The service trades before, meanwhile and afterwards, loses no trade and fails with none."""
    seen = int(host.check_output(f"stat --format=%s {LOG}"))
    [before] = sql(host, "SELECT count(*) FROM trades")
    yield
    [after] = sql(host, "SELECT count(*) FROM trades")
    deadline = time.monotonic() + 30
    while sql(host, "SELECT count(*) FROM trades")[0] < after + 20:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    log = host.check_output(f"tail --bytes=+{seen + 1} {LOG}")
    assert "Trade executed" in log
    assert [line for line in log.splitlines() if "execution failed" in line or "Heartbeat failed" in line] == []
    [booked] = sql(host, "SELECT count(*) FROM trades")
    assert booked > before


def last_run(host: Host) -> dict[str, Any]:
    entries = json.loads(host.check_output("fluxmaint journal --operation maintain --limit 1 --json"))["entries"]
    return dict(entries[0])


def test_d10_upkeep_comes_after_a_backup_and_never_beside_one(host: Host) -> None:
    shown = properties(host, UNIT, "After", "OnFailure", "Restart", "ProtectSystem", "NoNewPrivileges", "Nice")
    assert "fluxmaint-backup@full.service" in shown.pop("After")
    assert set(shown.pop("OnFailure").split()) == {
        f"fluxmaint-notify@{UNIT}.service",
        "fluxmaint-maintain-resume.service",
    }
    assert shown == {"Restart": "on-failure", "ProtectSystem": "strict", "NoNewPrivileges": "yes", "Nice": "10"}
    held = host.run("flock --nonblock /run/fluxmaint/backup.lock fluxmaint maintain")
    assert held.rc == 4 and "backup.lock: is held by" in held.stderr


def test_an_interrupted_run_is_finished_at_boot(host: Host) -> None:
    assert host.service("fluxmaint-maintain-resume.service").is_enabled
    assert "no upkeep is unfinished" in host.check_output("fluxmaint maintain --resume")


def test_beside_a_service_that_trades(host: Host) -> None:
    assert bloat(host) > 900
    pid = main_pid(host)
    planned = json.loads(host.check_output("fluxmaint maintain --dry-run --json"))
    first = planned["databases"][0]["actions"][0]
    assert (first["kind"], first["way"]) == ("vacuum", "waiting")
    with no_trade_fails(host):
        host.run_expect([0], f"systemctl start {UNIT}")
    assert sql(host, "PRAGMA freelist_count")[0] < 50  # what the service itself has freed since
    assert main_pid(host) == pid
    assert last_run(host)["result"] == "ok"
    again = json.loads(host.check_output("fluxmaint maintain --json"))
    assert (again["changed"], again["result"]) == (False, "ok")


def test_with_the_service_stopped_for_a_moment(host: Host) -> None:
    bloat(host)
    pid = main_pid(host)
    change = 's/"stop_units": false/"stop_units": true/; s/"wait_fraction": 0.5/"wait_fraction": 0.01/'
    host.run_expect([0], f"cp -a {SETTINGS} /root/database.json && sed -i '{change}' {SETTINGS}")
    try:
        with no_trade_fails(host):
            host.run_expect([0], f"systemctl start {UNIT}")
    finally:
        host.run_expect([0], f"mv /root/database.json {SETTINGS}")
    assert main_pid(host) != pid
    assert host.check_output(f"stat --format=%U:%G {DATABASE}") == "fluxhero:fluxhero"
    assert host.check_output("find /opt/fluxhero/data -name '*fluxmaint*'") == ""
    assert host.run("ls /var/lib/fluxmaint/upkeep.json").rc == 2
    [vacuum] = [action for action in last_run(host)["done"]["trades"] if action["kind"] == "vacuum"]
    assert vacuum["way"] == "stopped" and vacuum["units"]


def test_a_playbook_shows_first_and_then_does(host: Host) -> None:
    bloat(host)
    for arguments in (["--check", "--diff"], []):
        played = play("playbooks/database_maintenance.yml", *arguments, target=host.check_output("hostname"))
        said = words(played)
        assert played.returncode == 0, said
        assert ("would vacuum" in said) is bool(arguments)
        [free] = sql(host, "PRAGMA freelist_count")
        assert (free > 900) is bool(arguments)
    assert "done: vacuum" in said and "scattered" in said


def test_sizes_are_noted_each_day(host: Host) -> None:
    host.run_expect([0], "systemctl start fluxmaint-size.service")
    [entry] = json.loads(host.check_output("fluxmaint journal --operation size --limit 1 --json"))["entries"]
    assert entry["result"] == "ok" and entry["databases"]["trades"]["used_bytes"] > 0
    shown = host.check_output("fluxmaint size")
    assert "  trades " in shown and "|####" in shown
    assert "growth     unknown" in shown
