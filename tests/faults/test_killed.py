# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGKILL at every step of a backup, its upload, and a proof.

A step is what lies between two entries of the journal, long ones divided. Every run kills once in every step, right
before a change to the world outside that is drawn by lot; many runs have killed everywhere.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.invariants import Invariants
from tests.faults.scene import EngineServer, Ran, Scene

if TYPE_CHECKING:
    from tests.support.seaweed import ObjectStore

LOT = random.SystemRandom()


@pytest.fixture
def scene(tmp_path: Path, engine_server: EngineServer, object_store: ObjectStore) -> Scene:
    """A service whose generations go to a directory and to an S3 store; the newest is proven on both."""
    made = Scene(tmp_path / "world", engine_server)
    far = object_store.target(f"killed-{os.getpid()}-{LOT.randrange(10**9)}")
    made.configure(targets=[made.world.target("near", "target-near"), far])
    assert made.backup().result["result"] == "ok"
    for target in ("near", "offsite"):
        assert made.prove(target).code == 0
    return made


def require_killed(ran: Ran, moment: str) -> None:
    last = ran.events[-1] if ran.events else {}
    assert ran.killed, f"{moment}: code {ran.code}, last {last}, {ran.out}{ran.err}"


@pytest.mark.parametrize("half", [0, 1])
def test_backup_and_upload(scene: Scene, half: int) -> None:
    scene.change("before")
    steps = scene.backup().steps(scene.journal)
    assert len(steps) > 30, "these are not all steps of a backup"
    watch = Invariants(scene)
    for number, step in enumerate(steps[half::2]):
        moment = f"step {number} of half {half}, event {(event := LOT.choice(step))}"
        scene.change(f"step{number}")
        watch.watch()
        first = scene.backup(at=event, fault="SIGKILL")
        require_killed(first, moment)
        watch.hold(first)
        after = scene.backup()
        assert (after.code, after.result["result"]) == (0, "ok"), f"{moment}: {after.out}"
        watch.hold_after_next_run(after)
        for identity, targets in after.result["caught_up"].items():
            assert set(targets.values()) == {"stored"}, f"{moment}: {identity}"
        assert list(scene.staging.iterdir()) == [], moment


def test_full_backup(scene: Scene) -> None:
    steps = scene.run("backup", "--kind", "full").steps(scene.journal)
    watch = Invariants(scene)
    for step in LOT.sample(steps, 8):
        first = scene.run("backup", "--kind", "full", at=(event := LOT.choice(step)), fault="SIGKILL")
        require_killed(first, f"event {event}")
        watch.hold(first)
        after = scene.run("backup", "--kind", "full")
        assert after.code == 0, f"event {event}: {after.out}"
        watch.hold_after_next_run(after)


@pytest.mark.parametrize("target", ["near", "offsite"])
def test_proof(scene: Scene, target: str) -> None:
    scene.change("before")
    scene.backup()
    watch = Invariants(scene)
    steps = scene.prove(target).steps(scene.journal, longest=12)
    assert len(steps) > 10, "these are not all steps of a proof"
    for step in steps:
        event = LOT.choice(step)
        first = scene.prove(target, at=event, fault="SIGKILL")
        require_killed(first, f"event {event}")
        watch.hold(first)
        after = scene.prove(target)
        assert (after.code, after.result["result"]) == (0, "proven"), f"event {event}: {after.out}"
        watch.hold_after_next_run(after)
        left = {path.name for path in (scene.world.top / "state/proofs").iterdir()}
        assert left == {"prove.lock"}, f"event {event}"
