"""The modules, run as ansible-core runs them on a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.core.clock import Clock

from tests.support.seaweed import ObjectStore
from tests.support.world import CANARY, World

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGE = "ansible_collections.fluxhero.maintenance.plugins.modules"


class Ago(Clock):
    """The system's clock, some days ago."""

    def __init__(self, days: int) -> None:
        self._days = timedelta(days=days)

    def now(self) -> datetime:
        return datetime.now(timezone.utc) - self._days


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


def test_a_bucket_is_pruned_from_elsewhere(
    world: World, collections: Path, object_store: ObjectStore, tmp_path: Path
) -> None:
    """What is due is locked: a day's retention is the bucket's default."""
    targets = [object_store.target("prune-module"), world.target()]
    made = [world.create(targets=targets, clock=Ago(days))["id"] for days in (32, 31, 0)]
    store = {key: targets[0][key] for key in ("name", "endpoint", "bucket", "prefix")}
    keys = json.loads(object_store.credentials_file("pruner").read_text())
    (tmp_path / "journal").mkdir()
    arguments = {
        **store,
        **keys,
        "service": "fluxhero",
        "host": "production",
        "signer": "fluxhero@production",
        "allowed_signers_file": str(world.keys / "allowed_signers"),
        "elsewhere": {"local": made},
        "retention": {"keep_days": 1, "keep_weekly": 0, "keep_monthly": 0},
        "journal_file": str(tmp_path / "journal/journal.jsonl"),
    }
    unproven = run(collections, "backup_prune", **arguments)
    assert (unproven["failed"], unproven["changed"], unproven["result"]) == (False, False, "ok")
    assert "no newer generation is proven and held by two targets" in unproven["table"]
    world.prove(made[2], target="offsite")
    alone = run(collections, "backup_prune", check=True, **{**arguments, "elsewhere": {"local": made[:2]}})
    assert alone["locked"] == [], "the proven one is held by one target of two"
    pruned = run(collections, "backup_prune", **arguments)
    assert [item["id"] for item in pruned["locked"]] == made[1::-1]
    assert (pruned["changed"], pruned["deleted"]) == (False, [])
    assert keys["secret_key"] not in json.dumps(pruned)
    assert "prune" in (tmp_path / "journal/journal.jsonl").read_text()
    bad = run(collections, "backup_prune", **{**arguments, "retention": {"keep_days": 0, "keep": 1}})
    assert bad["failed"]
    assert "retention.keep_days" in bad["msg"]
    assert "retention.keep is not" in bad["msg"]
