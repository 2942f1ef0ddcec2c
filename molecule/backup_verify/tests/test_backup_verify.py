# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proof on another machine, and its refusals."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from testinfra.host import Host

from tests.support.plays import play, words

OTHER = {"staging": "bookworm", "bookworm": "staging"}


def test_generation_of_the_other_host_is_proven(host: Host) -> None:
    other = OTHER[host.check_output("hostname")]
    listed = json.loads(host.check_output(f"fluxmaint generations --host {other} --target offsite --json"))
    proven = {entry["id"]: entry["proven_by"] for entry in listed["generations"]}
    assert host.check_output("hostname") in proven[listed["newest"]]


def test_nothing_decrypted_and_no_key_is_left(host: Host) -> None:
    assert host.check_output("find /var/lib/fluxmaint/proofs -mindepth 1 ! -name prove.lock") == ""
    assert host.check_output("find /run/fluxmaint -name '*.key'") == ""


def test_foreign_signature_is_refused(host: Host, tmp_path: Path) -> None:
    name = host.check_output("hostname")
    key, signers = tmp_path / "key", tmp_path / "allowed_signers"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    signers.write_text(f"fluxhero@{OTHER[name]} {key.with_suffix('.pub').read_text()}")
    played = play(
        "molecule/backup_verify/converge.yml",
        *("--limit", name),
        backup_verify_allowed_signers_file=str(signers),
    )
    assert played.returncode != 0
    assert "MANIFEST.json" in words(played)


def test_d22_the_proof_was_made_here_and_says_of_whom(host: Host) -> None:
    name = host.check_output("hostname")
    entries = json.loads(host.check_output("fluxmaint journal --operation prove --json"))["entries"]
    ended = [entry for entry in entries if entry["event"] == "end" and entry["result"] == "ok"]
    assert ended[-1]["verifier"] == name
    evidence = json.loads(host.check_output("cat $(ls -t /var/lib/fluxmaint/evidence/*.json | head -n 1)"))
    assert (evidence["verifier"], evidence["host"]) == (name, OTHER[name])


def test_d23_proving_touches_neither_configuration_nor_service(host: Host) -> None:
    look = "sha256sum /opt/fluxhero/.env; systemctl show --property MainPID,NRestarts fluxhero-backend"
    before = host.check_output(look)
    played = play("molecule/backup_verify/converge.yml", "--limit", host.check_output("hostname"))
    assert played.returncode == 0, words(played)
    assert host.check_output(look) == before
