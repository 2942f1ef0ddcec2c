# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The monthly archive and export as systemd runs them, beside a service that trades."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from testinfra.host import Host

from tests.support.units import assert_waits, ended, properties, start_held_in

DATA = "/opt/fluxhero/data"
EXPORTS = "/opt/fluxhero/exports"
TIMERS = {
    "fluxmaint-maintain": ("Sun *-*-* 03:00:00", False),
    "fluxmaint-size": ("*-*-* 06:30:00", True),
    "fluxmaint-archive": ("*-*-01 04:00:00", True),
    "fluxmaint-export": ("*-*-01 12:00:00", True),
    "fluxmaint-cleanup-cache": ("Sun *-*-* 04:00:00", True),
}
INSERT = """
import sqlite3, sys
con = sqlite3.connect(sys.argv[1], timeout=20)
columns = "timestamp, symbol, side, quantity, price, pnl, status"
rows = [(sys.argv[2], sys.argv[3], 100 + number) for number in range(int(sys.argv[4]))]
con.executemany(f"INSERT INTO trades ({columns}) VALUES (?, ?, 'buy', 1, ?, 1.5, 'closed')", rows)
con.commit()
"""
COUNT = """
import sqlite3, sys
con = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=20)
print(con.execute("SELECT count(*) FROM trades WHERE symbol = ?", sys.argv[2:]).fetchone()[0])
"""


def add_trades(host: Host, at: datetime, symbol: str, number: int) -> None:
    """Trades of a symbol that nobody holds, as the service's user writes them."""
    words = (INSERT, f"{DATA}/trades.db", at.strftime("%Y-%m-%dT%H:%M:%S.000Z"), symbol, str(number))
    host.run_expect([0], "runuser -u fluxhero -- python3 -c %s %s %s %s %s", *words)


def trades(host: Host, database: str, symbol: str) -> int:
    return int(host.check_output("python3 -c %s %s %s", COUNT, database, symbol))


def last_month() -> datetime:
    """Noon in the middle of the month before."""
    today = datetime.now(timezone.utc)
    return (today.replace(day=1) - timedelta(days=1)).replace(day=15, hour=12)


@pytest.mark.parametrize("name", TIMERS)
def test_timer_waits_for_its_time(host: Host, name: str) -> None:
    calendar, persistent = TIMERS[name]
    assert_waits(host, name, calendar, persistent=persistent)
    assert f"fluxmaint-notify@{name}.service" in properties(host, f"{name}.service", "OnFailure")["OnFailure"]


def test_old_trades_go_into_the_archive_of_their_month_and_stay_unless_told_otherwise(host: Host) -> None:
    old = datetime.now(timezone.utc) - timedelta(days=120)
    add_trades(host, old, "OLD", 30)
    start_held_in(host, "fluxmaint-archive.service", DATA, "/var/lib/fluxmaint")
    run = ended(host, "archive")
    assert (run["result"], run["archived"], run["deleted"], run["problems"]) == ("ok", 30, 0, [])
    archive = f"{DATA}/archive/trades_archive_{old:%Y%m}.db"
    assert trades(host, archive, "OLD") == trades(host, f"{DATA}/trades.db", "OLD") == 30
    assert host.check_output(f"stat --format=%U:%G {archive}") == "fluxhero:fluxhero"
    digest = host.check_output(f"sha256sum {archive}")
    host.run_expect([0], "systemctl start fluxmaint-archive.service")
    assert (ended(host, "archive")["archived"], host.check_output(f"sha256sum {archive}")) == (0, digest)


def test_last_month_is_exported_with_its_digest(host: Host) -> None:
    month = last_month()
    add_trades(host, month, "PREV", 20)
    start_held_in(host, "fluxmaint-export.service", EXPORTS, "/var/lib/fluxmaint")
    file = f"{EXPORTS}/trades_{month:%Y%m}.csv"
    run = ended(host, "export")
    assert (run["result"], run["path"], run["rows"], run["changed"], run["complete"]) == ("ok", file, 20, True, True)
    lines = host.file(file).content_string.splitlines()
    assert len(lines) == 21 and "symbol" in lines[0] and all(",PREV," in line for line in lines[1:])
    assert host.check_output(f"cd {EXPORTS} && sha256sum --strict --check {file}.sha256").endswith(": OK")
    assert json.loads(host.file(f"{file}.json").content_string)["rows"] == 20
    assert host.check_output(f"stat --format=%U:%G {file}") == "fluxhero:fluxhero"
    host.run_expect([0], "systemctl start fluxmaint-export.service")
    assert ended(host, "export")["changed"] is False


def test_upkeep_itself_is_held_in(host: Host) -> None:
    for unit in ("fluxmaint-maintain.service", "fluxmaint-size.service"):
        start_held_in(host, unit, DATA, "/var/lib/fluxmaint")
