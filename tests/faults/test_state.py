# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What maintenance keeps on the host is damaged, or belongs to somebody else."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fluxmaint.core.config import load
from fluxmaint.core.errors import EngineError, LeaseError
from fluxmaint.core.lease import Lease
from fluxmaint.service import restore_job

from tests.faults.disks import mounted, needs_mount
from tests.faults.invariants import Invariants
from tests.faults.scene import EngineServer, Scene


@pytest.fixture
def scene(tmp_path: Path, engine_server: EngineServer) -> Scene:
    """A service with two targets, the second of which is away, so that its newest generation waits in staging."""
    made = Scene(tmp_path / "world", engine_server)
    made.configure(targets=[made.world.target("near", "target-near"), made.world.target("away", "target-away")])
    assert made.backup().code == 0
    for target in ("near", "away"):
        assert made.prove(target).code == 0
    (made.world.top / "target-away/.fluxmaint-target").unlink()
    assert made.backup().code == 3
    (made.world.top / "target-away/.fluxmaint-target").touch()
    return made


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


STAGED: dict[str, Callable[[Path], object]] = {
    "state.json is no JSON": lambda staged: (staged / "state.json").write_text("{"),
    "state.json is empty": lambda staged: (staged / "state.json").write_text(""),
    "state.json is of something else": lambda staged: (staged / "state.json").write_text("[1]"),
    "an object is bit-flipped": lambda staged: flip(staged / "objects/db-trades.sqlite.zst.age"),
    "an object is truncated": lambda staged: (staged / "objects/logs.tar.zst.age").write_bytes(b""),
    "an object is gone": lambda staged: (staged / "objects/config.tar.zst.age").unlink(),
    "the manifest is damaged": lambda staged: (staged / "objects/MANIFEST.json").write_text("{}"),
    "the instructions are damaged": lambda staged: flip(staged / "objects/RESTORE.txt"),
}


@pytest.mark.parametrize("damage", STAGED)
def test_a_damaged_staged_generation_does_not_keep_new_ones_from_being_made(scene: Scene, damage: str) -> None:
    (staged,) = scene.staging.iterdir()
    STAGED[damage](staged)
    watch = Invariants(scene)
    ran = scene.backup()
    assert (ran.code, ran.result["targets"]) == (3, {"near": "stored", "away": "stored"}), ran.out
    assert staged.name in ran.result["problems"][0]
    watch.hold_after_next_run(ran)
    assert [path.name for path in scene.staging.iterdir()] == [f"damaged-{staged.name}"]
    after = scene.backup()
    assert after.code == 0, after.out
    watch.hold_after_next_run(after)


def test_damaged_generations_do_not_fill_the_disk(scene: Scene) -> None:
    watch = Invariants(scene)
    for _unused in range(4):
        (scene.world.top / "target-away/.fluxmaint-target").unlink(missing_ok=True)
        scene.backup()
        for staged in scene.staging.glob("2*"):
            (staged / "state.json").write_text("{")
    (scene.world.top / "target-away/.fluxmaint-target").touch()
    ran = scene.backup()
    assert len(list(scene.staging.iterdir())) == 2
    watch.hold(ran)


@pytest.mark.parametrize("content", ["", "{}", "[", '{"format": 1}'])
@pytest.mark.parametrize("name", ["last-manifest.json", "cache-index.json"])
def test_damaged_notes_do_not_keep_a_backup_from_being_made(scene: Scene, name: str, content: str) -> None:
    (scene.world.top / "state" / name).write_text(content)
    watch = Invariants(scene)
    ran = scene.backup()
    assert ran.code == (3 if name == "last-manifest.json" else 0), ran.out
    assert bool(ran.result["problems"]) == (name == "last-manifest.json")
    watch.hold_after_next_run(ran)
    after = scene.backup()
    assert after.code == 0, after.out
    watch.hold_after_next_run(after)


@needs_mount
@pytest.mark.parametrize("name", ["last-manifest.json", "cache-index.json"])
def test_what_is_stored_is_not_called_failed_when_it_cannot_be_noted(scene: Scene, name: str) -> None:
    """A mount point cannot be replaced, as an immutable file cannot."""
    path = scene.world.top / "state" / name
    assert scene.backup().code == 0
    (scene.world.root / "data/cache/new.parquet").write_text("new")
    watch = Invariants(scene)
    subprocess.run(["mount", "--bind", path, path], check=True)
    try:
        ran = scene.backup()
    finally:
        subprocess.run(["umount", path], check=True)
    assert (ran.code, ran.result["targets"]) == (3, {"near": "stored", "away": "stored"}), ran.out
    assert f"{name}." in ran.result["problems"][-1] and "busy" in ran.result["problems"][-1]
    end = json.loads(scene.journal.read_text().splitlines()[-1])
    assert (end["result"], end["id"], end["problems"]) == ("degraded", ran.result["id"], ran.result["problems"])
    watch.hold_after_next_run(ran)
    assert list(scene.staging.iterdir()) == []
    after = scene.backup()
    assert after.code == 0, after.out
    watch.hold_after_next_run(after)


