# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clocks that are wrong by a day, leases of the dead, and a second instance at the same time."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.invariants import Invariants
from tests.faults.scene import EngineServer, Scene

DAY_S = 86400


@pytest.fixture
def scene(tmp_path: Path, engine_server: EngineServer) -> Scene:
    """A service with a proven generation."""
    made = Scene(tmp_path / "world", engine_server)
    made.configure(targets=[made.world.target("near", "target-near"), made.world.target("other", "target-other")])
    assert made.backup().code == 0
    assert made.prove("near").code == 0
    return made


@pytest.mark.parametrize("first", [-DAY_S, DAY_S])
def test_the_clock_is_a_day_off_and_set_right(scene: Scene, first: int) -> None:
    watch = Invariants(scene)
    made = []
    for offset in (first, 0):
        scene.change(f"at{offset}")
        watch.watch()
        ran = scene.backup(clock_offset_s=offset)
        assert ran.code == 0, ran.out
        made.append(ran.result["id"])
        watch.hold_after_next_run(ran)
        proven = scene.prove("other", ran.result["id"], clock_offset_s=offset)
        assert proven.code == 0, proven.out
        watch.hold_after_next_run(proven)
        status = scene.run("status", clock_offset_s=offset)
        assert status.code in (0, 3), status.out
    assert (made[0] < made[1]) == (first < 0)
    listed = scene.run("generations").result["generations"]
    assert {item["id"] for item in listed} >= set(made)
    assert scene.run("journal", "--verify").code == 0


@pytest.mark.parametrize("record", ['{"pid": 4194303, "purpose": "backup", "since": "2020-01-01T00:00:00Z"}', "", "x"])
@pytest.mark.parametrize("name", ["backup.lock", "lease"])
def test_a_lease_of_a_dead_process_is_in_nobodys_way(scene: Scene, name: str, record: str) -> None:
    (scene.world.top / "run" / name).write_text(record)
    watch = Invariants(scene)
    ran = scene.backup()
    assert ran.code == 0, ran.out
    watch.hold_after_next_run(ran)
    assert scene.run("status").result["lease"] is None


def test_a_lease_of_a_killed_process_is_in_nobodys_way(scene: Scene) -> None:
    """Also of one that had children: they do not keep the lease."""
    code = (
        "import fcntl, os, subprocess, sys\n"
        "held = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)\n"
        "fcntl.flock(held, fcntl.LOCK_EX)\n"
        "subprocess.Popen(['sleep', '5'])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, scene.world.top / "run/backup.lock"], check=False)
    ran = scene.backup()
    assert ran.code == 0, ran.out
    Invariants(scene).hold_after_next_run(ran)


def test_a_living_owner_is_named_and_nothing_is_touched(scene: Scene) -> None:
    watch = Invariants(scene)
    lock = os.open(scene.world.top / "run/backup.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.pwrite(lock, json.dumps({"pid": os.getpid(), "purpose": "a test", "since": "now"}).encode(), 0)
    try:
        before = scene.journal.read_bytes()
        ran = scene.backup()
        assert (ran.code, ran.result["owner"]["purpose"]) == (4, "a test")
        assert scene.journal.read_bytes() == before
        watch.hold(ran)
    finally:
        os.close(lock)


@pytest.mark.parametrize("command", ["backup", "prove"])
def test_instances_started_at_the_same_time(scene: Scene, command: str) -> None:
    watch = Invariants(scene)
    codes: Counter[int] = Counter()
    for _unused in range(5):
        each = [scene.request("backup") if command == "backup" else scene.proving("near") for _number in range(3)]
        ran = scene.run_together(*each)
        codes.update(one.code for one in ran)
        assert any(one.code == 0 for one in ran), [one.out for one in ran]
        watch.hold_after_next_run(*ran)
    assert set(codes) <= {0, 4}, codes
    assert codes[4], "they have not met"
    ended = [entry for entry in watch._journal(command) if entry["event"] == "end"]
    assert all(entry["result"] == "ok" or command == "prove" for entry in ended)
