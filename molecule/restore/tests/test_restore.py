# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores on a host: what comes back, what is never replaced, what a refusal leaves untouched."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from testinfra.host import Host

from tests.support.plays import play, words

ENV = "/opt/fluxhero/.env"
HALT = "/opt/fluxhero/data/HALT"
DATABASE = "/opt/fluxhero/data/trades.db"


def restore(host: Host, playbook: str, **variables: object) -> tuple[int, str]:
    played = play(f"molecule/restore/{playbook}.yml", "--limit", host.check_output("hostname"), **variables)
    return played.returncode, words(played)


def sql(host: Host, statement: str) -> list[object]:
    program = (
        "import json, sqlite3;"
        f"c = sqlite3.connect('{DATABASE}', timeout=10);"
        f"r = c.execute('{statement}').fetchone(); c.commit(); print(json.dumps(r))"
    )
    return list(json.loads(host.check_output(f'runuser -u fluxhero -- python3 -c "{program}"')) or [])


def main_pid(host: Host) -> str:
    return str(host.check_output("systemctl show fluxhero-backend --property=MainPID --value"))


def test_configuration_is_back(host: Host) -> None:
    env = host.file(ENV)
    assert "API_TOKEN=" in env.content_string
    assert (env.user, env.group, env.mode) == ("root", "fluxhero", 0o640)
    assert not host.file(HALT).exists


def test_deleted_row_comes_back_and_trading_is_halted_until_resumed(host: Host) -> None:
    first = sql(host, "SELECT * FROM trades ORDER BY id LIMIT 1")
    sql(host, "DELETE FROM trades WHERE id = (SELECT min(id) FROM trades)")
    assert sql(host, "SELECT * FROM trades ORDER BY id LIMIT 1") != first
    code, said = restore(host, "databases")
    assert code == 0, said
    assert "digests equal to the manifest" in said
    assert f"halted: remove {HALT} after checking the open positions" in said
    assert sql(host, "SELECT * FROM trades ORDER BY id LIMIT 1") == first
    assert host.check_output(f"stat --format=%U:%a {DATABASE}").startswith("fluxhero:")
    assert host.file(HALT).exists
    [trades] = sql(host, "SELECT count(*) FROM trades")
    time.sleep(3)
    assert sql(host, "SELECT count(*) FROM trades") == [trades]
    host.check_output(f"rm {HALT}")
    deadline = time.monotonic() + 20
    while sql(host, "SELECT count(*) FROM trades") == [trades]:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_d18_newer_configuration_is_not_replaced_without_consent(host: Host) -> None:
    before, pid = host.file(ENV).content_string, main_pid(host)
    try:
        host.check_output(f"printf 'ROTATED_KEY=rotated-value\\n' >> {ENV}")
        code, said = restore(host, "converge")
        assert code != 0
        assert "ROTATED_KEY" in said and "rotated-value" not in said
        assert "rotated-value" in host.file(ENV).content_string
        assert main_pid(host) == pid
        code, said = restore(host, "converge", restore_config_consent=True)
        assert code == 0, said
        assert "rotated-value" not in host.file(ENV).content_string
    finally:
        if "rotated-value" in host.file(ENV).content_string:
            host.run_expect([0], f"sed --in-place /ROTATED_KEY/d {ENV}")
    assert host.file(ENV).content_string == before


def test_refusals_touch_nothing(host: Host, tmp_path: Path) -> None:
    pid = main_pid(host)
    foreign = tmp_path / "foreign.key"
    subprocess.run(["age-keygen", "-o", str(foreign)], check=True, capture_output=True)
    for variables, reason in (
        ({"restore_identity_file": str(foreign)}, "db-trades.sqlite.zst.age: cannot be decrypted with the identity"),
        ({"restore_identity_file": "/nonexistent"}, "(/nonexistent) is no file on the controller"),
        ({"restore_signer": "fluxhero@elsewhere"}, "MANIFEST.json"),
        ({"restore_generation": "20200101T000000Z-000000"}, "20200101T000000Z-000000"),
    ):
        code, said = restore(host, "databases", **variables)
        assert code != 0
        assert reason in said
        assert "AGE-SECRET-KEY" not in said
    assert main_pid(host) == pid
    assert not host.file(HALT).exists
    assert "key" not in host.check_output("ls /run/fluxmaint")


DAMAGE = """
import json, sqlite3, sys
con = sqlite3.connect(sys.argv[1])
columns = "timestamp, symbol, side, quantity, price, status"
more = [(number,) for number in range(500)]
con.executemany(f"INSERT INTO trades ({columns}) VALUES ('2026-11-23', 'X', 'buy', 1, ?, 'closed')", more)
con.commit()
[rows] = con.execute("SELECT count(*) FROM trades").fetchone()
leaves = "FROM dbstat WHERE name = 'trades' AND pagetype = 'leaf'"
[page, lost] = con.execute(f"SELECT pageno, ncell {leaves} ORDER BY path LIMIT 1 OFFSET 2").fetchone()
[size] = con.execute("PRAGMA page_size").fetchone()
con.close()
with open(sys.argv[1], "r+b") as file:
    file.seek((page - 1) * size)
    file.write(bytes(size))
print(json.dumps([rows, lost]))
"""


def damage(host: Host) -> tuple[int, int]:
    """Zero a page of trades while nobody has the database open; tells how many rows there were, and on that page."""
    host.check_output("systemctl stop fluxhero-backend")
    rows, lost = json.loads(host.check_output("runuser -u fluxhero -- python3 -c %s %s", DAMAGE, DATABASE))
    return rows, lost


def test_d49_a_damaged_database_is_salvaged_beside_it_and_the_choice_comes_into_place(host: Host) -> None:
    """By `.recover` where that can read damaged files: only Debian 13 builds the command with what it needs."""
    name = host.check_output("hostname")
    rows, lost = damage(host)
    assert 0 < lost < rows
    digest = host.check_output(f"sha256sum {DATABASE}")
    shown = play("fluxhero.maintenance.database_recovery", target=name)
    assert shown.returncode == 0, words(shown)
    assert "Nothing of the service was changed" in words(shown)
    able = name == "trixie"
    assert ("recover usable" in words(shown)) == able, words(shown)
    assert ("lacks sqlite_dbpage" in words(shown)) == (not able)
    assert host.check_output(f"sha256sum {DATABASE}") == digest
    way = "recover" if able else "rows"
    placed = play(
        "fluxhero.maintenance.database_recovery",
        target=name,
        database_recovery_choice="salvage",
        database_recovery_candidate=way,
    )
    assert placed.returncode == 0, words(placed)
    assert f".{way}: " in words(placed)
    assert f"halted: remove {HALT} after checking the open positions" in words(placed)
    assert sql(host, "PRAGMA integrity_check") == ["ok"]
    assert sql(host, "SELECT count(*) FROM trades") == [rows - lost]
    assert host.check_output("sha256sum /var/lib/fluxmaint/restore-points/*/*-trades.db").count(digest.split()[0]) == 1
    assert host.check_output(f"stat --format=%U:%a {DATABASE}").startswith("fluxhero:")
    host.check_output(f"rm {HALT}")
    deadline = time.monotonic() + 20
    while sql(host, "SELECT count(*) FROM trades") == [rows - lost]:
        assert time.monotonic() < deadline
        time.sleep(0.5)
