# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGKILL at every step of a backup, its upload, a proof, a verifier's run, and retention.

A step is what lies between two entries of the journal, long ones divided. Every run kills once in every step, right
before a change to the world outside that is drawn by lot; many runs have killed everywhere.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fluxmaint.backup import proof
from fluxmaint.backup.catalog import list_generations
from fluxmaint.core.journal import Journal

from tests.faults.invariants import Invariants
from tests.faults.scene import EngineServer, Ran, Scene

if TYPE_CHECKING:
    from tests.support.seaweed import ObjectStore

LOT = random.SystemRandom()
PARTS = 6  # into which what has few entries in the journal is divided


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


def require_killed(ran: Ran, event: int) -> None:
    last = ran.events[-1] if ran.events else {}
    # Targets are written to at the same time, so that a run may be over before its last events were due.
    assert ran.killed or len(ran.events) < event, f"event {event}: code {ran.code}, last {last}, {ran.out}{ran.err}"


@pytest.mark.parametrize("half", [0, 1])
def test_backup_and_upload(scene: Scene, half: int) -> None:
    scene.change("before")
    steps = scene.backup().steps(scene.journal)
    assert len(steps) > 20, "these are not all steps of a backup"
    watch = Invariants(scene)
    for number, step in enumerate(steps[half::2]):
        event = LOT.choice(step)
        moment = f"event {event}"
        scene.change(f"step{number}")
        watch.watch(proofs=False)
        first = scene.backup(at=event, fault="SIGKILL")
        require_killed(first, event)
        watch.hold(first)
        after = scene.backup()
        assert (after.code, after.result["result"]) == (0, "ok"), f"{moment}: {after.out}"
        watch.hold_after_next_run(after)
        for identity, targets in after.result["caught_up"].items():
            assert set(targets.values()) == {"stored"}, f"{moment}: {identity}"
        assert list(scene.staging.iterdir()) == [], moment


FULL = """
begin, snapshot trades, prove trades, encrypt db-trades, encrypt config, encrypt logs, encrypt system, cache, ready,
store db-trades.sqlite.zst.age, store config.tar.zst.age, store logs.tar.zst.age, store system.tar.zst.age,
store RESTORE.txt, store MANIFEST.json, store MANIFEST.json.sig, commit, committed
"""


def test_full_backup(tmp_path: Path, engine_server: EngineServer) -> None:
    """Every step by its name, with one directory as the target: what uploads add is killed above."""
    scene = Scene(tmp_path / "world", engine_server)
    scene.configure(targets=[scene.world.target("near", "target-near")])

    def backup(**options: Any) -> Ran:
        return scene.run("backup", "--kind", "full", **options)

    for _unused in range(2):  # the first one stores the cache, too
        whole = backup()
        assert whole.code == 0, whole.out
    assert scene.prove("near").code == 0
    told = [entry for entry in Journal(scene.journal).read("backup") if entry.get("event") == "step"]
    told = told[-FULL.count(",") - 1 :]
    named = [
        " ".join(str(entry[key]) for key in ("step", "database", "part", "object") if key in entry) for entry in told
    ]
    assert named == " ".join(FULL.split()).split(", "), "these are not all steps of a full backup"
    steps = whole.steps(scene.journal, longest=len(whole.events))
    watch = Invariants(scene)
    names = ["start", *named, "end", "after the end"]
    assert len(steps) == len(names)
    for name, step in zip(names, steps):
        event = LOT.choice(step)
        moment = f"on the way to {name}, event {event}"
        first = backup(at=event, fault="SIGKILL")
        require_killed(first, event)
        watch.hold(first)
        after = backup()
        assert after.code == 0, f"{moment}: {after.out}"
        watch.hold_after_next_run(after)
        assert list(scene.staging.iterdir()) == [], moment


