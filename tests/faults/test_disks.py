# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that fill up in the middle of an operation, and targets that are not mounted."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fluxmaint.backup.restore_plan import Request
from fluxmaint.core.errors import EngineError
from restore_world import make_world

from tests.faults.disks import Disk, bind, bound, mounted, needs_mount
from tests.faults.invariants import Invariants
from tests.faults.scene import EngineServer, Scene

pytestmark = needs_mount
LOT = random.SystemRandom()
PLACES = {"staging": "100M", "near": "16M", "state": "32M", "proofs": "24M"}
MOST = 8


@pytest.fixture(scope="module")
def life(
    tmp_path_factory: pytest.TempPathFactory, engine_server: EngineServer
) -> Iterator[tuple[Scene, dict[str, Disk]]]:
    """A service with every directory that maintenance writes to on a small disk of its own."""
    top = tmp_path_factory.mktemp("disks") / "world"
    scene = Scene(top, engine_server)
    places = {"staging": top / "small-staging", "near": top / "target-near", "state": top / "state"}
    places["proofs"] = top / "small-proofs"
    opened = [mounted(path, PLACES[name]) for name, path in places.items()]
    disks = {name: disk.__enter__() for name, disk in zip(places, opened)}
    try:
        targets = [scene.world.target("near", "target-near"), scene.world.target("other", "target-other")]
        scene.world.document["backup"]["staging_dir"] = str(places["staging"] / "staging")
        scene.configure(targets=targets)
        first = scene.backup()
        assert first.code == 0, first.out
        for target in ("near", "other"):
            assert scene.prove(target).code == 0
        yield scene, disks
    finally:
        for each in opened:
            each.__exit__(None, None, None)


@pytest.mark.parametrize("place", ["staging", "near", "state"])
def test_full_in_the_middle_of_a_backup(life: tuple[Scene, dict[str, Disk]], place: str) -> None:
    scene, disks = life
    scene.change(f"{place}-before")
    steps = scene.backup().steps(scene.journal)
    watch = Invariants(scene)
    codes = set()
    for number, step in enumerate(sorted(LOT.sample(steps, MOST), key=lambda step: step.start)):
        event = LOT.choice(step)
        scene.change(f"{place}-{number}")
        watch.watch(proofs=False)
        ran = scene.backup(at=event, fault=disks[place].fill)
        disks[place].free()
        codes.add(ran.code)
        assert ran.code in (0, 1, 3, 6), f"event {event}: {ran.out}"
        if ran.code:
            assert "no space left" in ran.out.lower() or "free" in ran.out, f"event {event}: {ran.out}"
        if place == "near" and ran.code:
            assert ran.result["targets"] == {"near": "failed", "other": "stored"}
        watch.hold(ran)
        after = scene.backup()
        assert after.code == 0, f"event {event}: {after.out}"
        watch.hold_after_next_run(after)
        assert list(scene.staging.iterdir()) == []
    assert codes - {0}, "no backup has noticed"


def test_full_in_the_middle_of_a_proof(life: tuple[Scene, dict[str, Disk]]) -> None:
    scene, disks = life
    watch = Invariants(scene)
    work = disks["proofs"].path / "work"
    steps = scene.prove("near").steps(scene.verifier_journal, longest=12)
    codes = set()
    for step in LOT.sample(steps, min(MOST, len(steps))):
        event = LOT.choice(step)
        ran = scene.prove("near", "latest", "--work-dir", work, at=event, fault=disks["proofs"].fill)
        disks["proofs"].free()
        codes.add(ran.code)
        assert ran.code in (0, 1), f"event {event}: {ran.out}"
        if ran.code:
            assert "no space left" in ran.out.lower() or "free" in ran.out, f"event {event}: {ran.out}"
        watch.hold_after_next_run(ran)
        assert {path.name for path in work.iterdir()} <= {"prove.lock"} if work.exists() else True
    assert codes - {0}, "no proof has noticed"


def test_a_full_data_directory_does_not_harm_a_backup(tmp_path: Path, engine_server: EngineServer) -> None:
    with mounted(tmp_path / "world/opt", "8M") as disk:
        scene = Scene(tmp_path / "world", engine_server)
        assert scene.backup().code == 0
        assert scene.prove("local").code == 0
        for mode in ("delete", "wal"):
            subprocess.run(["sqlite3", scene.world.database, f"PRAGMA journal_mode={mode}"], check=True)
            watch = Invariants(scene)
            subprocess.run(disk.fill, shell=True, check=False)
            watch.watch(proofs=False)
            ran = scene.backup()
            if ran.code:
                assert "free space" in ran.out or "No space" in ran.out, ran.out
            watch.hold(ran)
            disk.free()
            watch = Invariants(scene)
            after = scene.backup()
            assert after.code == 0, after.out
            watch.hold_after_next_run(after)


