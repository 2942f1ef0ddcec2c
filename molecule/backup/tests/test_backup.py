# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedule, secrets, targets and generations of the role backup."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.support.plays import PROJECT, play, words
from tests.support.units import properties

TIMERS = {"daily": "Mon..Sat *-*-* 02:00:00 UTC", "full": "Sun *-*-* 02:00:00 UTC"}
TARGET = "/var/backups/fluxhero"
SERVICE = "/opt/fluxhero"
PING = "/etc/fluxmaint/keys/ping.json"
HOOKS = "/etc/fluxmaint/hooks.d"
KEYS = PROJECT / ".lab/keys/age"


def converge(host: Host, *arguments: str, **variables: object) -> tuple[int, str]:
    played = play("molecule/backup/converge.yml", "--limit", host.check_output("hostname"), *arguments, **variables)
    return played.returncode, words(played)


@pytest.mark.parametrize("kind", TIMERS)
def test_timer_waits_for_its_time_and_catches_up(host: Host, kind: str) -> None:
    timer = host.service(f"fluxmaint-backup@{kind}.timer")
    assert timer.is_enabled and timer.is_running
    shown = properties(
        host, f"fluxmaint-backup@{kind}.timer", "TimersCalendar", "Persistent", "RandomizedDelayUSec", "Unit"
    )
    assert TIMERS[kind] in shown["TimersCalendar"]
    assert "next_elapse=n/a" not in shown["TimersCalendar"]
    assert (shown["Persistent"], shown["RandomizedDelayUSec"]) == ("yes", "15min")
    assert shown["Unit"] == f"fluxmaint-backup@{kind}.service"


def test_d10_daily_and_full_never_share_a_day(host: Host) -> None:
    days: dict[str, set[str]] = {}
    for kind, calendar in TIMERS.items():
        listed = host.check_output(f"systemd-analyze calendar --iterations=14 '{calendar}'")
        days[kind] = set(re.findall(r"(\d{4}-\d\d-\d\d) 02:00:00 UTC", listed))
        assert len(days[kind]) == 14
    assert not days["daily"] & days["full"]


def test_service_is_held_in(host: Host) -> None:
    shown = properties(
        host,
        "fluxmaint-backup@daily.service",
        *("ProtectSystem", "NoNewPrivileges", "PrivateTmp", "ProtectHome", "UMask", "Nice", "CPUWeight"),
        *("MemoryMax", "OOMScoreAdjust", "TimeoutStartUSec", "Restart", "IOSchedulingClass"),
    )
    assert shown == {
        "ProtectSystem": "strict",
        "NoNewPrivileges": "yes",
        "PrivateTmp": "yes",
        "ProtectHome": "read-only",
        "UMask": "0077",
        "Nice": "10",
        "CPUWeight": "20",
        "MemoryMax": "infinity",
        "OOMScoreAdjust": "500",
        "TimeoutStartUSec": "1h 2min",
        "Restart": "on-failure",
        "IOSchedulingClass": "2",
    }


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/etc/fluxmaint/keys/offsite.json", 0o600),
        ("/etc/fluxmaint/keys/signing_ed25519", 0o600),
        ("/etc/fluxmaint/config.d/backup.json", 0o640),
        ("/var/lib/fluxmaint/staging", 0o700),
        (TARGET, 0o700),
    ],
)
def test_secrets_are_roots_alone(host: Host, path: str, mode: int) -> None:
    assert (host.file(path).user, host.file(path).mode) == ("root", mode)


def test_scheduled_run_stores_an_encrypted_generation_on_every_target(host: Host) -> None:
    host.run_expect([0], "systemctl start fluxmaint-backup@full")
    listed = json.loads(host.check_output("fluxmaint generations --json"))
    newest = listed["newest"]
    [stored] = [entry for entry in listed["generations"] if entry["id"] == newest]
    assert set(stored["targets"]) == {"offsite", "local"}
    assert (stored["state"], stored["kind"], stored["missing_on"]) == ("committed", "full", [])
    # The token of .env, database headers and code must not be found in what is stored.
    place = f"{TARGET}/fluxhero/{host.check_output('hostname')}/generations/{newest}"
    assert host.file(f"{place}/COMMIT").exists
    for secret in ("lab-token-of-no-value", "SQLite format 3", "uvicorn"):
        assert host.run(f"grep --recursive --quiet --fixed-strings '{secret}' {place}").rc == 1
    assert "fluxhero" in host.check_output(f"stat --format=%U {SERVICE}/data/trades.db")
    status = host.run("fluxmaint status")
    assert status.rc == 3  # nobody has proven it yet
    assert newest in status.stdout
    assert "newest proven  never" in status.stdout
    upcoming = {item["kind"] for item in json.loads(host.run("fluxmaint status --json").stdout)["schedule"]}
    assert upcoming == {"daily", "full"}


