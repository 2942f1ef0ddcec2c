# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A verifier in service: its schedule, its keys, its proofs on the other host, and its refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

from tests.lab.drill import on_host
from tests.lab.offsite import Offsite, tunnel
from tests.support.plays import PROJECT, play, words
from tests.support.units import ended, properties, start_held_in

OTHER = {"trixie": "bookworm", "bookworm": "trixie"}
UNIT = "fluxmaint-verify.service"
WORK = "/var/lib/fluxmaint/verify"
CACHE = "/opt/fluxhero/data/cache"
CONVERGE = "molecule/backup_verify/converge.yml"


def name_of(host: Host) -> str:
    return str(host.check_output("hostname"))


def proven_on(name: str) -> list[str]:
    """What a host counts as proven, of its own generations."""
    facts = json.loads(on_host(name, "fluxmaint status --json || true"))
    return [item["id"] for item in facts["generations"] if item["proven_by"]]


def newest_of(name: str) -> str:
    return str(json.loads(on_host(name, "fluxmaint generations --json"))["newest"])


def report(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.check_output("cat /var/lib/fluxmaint/verify.json"))
    return found


def test_timer_waits_for_its_time_and_catches_up(host: Host) -> None:
    timer = host.service("fluxmaint-verify.timer")
    assert timer.is_enabled and timer.is_running
    shown = properties(host, "fluxmaint-verify.timer", "TimersCalendar", "Persistent", "RandomizedDelayUSec", "Unit")
    assert "*-*-* 04:00:00 UTC" in shown["TimersCalendar"]
    assert "next_elapse=n/a" not in shown["TimersCalendar"]
    assert (shown["Persistent"], shown["RandomizedDelayUSec"], shown["Unit"]) == ("yes", "1min", UNIT)


def test_unit_is_held_in(host: Host) -> None:
    names = ("ProtectSystem", "NoNewPrivileges", "PrivateTmp", "ProtectHome", "UMask", "Nice", "CPUWeight", "MemoryMax")
    shown = properties(host, UNIT, *names, "CapabilityBoundingSet", "InaccessiblePaths")
    assert shown == {
        "ProtectSystem": "strict",
        "NoNewPrivileges": "yes",
        "PrivateTmp": "yes",
        "ProtectHome": "yes",
        "UMask": "0077",
        "Nice": "15",
        "CPUWeight": "10",
        "MemoryMax": str(1 << 30),
        "CapabilityBoundingSet": "",
        "InaccessiblePaths": "-/opt/fluxhero -/etc/fluxmaint/keys/signing_ed25519",
    }


@pytest.mark.parametrize("file", ["verifier.key", "verifier_ed25519", "verifier.json", "verifier-proofs.json"])
def test_keys_are_roots_alone(host: Host, file: str) -> None:
    found = host.file(f"/etc/fluxmaint/keys/{file}")
    assert (found.user, found.mode) == ("root", 0o600)


def test_d22_scheduled_run_proves_and_the_other_host_counts_it(host: Host) -> None:
    other = OTHER[name_of(host)]
    look = "sha256sum /opt/fluxhero/.env; systemctl show --property MainPID,NRestarts fluxhero-backend"
    before = host.check_output(look)
    newest = newest_of(other)
    started = host.run(f"systemctl start {UNIT}")
    assert started.rc == 0, host.check_output(f"journalctl --no-pager -u {UNIT} -n 20")
    assert newest in proven_on(other)
    assert properties(host, UNIT, "ExecMainStatus", "Result") == {"ExecMainStatus": "0", "Result": "success"}
    outcome = report(host)["outcomes"][0]
    assert (outcome["host"], outcome["generation"], outcome["result"]) == (other, newest, "proven")
    evidence = json.loads(host.check_output(f"cat {outcome['evidence_file']}"))
    assert (evidence["verifier"], evidence["host"], evidence["result"]) == (name_of(host), other, "proven")
    assert host.check_output(look) == before, "neither configuration nor service is touched"
    assert host.check_output(f"find {WORK} -mindepth 1") == f"{WORK}/prove.lock"


