"""The modules, run as ansible-core runs them on a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.world import CANARY, World

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGE = "ansible_collections.fluxhero.maintenance.plugins.modules"


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collections path that holds this checkout."""
    top = tmp_path_factory.mktemp("collections")
    (top / "ansible_collections/fluxhero").mkdir(parents=True)
    (top / "ansible_collections/fluxhero/maintenance").symlink_to(REPOSITORY)
    return top


def run(collections: Path, module: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"{PACKAGE}.{module}"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check}}),
        env={**os.environ, "PYTHONPATH": str(collections)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert CANARY not in done.stdout + done.stderr
    return {**result, "failed": done.returncode != 0}


def test_check_mode_then_a_generation_then_the_list(world: World, collections: Path) -> None:
    world.config()
    config = {"config_file": str(world.config_file)}
    planned = run(collections, "backup_generation", check=True, kind="full", **config)
    assert planned["changed"]
    assert planned["plan"]["targets"] == {"local": "reachable"}
    assert list(world.open().list("")) == []
    assert not (world.top / "state/journal.jsonl").exists()
    taken = run(collections, "backup_generation", kind="full", **config)
    assert (taken["failed"], taken["changed"], taken["result"], taken["kind"]) == (False, True, "ok", "full")
    listed = run(collections, "backup_generation_info", **config)
    assert not listed["changed"]
    assert [(item["id"], item["kind"], item["state"]) for item in listed["generations"]] == [
        (taken["id"], "full", "committed")
    ]
    assert (listed["newest"], listed["newest_proven"]) == (taken["id"], "")
    assert taken["id"] in listed["table"]
    assert "never" in listed["table"]
    assert listed["targets"]["local"]["committed"] == 1
    told = run(collections, "backup_status_info", **config)
    assert not told["changed"]
    assert (told["result"], [reason["code"] for reason in told["reasons"]]) == ("degraded", ["never_proven"])
    assert "newest proven  never" in told["text"]


def test_a_degraded_generation_fails_unless_allowed(world: World, collections: Path) -> None:
    missing = {"name": "gone", "type": "path", "path": str(world.top / "gone")}
    world.config(targets=[world.target(), missing])
    config = {"config_file": str(world.config_file)}
    failed = run(collections, "backup_generation", **config)
    assert failed["failed"]
    assert "gone" in failed["msg"]
    assert failed["targets"] == {"local": "stored", "gone": "failed"}
    allowed = run(collections, "backup_generation", fail_on_degraded=False, **config)
    assert (allowed["failed"], allowed["result"]) == (False, "degraded")
    assert any("gone" in str(warning) for warning in allowed["warnings"])
    listed = run(collections, "backup_generation_info", **config)
    assert listed["targets"]["gone"]["reachable"] is False
    assert not listed["failed"]


def test_failures_name_the_file(world: World, collections: Path) -> None:
    (world.root / ".env").unlink()
    world.config()
    failed = run(collections, "backup_generation", config_file=str(world.config_file))
    assert failed["failed"]
    assert failed["subject"] == str(world.root / ".env")
    absent = run(collections, "backup_generation_info", config_file=str(world.top / "none.json"))
    assert absent["failed"]
    assert "none.json" in absent["msg"]


def test_no_target_reachable_is_a_failure(world: World, collections: Path) -> None:
    world.config()
    (world.store / ".fluxmaint-target").unlink()
    listed = run(collections, "backup_generation_info", config_file=str(world.config_file))
    assert listed["failed"]
    assert "no target can be reached" in listed["msg"]