def test_service_files_keep_their_owner_and_success_is_pinged(host: Host) -> None:
    listener = "systemd-run --unit=listener --property=RuntimeDirectory=listener python3 -m http.server 8999"
    host.run_expect([0], f"{listener} --bind 127.0.0.1 --directory /run/listener")
    address = json.dumps({"backup": "http://127.0.0.1:8999/?ping-address-of-no-value"})
    host.run_expect([0], f"install -m 0600 /dev/null {PING} && echo '{address}' > {PING}")
    try:
        host.run_expect([0], "systemctl start fluxmaint-backup@daily")
        heard = host.check_output("journalctl --unit=listener --output=cat")
        assert '"GET /?ping-address-of-no-value HTTP/1.1" 200' in heard
        log = host.check_output("journalctl --unit=fluxmaint-backup@daily --output=cat")
        assert "pinged for backup" in log
        assert "backup: encrypt db-trades" in log  # the progress
        assert "ping-address-of-no-value" not in log + host.check_output("fluxmaint journal")
    finally:
        host.run(f"systemctl stop listener; rm {PING}")
    assert host.check_output(f"find {SERVICE}/data ! -user fluxhero") == ""
    assert host.check_output("ls -A /var/lib/fluxmaint/staging") == ""


def test_a_run_that_is_degraded_is_told_to_people(host: Host) -> None:
    unit, hook, told = "fluxmaint-backup@daily.service", f"{HOOKS}/10-molecule", "/run/told.json"
    host.run_expect([0], f"printf '#!/bin/sh\\ncat > {told}\\n' > {hook} && chmod 0755 {hook}")
    host.run_expect([0], f"mv {TARGET}/.fluxmaint-target {TARGET}/aside")
    try:
        host.run_expect([1], f"systemctl start {unit}")
        deadline = time.monotonic() + 20
        while not host.file(told).exists or not host.file(told).size:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        document = json.loads(host.file(told).content_string)
        assert (document["event"], document["unit"], document["details"]["exit_status"]) == ("unit_failed", unit, 3)
        assert any("target local" in line for line in document["journal"])
        host.run_expect([0], f"rm {told} && systemctl start fluxmaint-overdue.service")
        document = json.loads(host.file(told).content_string)
        assert (document["event"], document["result"]) == ("state", "degraded")
        assert "target_away_local" in [reason["code"] for reason in document["details"]["reasons"]]
        host.run_expect([0], f"rm {told} && systemctl start fluxmaint-overdue.service")
        assert not host.file(told).exists  # told once, not every hour
    finally:
        host.run(f"mv {TARGET}/aside {TARGET}/.fluxmaint-target; rm -f {hook} {told}; systemctl reset-failed {unit}")


def test_the_age_of_the_backups_is_watched(host: Host) -> None:
    assert host.service("fluxmaint-overdue.timer").is_enabled
    for unit in ("fluxmaint-backup@daily.service", "fluxmaint-overdue.service"):
        assert properties(host, unit, "OnFailure")["OnFailure"] == f"fluxmaint-notify@{unit}.service"


def test_run_waits_for_another_one_to_end(host: Host) -> None:
    unit = "fluxmaint-backup@daily.service"
    host.run_expect([0], "systemd-run --unit=hold-lock flock /run/fluxmaint/backup.lock sleep 60")
    try:
        deadline = time.monotonic() + 20
        while host.run("flock --nonblock /run/fluxmaint/backup.lock true").rc == 0:
            assert time.monotonic() < deadline
        host.run_expect([0], f"systemctl start --no-block {unit}")
        while properties(host, unit, "SubState")["SubState"] != "auto-restart":
            assert time.monotonic() < deadline, properties(host, unit, "SubState", "ExecMainStatus")
            time.sleep(0.2)
        assert properties(host, unit, "ExecMainStatus")["ExecMainStatus"] == "4"
    finally:
        host.run(f"systemctl stop {unit} hold-lock; systemctl reset-failed {unit}")