@pytest.mark.parametrize("target", ["near", "offsite"])
def test_proof(scene: Scene, target: str) -> None:
    scene.change("before")
    scene.backup()
    watch = Invariants(scene)
    whole = scene.prove(target)
    steps = whole.steps(scene.verifier_journal, longest=len(whole.events) // PARTS)
    assert len(steps) >= PARTS, "these are not all steps of a proof"
    for step in steps:
        event = LOT.choice(step)
        first = scene.prove(target, at=event, fault="SIGKILL")
        require_killed(first, event)
        watch.hold(first)
        after = scene.prove(target)
        assert (after.code, after.result["result"]) == (0, "proven"), f"event {event}: {after.out}"
        watch.hold_after_next_run(after)
        left = {path.name for path in (scene.verifier / "proofs").iterdir()}
        assert left == {"prove.lock"}, f"event {event}"


@pytest.fixture
def two_directories(tmp_path: Path, engine_server: EngineServer) -> Scene:
    """The same with two directories as targets."""
    made = Scene(tmp_path / "world", engine_server)
    made.configure(targets=[made.world.target("near", "target-near"), made.world.target("other", "target-other")])
    assert made.backup().result["result"] == "ok"
    for target in ("near", "other"):
        assert made.prove(target).code == 0
    return made


def test_verifier(two_directories: Scene) -> None:
    """Another host proves; it leaves nothing of what it had decrypted, and no proof that does not hold."""
    scene = two_directories
    top = scene.world.top / "unattended"
    (top / "state").mkdir(parents=True)
    keys = scene.world.keys
    document = {key: value for key, value in scene.world.document.items() if key != "backup"}
    document.update(host="staging", state_dir=str(top / "state"), run_dir=str(top / "run"))
    document["verify"] = {
        "verifier": "staging",
        "target": scene.targets[0],
        "identity_file": str(keys / "escrow.key"),
        "signing_key_file": str(keys / "verifier_ed25519"),
        "allowed_signers_file": str(keys / "allowed_signers"),
        "work_dir": str(top / "state/verify"),
        "older": 0,
        "origins": [{"service": "fluxhero", "host": "production", "signer": "fluxhero@production"}],
    }
    (top / "config.json").write_text(json.dumps(document))

    def verify(**options: Any) -> Ran:
        return scene.run("verify", config=top / "config.json", **options)

    scene.change("before")
    assert scene.backup().code == 0
    whole = verify()
    assert whole.code == 0, whole.out
    steps = whole.steps(top / "state/journal.jsonl", longest=len(whole.events) // PARTS)
    made = scene.backup()
    watch = Invariants(scene)
    for step in steps:
        first = verify(at=(event := LOT.choice(step)), fault="SIGKILL")
        require_killed(first, event)
        watch.hold(first)
        after = verify()
        assert after.code == 0, f"event {event}: {after.out}"
        watch.hold_after_next_run(after)
        left = [path for path in (top / "state/verify").rglob("*") if path.is_file() and not path.name.endswith("lock")]
        assert [path for path in left if path.suffix not in (".json", ".sig")] == [], f"event {event}"
        signers, identity = keys / "allowed_signers", made.result["id"]
        proofs = proof.verified(scene.store("near"), "fluxhero", "production", identity, allowed_signers_file=signers)
        assert {one["verifier"] for one in proofs} == {"staging"}, f"event {event}"


def test_retention(two_directories: Scene) -> None:
    """Each time one generation of long ago is to go, and the cache file that only it lists."""
    scene = two_directories
    day = 86400
    scene.configure(targets=scene.targets, retention={"keep_days": 1, "keep_weekly": 0, "keep_monthly": 0})

    def of_long_ago(number: int) -> str:
        scene.change(f"old{number}")
        made = scene.backup(clock_offset_s=(number - 300) * day)
        assert made.code == 0, made.out
        return str(made.result["id"])

    def held() -> list[str]:
        return [item.id for item in list_generations(scene.store("near"), "fluxhero", "production")]

    gone = of_long_ago(0)
    whole = scene.run("prune")
    assert whole.code == 0 and gone not in held(), whole.out
    steps = whole.steps(scene.journal, longest=len(whole.events) // PARTS)
    for number, step in enumerate(steps, 1):
        gone = of_long_ago(number)
        watch = Invariants(scene)
        first = scene.run("prune", at=(event := LOT.choice(step)), fault="SIGKILL")
        require_killed(first, event)
        watch.hold(first)
        # What is left of it without COMMIT goes when the store has had it for longer than any backup takes.
        for target in ("target-near", "target-other"):
            for path in (scene.world.top / target / "fluxhero/production/generations" / gone).rglob("*"):
                os.utime(path, (path.stat().st_mtime - 5 * day,) * 2)
        after = scene.run("prune")
        assert after.code == 0, f"event {event}: {after.out}"
        watch.hold_after_next_run(after)
        assert gone not in held(), f"event {event}"
