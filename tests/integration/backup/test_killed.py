"""A backup killed by SIGKILL at any recorded step leaves no committed generation that is not whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.backup import generation, staging

from tests.support.world import World

REPOSITORY = Path(__file__).resolve().parents[3]
# start, begin, snapshot, prove, encrypt x4 (database, config, logs, system), cache, ready, two targets with
# 2 cache files, 4 parts, 3 texts, commit, committed each, end
ENTRIES = 10 + 2 * 11 + 1


def drive(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.support.backup_driver", str(world.config_file), "full", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)


def prepare(world: World) -> None:
    world.config(targets=[world.target("one", "one"), world.target("two", "two")])


def test_the_number_of_entries_is_the_one_that_is_killed_at(world: World) -> None:
    prepare(world)
    done = drive(world)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["entries"] == ENTRIES


@pytest.mark.parametrize("step", range(1, ENTRIES + 1))
def test_killed(world: World, tmp_path: Path, step: int) -> None:
    prepare(world)
    killed = drive(world, "--kill-at", str(step))
    assert killed.returncode == -9, killed.stderr
    for target in ("one", "two"):
        for item in generation.list_generations(world.open(target), "fluxhero", "production"):
            if item.state == "committed":
                world.fetch(tmp_path / f"{target}-killed", item.id, target=target)
    after = drive(world)
    assert after.returncode == 0, after.stderr
    result = json.loads(after.stdout)
    assert result["result"] == "ok"
    assert staging.ready(world.top / "state/staging") == []
    assert list((world.top / "state/staging").iterdir()) == []
    for target in ("one", "two"):
        listed = generation.list_generations(world.open(target), "fluxhero", "production")
        states = {item.id: item.state for item in listed}
        assert states[result["id"]] == "committed"
        # What was ready before the kill is completed, what was not never became a backup.
        assert all(state == "committed" for state in states.values()), states
        world.fetch(tmp_path / target, result["id"], target=target)