def test_a_directory_in_the_place_of_a_note_is_set_aside(scene: Scene) -> None:
    note = scene.world.top / "state/last-manifest.json"
    note.unlink()
    note.mkdir()
    watch = Invariants(scene)
    ran = scene.backup()
    assert ran.code == 3, ran.out
    assert "set aside" in ran.result["problems"][0]
    after = scene.backup()
    assert after.code == 0
    watch.hold_after_next_run(ran, after)


def test_a_journal_that_was_cut_off_goes_on(scene: Scene) -> None:
    whole = scene.journal.read_bytes()
    scene.journal.write_bytes(whole[:-30])
    watch = Invariants(scene)
    ran = scene.backup()
    assert ran.code == 0, ran.out
    watch.hold_after_next_run(ran)


def test_identities_that_killed_restores_have_left_are_swept(scene: Scene) -> None:
    """Whole or half-written, by the next restore or resume; a restore that runs keeps its own."""
    secret = (scene.world.keys / "operator.key").read_text()
    run = scene.world.top / "run"

    def leave() -> None:
        for name in ("identity-0123456789abcdef", ".identity-0123456789abcdef.x7yz1k2w.tmp"):
            (run / name).write_text(secret)

    leave()
    ran = scene.run("restore", "--resume")
    assert (ran.code, ran.result["result"]) == (0, "nothing")
    assert list(run.glob("*identity*")) == []
    leave()
    config = load(scene.world.config_file)
    with Lease(config.run_dir / "restore.lease", purpose="restore"):
        job = restore_job.Job(restore_job.Request(include=("databases",), halt_trading=True))
        with pytest.raises(LeaseError):
            restore_job.launch(config, job, restore_job.InProcess(), identity=secret)
        assert len(list(run.glob("*identity*"))) == 2, "another restore's identity is gone, or its own is left"
    with pytest.raises(EngineError):  # there is no systemd to ask for the units' state, or no such unit
        restore_job.launch(config, job, restore_job.InProcess(), identity="AGE-SECRET-KEY-1NONE")
    assert list(run.glob("*identity*")) == []


def test_a_credentials_file_that_everybody_reads_is_refused(scene: Scene) -> None:
    keys = scene.world.top / "offsite.json"
    keys.write_text(json.dumps({"access_key": "a", "secret_key": "canary-secret-key"}))
    keys.chmod(0o644)
    near = scene.world.target("near", "target-near")
    far = {"name": "offsite", "type": "s3", "endpoint": "http://127.0.0.1:9", "bucket": "b"}
    scene.configure(targets=[near, {**far, "credentials_file": str(keys)}])
    watch = Invariants(scene)
    ran = scene.backup()
    assert (ran.code, ran.result["targets"]) == (3, {"near": "stored", "offsite": "failed"})
    assert "every user" in ran.result["errors"]["offsite"]
    watch.hold(ran, away=("offsite",))


def test_staging_that_everybody_reads_is_closed(scene: Scene) -> None:
    shutil.rmtree(scene.staging)
    scene.staging.mkdir(mode=0o777)
    scene.staging.chmod(0o777)
    watch = Invariants(scene)
    ran = scene.backup()
    assert ran.code == 0
    assert scene.staging.stat().st_mode & 0o777 == 0o700
    watch.hold_after_next_run(ran)


@needs_mount
@pytest.mark.parametrize("place", ["state", "run", "target-near", "opt"])
def test_a_directory_that_may_only_be_read(scene: Scene, place: str) -> None:
    import subprocess

    path = scene.world.top / place
    watch = Invariants(scene)
    subprocess.run(["mount", "--bind", path, path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        ran = scene.backup()
        assert ran.code == {"opt": 0, "target-near": 3}.get(place, 1), ran.out
        watch.hold(ran)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
    after = scene.backup()
    assert after.code == 0, after.out
    watch.hold_after_next_run(after)


@needs_mount
def test_another_user_gets_a_sentence(scene: Scene) -> None:
    """Who may not read the configuration, the database or the keys is told which, and changes nothing."""
    for path in (scene.world.top, *scene.world.top.parents):
        if path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    with mounted(scene.world.top / "own", "1M") as disk:
        disk.path.chmod(0o777)
        ran = scene.backup(uid=65534, environ={"TMPDIR": str(disk.path)})
    assert ran.code not in (0, 3)
    assert ran.out and "Traceback" not in ran.err, ran.err
    Invariants(scene).hold(ran)