def test_the_cache_is_cleaned_of_what_a_proven_backup_holds(host: Host) -> None:
    other = OTHER[name_of(host)]
    assert newest_of(other) in proven_on(other)
    unknown = f"{CACHE}/unknown.parquet"
    on_host(other, f"runuser -u fluxhero -- sh -c 'echo x > {unknown} && touch --date=2026-01-01 {unknown}'")
    cleaned = testinfra.get_host(f"ssh://{other}", ssh_config=str(PROJECT / ".lab/ssh_config"))
    start_held_in(cleaned, "fluxmaint-cleanup-cache.service", CACHE, "/var/lib/fluxmaint")
    run = ended(cleaned, "cache-cleanup")
    assert (run["result"], run["removed"], run["problems"]) == ("ok", 1, [])
    assert run["freed_bytes"] == len("long ago")
    assert not cleaned.file(f"{CACHE}/old.parquet").exists
    assert cleaned.file(unknown).exists and cleaned.file(f"{CACHE}/SPY_1m.parquet").exists


def test_plain_data_of_a_killed_run_goes_at_once_and_at_boot(host: Host) -> None:
    left = f"{WORK}/prove-left/databases"
    host.run_expect([0], f"mkdir -p {left} && echo plain > {left}/trades.sqlite")
    host.run_expect([0], "systemd-tmpfiles --boot --remove /etc/tmpfiles.d/fluxmaint-verify.conf")
    assert not host.file(left).exists
    assert host.file(WORK).is_directory
    assert "verify --sweep" in properties(host, UNIT, "ExecStopPost")["ExecStopPost"]


def test_a_host_that_would_prove_itself_is_refused(host: Host) -> None:
    name = name_of(host)
    played = play(CONVERGE, "--check", "--limit", name, backup_verify_hosts=[name])
    assert played.returncode != 0
    assert "A host's proofs of its own backups do not count" in words(played)


@pytest.mark.only_on("trixie")
def test_an_identity_is_made_on_the_verifier_and_its_public_half_is_told(host: Host) -> None:
    played = play(CONVERGE, "--limit", "trixie", backup_verify_identity_file="")
    assert played.returncode == 0 and "to backup_recipients" not in words(played), "one that is there stays"
    host.run_expect([0], "rm /etc/fluxmaint/keys/verifier.key")
    try:
        played = play(CONVERGE, "--limit", "trixie", backup_verify_identity_file="")
        assert played.returncode == 0, words(played)
        public = host.check_output("age-keygen -y /etc/fluxmaint/keys/verifier.key")
        assert f"Add {public} to backup_recipients" in words(played)
        assert "AGE-SECRET-KEY" not in words(played)
        refused = host.run("fluxmaint verify")
        assert (refused.rc, "is not encrypted to this verifier's key" in refused.stdout) == (1, True)
    finally:
        again = play(CONVERGE, "--limit", "trixie")
    assert again.returncode == 0, words(again)


def test_a_damaged_generation_fails_loudly_and_never_counts(host: Host) -> None:
    other = OTHER[name_of(host)]
    on_host(other, "systemctl start fluxmaint-backup@daily")
    damaged = newest_of(other)
    with tunnel("store", 8333) as port:
        Offsite(port, other, damaged, "admin").sabotage("flip")
    assert host.run(f"systemctl start {UNIT}").rc != 0
    assert properties(host, UNIT, "ExecMainStatus", "Result") == {"ExecMainStatus": "5", "Result": "exit-code"}
    assert f"{damaged} (newest): failed" in host.check_output(f"journalctl --no-pager -u {UNIT} -n 40")
    assert damaged not in proven_on(other)
    [failed] = report(host)["failed"]
    assert (failed["host"], failed["generation"]) == (other, damaged)
    assert failed["error"]["subject"].endswith(f"{damaged}/db-trades.sqlite.zst.age")
    ended = json.loads(host.check_output("fluxmaint journal --operation verify --limit 1 --json"))["entries"][0]
    assert (ended["result"], ended["exit_code"]) == ("failed", 5)
    host.run_expect([0], f"systemctl reset-failed {UNIT}")
