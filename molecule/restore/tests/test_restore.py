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


def damage(host: Host) -> None:
    """Zero the first page of the table of trades while nobody has the database open."""
    program = (
        "import sqlite3, sys; p = sys.argv[1]; c = sqlite3.connect(p);"
        "r = c.execute('SELECT rootpage FROM sqlite_master WHERE name = ?', ('trades',)).fetchone()[0];"
        "s = c.execute('PRAGMA page_size').fetchone()[0]; c.close();"
        "f = open(p, 'r+b'); f.seek((r - 1) * s); f.write(bytes(s)); f.close()"
    )
    host.check_output("systemctl stop fluxhero-backend")
    host.check_output(f'python3 -c "{program}" {DATABASE}')


def test_d49_a_damaged_database_is_salvaged_beside_it_and_the_choice_comes_into_place(host: Host) -> None:
    name = host.check_output("hostname")
    damage(host)
    digest = host.check_output(f"sha256sum {DATABASE}")
    chosen = {"target": name}
    shown = play("fluxhero.maintenance.database_recovery", **chosen)
    assert shown.returncode == 0, words(shown)
    assert "Nothing of the service was changed" in words(shown)
    # Only Debian 13 builds the command line of SQLite with what .recover needs.
    able = host.check_output(
        "sqlite3 :memory: \"SELECT count(*) FROM pragma_module_list WHERE name = 'sqlite_dbpage'\""
    )
    assert able == ("1" if name == "staging" else "0")
    made = "recover usable" in words(shown) or "recover NOT usable" in words(shown)
    assert made == (able == "1"), words(shown)
    assert ("lacks sqlite_dbpage" in words(shown)) == (able == "0")
    assert host.check_output(f"sha256sum {DATABASE}") == digest
    placed = play("fluxhero.maintenance.database_recovery", database_recovery_choice="salvage", **chosen)
    assert placed.returncode == 0, words(placed)
    assert f"halted: remove {HALT} after checking the open positions" in words(placed)
    assert sql(host, "PRAGMA integrity_check") == ["ok"]
    [trades] = sql(host, "SELECT count(*) FROM trades")
    assert isinstance(trades, int) and trades > 0
    assert host.check_output("sha256sum /var/lib/fluxmaint/restore-points/*/*-trades.db").count(digest.split()[0]) == 1
    assert host.check_output(f"stat --format=%U:%a {DATABASE}").startswith("fluxhero:")
    host.check_output(f"rm {HALT}")
    deadline = time.monotonic() + 20
    while sql(host, "SELECT count(*) FROM trades") == [trades]:
        assert time.monotonic() < deadline
        time.sleep(0.5)
