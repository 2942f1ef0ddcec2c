"""The built executable as a person or a timer calls it: exit codes, JSON, text, errors."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.world import CANARY, World, build

ROOT = Path(__file__).resolve().parents[3]


class Fluxmaint:
    """Runs the executable against one world."""

    def __init__(self, executable: Path, world: World) -> None:
        self.executable = executable
        self.world = world

    def run(self, *words: str | Path, exits: int = 0) -> str:
        """Run one command; its output must not hold the world's secret, its exit code must be `exits`."""
        command = [sys.executable, "-I", self.executable, *words, "--config", self.world.config_file]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == exits, done.stdout + done.stderr
        assert CANARY not in done.stdout + done.stderr
        return done.stdout if exits in (0, 3) else done.stdout + done.stderr

    def json(self, *words: str | Path, exits: int = 0) -> Any:
        """Run one command with `--json` and parse what it prints."""
        command = [sys.executable, "-I", self.executable, *words, "--json", "--config", self.world.config_file]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == exits, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("executable", ROOT / "plugins/plugin_utils/executable.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = tmp_path_factory.mktemp("bin") / "fluxmaint"
    path.write_bytes(module.build())
    return path


@pytest.fixture
def fluxmaint(executable: Path, tmp_path: Path) -> Fluxmaint:
    world = build(tmp_path)
    world.config()
    return Fluxmaint(executable, world)


def test_help_tells_the_commands_and_the_exit_codes(fluxmaint: Fluxmaint) -> None:
    done = subprocess.run([sys.executable, fluxmaint.executable, "--help"], capture_output=True, text=True, check=True)
    for word in ("version", "config", "backup", "restore", "prove", "status", "journal", "exit codes", "degraded"):
        assert word in done.stdout


def test_without_a_command_or_with_a_wrong_option_it_is_a_usage_error(fluxmaint: Fluxmaint) -> None:
    for words in ([], ["backup", "--kind", "hourly"]):
        command = [sys.executable, fluxmaint.executable, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "usage:" in done.stderr


def test_config_check_accepts_a_good_configuration(fluxmaint: Fluxmaint) -> None:
    assert fluxmaint.json("config", "check")["databases"] == ["trades"]
    assert "is valid" in fluxmaint.run("config", "check")


def test_config_check_names_every_mistake_and_exits_with_2(fluxmaint: Fluxmaint) -> None:
    document = json.loads(fluxmaint.world.config_file.read_text())
    document["root"] = "relative"
    document["backup"]["signer"] = ""
    fluxmaint.world.config_file.write_text(json.dumps(document))
    told = fluxmaint.run("config", "check", exits=2)
    assert "root must be an absolute path" in told
    assert "backup.signer must be" in told


def test_config_check_of_a_candidate_looks_at_the_whole(fluxmaint: Fluxmaint, tmp_path: Path) -> None:
    candidate = tmp_path / "candidate.json"
    candidate.write_text(json.dumps({"backup": {}}))
    told = fluxmaint.run("config", "check", "--candidate", f"backup.json={candidate}", exits=2)
    assert "the key backup is in" in told
    assert "takes NAME=FILE" in fluxmaint.run("config", "check", "--candidate", "nothing", exits=2)


def test_status_before_the_first_backup_is_not_a_success(fluxmaint: Fluxmaint) -> None:
    status = fluxmaint.json("status", exits=3)
    assert status["last_backup"] is None
    assert status["targets"]["local"]["newest"] == ""
    assert "never" in fluxmaint.run("status", exits=3)


def test_a_backup_is_listed_proven_and_shown_by_status(fluxmaint: Fluxmaint) -> None:
    made = fluxmaint.json("backup", "--kind", "full")
    assert made["result"] == "ok"
    identity = fluxmaint.world.keys / "operator.key"
    proof = fluxmaint.json("prove", "--target", "local", "--identity", identity)
    assert proof["generation"] == made["id"]
    assert proof["result"] == "proven"
    listed = fluxmaint.json("generations")["generations"]
    assert [(item["id"], item["state"], item["proven_by"]) for item in listed] == [
        (made["id"], "committed", ["production"])
    ]
    status = fluxmaint.json("status")
    assert status["result"] == "ok"
    assert status["last_backup"]["id"] == made["id"]
    assert status["newest_proven"] == made["id"]
    assert made["id"] in fluxmaint.run("status")
    assert made["id"] in fluxmaint.run("generations")


def test_status_does_not_call_a_generation_proven_by_a_proof_that_nobody_signed(fluxmaint: Fluxmaint) -> None:
    made = fluxmaint.json("backup")
    forged = fluxmaint.world.store / "fluxhero/production/proofs" / made["id"] / "20261123T020000Z-staging.json"
    forged.parent.mkdir(parents=True)
    forged.write_text(json.dumps({"result": "proven"}))
    assert fluxmaint.json("status")["newest_proven"] == ""


def test_status_with_no_target_in_reach_says_so(fluxmaint: Fluxmaint) -> None:
    fluxmaint.json("backup")
    (fluxmaint.world.store / ".fluxmaint-target").unlink()
    status = fluxmaint.json("status", exits=3)
    assert status["targets"]["local"]["reachable"] is False
    assert status["last_backup"]["result"] == "ok"


def test_a_target_that_is_away_makes_backup_and_status_degraded(fluxmaint: Fluxmaint) -> None:
    document = json.loads(fluxmaint.world.config_file.read_text())
    away = fluxmaint.world.top / "away"
    document["backup"]["targets"].append({"name": "away", "type": "path", "path": str(away)})
    fluxmaint.world.config_file.write_text(json.dumps(document))
    made = fluxmaint.json("backup", exits=3)
    assert made["result"] == "degraded"
    assert "away" in made["errors"]
    status = fluxmaint.json("status", exits=3)
    assert status["targets"]["away"]["error"]
    assert status["targets"]["local"]["committed"] == 1


def test_the_wrong_identity_exits_with_5_and_names_the_object(fluxmaint: Fluxmaint) -> None:
    fluxmaint.json("backup")
    stranger = fluxmaint.world.keys / "stranger.key"
    told = fluxmaint.run("prove", "--target", "local", "--identity", stranger, exits=5)
    assert ".age" in told


def test_the_journal_is_shown_and_its_chain_verified(fluxmaint: Fluxmaint) -> None:
    fluxmaint.json("backup")
    entries = fluxmaint.json("journal", "--operation", "backup")["entries"]
    assert (entries[0]["event"], entries[-1]["event"], entries[-1]["result"]) == ("start", "end", "ok")
    assert fluxmaint.json("journal", "--limit", "1")["entries"] == entries[-1:]
    assert "backup end ok" in fluxmaint.run("journal")
    assert fluxmaint.json("journal", "--verify")["entries"] == len(entries)
    journal = fluxmaint.world.top / "state" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"start"', b'"begin"', 1))
    assert "does not follow" in fluxmaint.run("journal", "--verify", exits=5)


def test_integrity_tells_rows_and_digests_and_exits_with_5_for_damage(fluxmaint: Fluxmaint) -> None:
    database = fluxmaint.world.database
    report = fluxmaint.json("integrity", database, "--digests")
    assert report["ok"] is True
    assert report["content_digests"]["trades"]["rows"] == 200
    data = bytearray(database.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    database.write_bytes(bytes(data))
    assert "DAMAGED" in fluxmaint.run("integrity", database, exits=5)


def test_a_missing_database_is_named_and_not_created(fluxmaint: Fluxmaint) -> None:
    missing = fluxmaint.world.top / "missing.db"
    assert "missing.db" in fluxmaint.run("integrity", missing, exits=2)
    assert not missing.exists()


def test_nothing_to_resume_is_said(fluxmaint: Fluxmaint) -> None:
    assert "no restore is unfinished" in fluxmaint.run("restore", "--resume")