MOMENTS = (
    "begin:stage",
    "acted:stage",
    "recorded:stage",
    "begin:set_aside",
    "acted:set_aside",
    "acted:place",
    "begin:prove",
    "acted:start",
)


@pytest.mark.parametrize("moment", MOMENTS)
def test_full_in_the_middle_of_a_restore(tmp_path: Path, moment: str) -> None:
    """Data, stage and journal of a host on one disk that fills up."""
    with mounted(tmp_path / "small", "12M") as disk:
        world = make_world(disk.path / "world")
        struck = []

        def progress(event: str, name: str) -> None:
            if f"{event}:{Path(name).name}" == moment and not struck:
                struck.append(moment)
                subprocess.run(disk.fill, shell=True, check=False)

        request = Request(include=("databases", "config"), config_consent=True)
        try:
            before = (world.directory / "acknowledged.txt").stat().st_size
            try:
                result = world.run(request, progress=progress)["result"]
            except (EngineError, OSError) as error:
                result = str(error)
            assert struck and before
            # The disk is still full, and yet the restore has come to an end, one way or the other, and has noted it.
            plan, last = world.plan, world.journal.read("restore")[-1]
            assert plan is not None and not plan.open
            assert (last["event"], last["operation_id"]) == ("end", plan.id)
            if result == "restored":
                assert (plan.state, world.state(), last["result"]) == ("done", "new", "ok")
            else:
                assert "no space left" in str(result).lower()
                assert (world.state(), last["result"]) == ("old", "failed")
            world.require_no_secret(str(result))
            assert not world.service.hold_file.exists(), "the service may run, if it can on such a disk"
            assert not list(world.config.state_dir.glob(".restore-reserve"))
            disk.free()
            if result != "restored":
                assert world.run(request)["result"] == "restored"
            assert world.state() == "new"
            assert world.service.active() and not world.service.hold_file.exists()
            world.journal.verify()
        finally:
            disk.free()
            world.service.stop()


@pytest.mark.parametrize("missing", ["unmounted", "unmounted, marker below", "gone", "another disk"])
def test_a_target_that_is_not_mounted(tmp_path: Path, engine_server: EngineServer, missing: str) -> None:
    scene = Scene(tmp_path / "world", engine_server)
    path = tmp_path / "world/target-mounted"
    with mounted(path, "8M") as disk:
        targets = [scene.world.target("local"), scene.world.target("mounted", "target-mounted", require_mount=True)]
        scene.configure(targets=targets)
        made = scene.backup()
        assert made.code == 0, made.out
        assert scene.prove("local").code == 0
        watch = Invariants(scene)
        # Bound elsewhere, the disk lives on while it is not mounted at its place.
        with bound(path, tmp_path / "kept") as kept:
            disk.unmount()
            if missing == "unmounted, marker below":
                (path / ".fluxmaint-target").touch()
            elif missing == "gone":
                path.rmdir()
            elif missing == "another disk":
                Disk(path).mount("1M")
            ran = scene.backup()
            assert (ran.code, ran.result["targets"]) == (3, {"local": "stored", "mounted": "failed"})
            watch.hold(ran, away=("mounted",))
            assert {item.name for item in path.iterdir()} <= {".fluxmaint-target"} if path.exists() else True
            while os.path.ismount(path):
                Disk(path).unmount()
            path.mkdir(exist_ok=True)
            bind(kept, path)
            after = scene.backup()
            assert after.code == 0, after.out
            assert after.result["caught_up"] == {ran.result["id"]: {"local": "stored", "mounted": "stored"}}
            watch.hold_after_next_run(after)


def test_unmounted_in_the_middle_of_a_backup(tmp_path: Path, engine_server: EngineServer) -> None:
    """At a step drawn by lot: nothing is written to the directory below, nothing is reported as stored that is not."""
    scene = Scene(tmp_path / "world", engine_server)
    path = tmp_path / "world/target-mounted"
    with mounted(path, "16M") as disk, bound(path, tmp_path / "kept") as kept:
        targets = [scene.world.target("local"), scene.world.target("mounted", "target-mounted", require_mount=True)]
        scene.configure(targets=targets)
        assert scene.backup().code == 0
        assert scene.prove("local").code == 0
        assert scene.prove("mounted").code == 0
        scene.change("steps")
        made = scene.backup()
        steps = made.steps(scene.journal)
        watch = Invariants(scene)
        for number, step in enumerate(LOT.sample(steps, 10)):
            scene.change(f"step{number}")
            watch.watch(proofs=False)
            ran = scene.backup(at=(event := step[-1]), fault=f"umount --lazy {disk.path}")
            while os.path.ismount(path):  # the run was over before that event
                disk.unmount()
            assert list(path.iterdir()) == [], f"event {event}: written below the mount point"
            bind(kept, path)
            assert ran.code in (0, 3), f"event {event}: {ran.out}"
            watch.hold(ran)
            after = scene.backup()
            assert after.code == 0, f"event {event}: {after.out}"
            watch.hold_after_next_run(after)