def test_one_recipient_is_refused(host: Host) -> None:
    one = (KEYS / "operator.pub").read_text().strip()
    code, said = converge(host, backup_recipients=[one, one])
    assert code != 0
    assert "backup_recipients needs at least two different public age keys" in said
    assert "not a public age key" not in said


def test_a_mistyped_recipient_is_refused_by_name(host: Host) -> None:
    one, other = ((KEYS / f"{name}.pub").read_text().strip() for name in ("operator", "escrow"))
    mistyped = other[:-1] + ("q" if other[-1] != "q" else "p")
    code, said = converge(host, backup_recipients=[one, mistyped])
    assert code != 0
    assert "is mistyped: its checksum is wrong" in said
    assert mistyped[:8] in said


def ceremony(host: Host, keys: Path, **variables: object) -> tuple[int, str]:
    recipients = [f"{{{{ lookup('ansible.builtin.file', '{keys}/{name}.pub') }}}}" for name in ("operator", "escrow")]
    played = play(
        "playbooks/backup_keys.yml",
        target=host.check_output("hostname"),
        backup_keys_dir=str(keys),
        backup_keys_test_host=host.check_output("hostname"),
        backup_recipients=recipients,
        backup_credentials={"offsite": "{{ lab_s3.uploader }}"},
        **variables,
    )
    return played.returncode, words(played)


@pytest.mark.only_on("trixie")
def test_keys_are_rotated_and_each_one_is_tested(host: Host, tmp_path: Path) -> None:
    for file in KEYS.iterdir():
        shutil.copy2(file, tmp_path)
    try:
        code, said = ceremony(host, tmp_path, backup_keys_rotate=["operator"], backup_keys_rotate_signing=True)
        assert code == 0, said
        assert said.count("opens generation") == 2
        assert "AGE-SECRET-KEY" not in said
        [retired] = tmp_path.glob("operator-retired-*.key")
        assert retired.read_bytes() == (KEYS / "operator.key").read_bytes()
        assert (tmp_path / "operator.key").read_bytes() != retired.read_bytes()
        assert "keep it until these are gone" in said
        newest = json.loads(host.check_output("fluxmaint generations --json"))["newest"]
        assert f"opens generation {newest} whole" in said
        code, said = ceremony(host, tmp_path)
        assert code == 0, said
        assert re.search(r"changed=0 .* failed=0", said), said
        assert json.loads(host.check_output("fluxmaint generations --json"))["newest"] == newest
        public = {"operator": (tmp_path / "operator.pub").read_text().strip()}
        code, said = ceremony(host, tmp_path, backup_keys_names=["escrow"], backup_keys_public=public)
        assert code == 0, said
        assert said.count("opens generation") == 1
        assert "operator: private key not at hand" in said
        code, said = ceremony(host, tmp_path, backup_keys_names=["operator"])
        assert code != 0
        assert "At least two keys are needed" in said
    finally:
        code, said = converge(host)  # the lab's own recipients again
    assert code == 0, said
    assert not host.file("/run/fluxmaint/key-test.key").exists


def test_target_without_access_is_refused(host: Host) -> None:
    code, said = converge(host, backup_credentials={})
    assert code != 0
    assert "backup_credentials has no entry for offsite" in said


def test_d06_unmounted_target_is_refused_and_not_created(host: Host) -> None:
    target = {"name": "remote", "type": "path", "path": "/mnt/fluxhero-remote", "require_mount": True}
    code, said = converge(host, backup_targets=[target])
    assert code != 0
    assert "needs a file system mounted on /mnt/fluxhero-remote, and there is none" in said
    assert not host.file("/mnt/fluxhero-remote").exists


def test_time_that_systemd_cannot_read_never_lands(host: Host) -> None:
    path = "/etc/systemd/system/fluxmaint-backup@daily.timer"
    before = host.file(path).content_string
    code, said = converge(host, backup_daily_calendar="every night")
    assert code != 0
    assert "Failed to parse calendar specification" in said
    assert host.file(path).content_string == before


@pytest.mark.only_on("trixie")
def test_credentials_are_not_shown(host: Host) -> None:
    access = {"access_key": "someone", "secret_key": "not-to-be-shown-4711"}
    code, said = converge(host, "--check", "--diff", "-vvv", backup_credentials={"offsite": access})
    assert code == 0
    assert access["secret_key"] not in said
