# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody deletes parts of what is stored, or puts it elsewhere; or a reader's clock is off: what commands say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.backup import layout

from tests.faults.invariants import Invariants
from tests.faults.scene import EngineServer, Ran, Scene

DAY_S = 86400
HOUR_S = 3600


class Life:
    """Two generations on each target, both proven, as many hours old."""

    def __init__(self, scene: Scene, targets: tuple[str, ...], hours: tuple[int, int] = (2, 1)) -> None:
        self.scene = scene
        scene.configure(targets=[scene.world.target(name, f"target-{name}") for name in targets])
        self.older, self.newest = (self.make(targets, -age * HOUR_S) for age in hours)

    def make(self, targets: tuple[str, ...], clock_offset_s: int) -> str:
        self.scene.change(f"at{clock_offset_s}")
        made = self.scene.backup(clock_offset_s=clock_offset_s)
        assert made.code == 0, made.out
        for target in targets:
            assert self.scene.prove(target, clock_offset_s=clock_offset_s).code == 0
        return str(made.result["id"])

    def place(self, target: str = "near") -> Path:
        return self.scene.world.top / f"target-{target}" / "fluxhero/production"

    def reasons(self, ran: Ran) -> dict[str, str]:
        return {reason["code"]: reason["text"] for reason in ran.result["reasons"]}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, engine_server: EngineServer) -> tuple[Life, Path]:
    """Two targets, and a copy of everything as it was then."""
    top = tmp_path_factory.mktemp("tampered")
    made = Life(Scene(top / "world", engine_server), ("near", "other"))
    shutil.copytree(top / "world", top / "as it was", symlinks=True)
    return made, top / "as it was"


@pytest.fixture
def life(shared: tuple[Life, Path]) -> Life:
    """That life, as it was."""
    made, copy = shared
    shutil.rmtree(made.scene.world.top)
    shutil.copytree(copy, made.scene.world.top, symlinks=True)
    return made


def without(*names: str) -> Callable[[Life], None]:
    def remove(life: Life) -> None:
        for name in names:
            (life.place() / "generations" / life.newest / name).unlink()

    return remove


def without_all(life: Life) -> None:
    shutil.rmtree(life.place() / "generations" / life.newest)


def without_all_but_commit(life: Life) -> None:
    for path in (life.place() / "generations" / life.newest).iterdir():
        if path.name != layout.COMMIT:
            path.unlink()


def without_cache_file(life: Life) -> None:
    manifest = json.loads((life.place() / "generations" / life.newest / layout.MANIFEST).read_bytes())
    older = (life.place() / "generations" / life.older / layout.MANIFEST).read_text()
    own = next(item["object"] for item in manifest["cache"] if item["object"] not in older)
    (life.place() / own).unlink()


# What is deleted of the newest generation; whether it still looks committed, and whether `latest` is passed on.
HALVES: dict[str, tuple[Callable[[Life], None], bool, bool]] = {
    "COMMIT": (without("COMMIT"), False, True),
    "everything": (without_all, False, True),
    "manifest": (without("MANIFEST.json"), True, True),
    "signature": (without("MANIFEST.json.sig"), True, True),
    "all but COMMIT": (without_all_but_commit, True, True),
    "a database": (without("db-trades.sqlite.zst.age"), True, False),
    "the configuration": (without("config.tar.zst.age"), True, False),
    "the instructions": (without("RESTORE.txt"), True, False),
    "a cache file": (without_cache_file, True, False),
}


@pytest.mark.parametrize("half", HALVES)
def test_a_generation_of_which_somebody_has_deleted_a_half(life: Life, half: str) -> None:
    """It counts as nothing, and people hear of it; the other target, and the older generation, are as they were."""
    delete, committed, passed_over = HALVES[half]
    scene = life.scene
    watch = Invariants(scene)
    delete(life)
    status = scene.run("status")
    near = status.result["targets"]["near"]
    assert (status.code, near["newest"], near["newest_proven"]) == (3, life.older, life.older)
    assert (f"suspect_{life.newest}" in life.reasons(status)) == committed
    assert ("generations_lost_near" in life.reasons(status)) == (not committed)
    assert status.result["newest_proven"] == life.newest, "the other target has it whole"
    ran = scene.prove("near")
    if passed_over:
        assert (ran.code, ran.result["generation"]) == (3 if committed else 0, life.older), ran.out
        assert any(life.newest in problem for problem in ran.result["problems"]) == committed
    else:
        assert (ran.code, ran.result["message"]) == (5, "is missing on target near"), ran.out
        assert half == "the instructions" or "or an older one: fluxmaint generations" in ran.result["remedy"]
    watch.hold(status, ran, away=("near",))
    other = scene.prove("other")
    assert (other.code, other.result["generation"]) == (0, life.newest)
    watch.hold(other, away=("near",))
    # A newer one that is whole does not make people forget this one, or take it for the newest proven one.
    scene.change("next")
    watch.watch(proofs=False)
    made = scene.backup()
    assert made.code == 0
    watch.hold_after_next_run(made, away=("near",))
    after = scene.run("status")
    assert after.result["targets"]["near"]["newest_proven"] == life.older
    assert after.code == 3 and {"generations_lost_near", f"suspect_{life.newest}"} & life.reasons(after).keys()


@pytest.mark.parametrize("half", ["COMMIT", "everything"])
def test_the_only_copy_of_the_newest_generation_is_gone(tmp_path: Path, engine_server: EngineServer, half: str) -> None:
    """An older one is young enough to look well, but the host knows what it has stored."""
    scene = Scene(tmp_path / "world", engine_server)
    life = Life(scene, ("near",))
    assert scene.run("status").code == 0
    HALVES[half][0](life)
    status = scene.run("status")
    assert (status.code, status.result["lost"]) == (3, {"near": [life.newest]})
    assert "has lost a generation that was stored on it" in life.reasons(status)["generations_lost_near"]
    late = scene.run("status", clock_offset_s=31 * DAY_S)
    assert late.result["lost"] == {}, "retention may have let it go by then"


@pytest.mark.parametrize("key", ["its own", "the same"])
@pytest.mark.parametrize("place", ["over the newest", "as a newer one"])
def test_a_generation_of_another_host_is_not_taken(
    tmp_path: Path, engine_server: EngineServer, key: str, place: str
) -> None:
    """Also when both hosts sign with one key, as copies of one machine do."""
    scene = Scene(tmp_path / "world", engine_server)
    life = Life(scene, ("near",))
    other = as_another_host(scene, "foreign" if key == "its own" else "signing")
    made = scene.run("backup", config=other)
    assert made.code == 0, made.out
    foreign = scene.world.top / "target-near/fluxhero/other/generations" / made.result["id"]
    victim = life.place() / "generations" / (life.newest if place == "over the newest" else made.result["id"])
    if place == "over the newest":
        for name in (layout.MANIFEST, layout.SIGNATURE, layout.COMMIT):
            shutil.copyfile(foreign / name, victim / name)
    else:
        shutil.copytree(foreign, victim)
    true = life.older if place == "over the newest" else life.newest
    ran = scene.prove("near")
    assert (ran.code, ran.result["generation"]) == (3, true), ran.out
    because = "is signed by a foreign key" if key == "its own" else "put in the place of fluxhero/production/"
    assert any(victim.name in problem and because in problem for problem in ran.result["problems"]), ran.out
    named = scene.prove("near", victim.name)
    assert named.code == 5 and because in named.result["message"], named.out
    status = scene.run("status")
    assert (status.code, status.result["newest"], status.result["newest_proven"]) == (3, true, true)
    assert because in life.reasons(status)[f"suspect_{victim.name}"]
    pruned = scene.run("prune")
    assert (pruned.code, pruned.result["targets"]["near"]["suspect"]) == (3, [victim.name])
    assert victim.is_dir(), "it is evidence"
    Invariants(scene).no_secret_is_seen()


def as_another_host(scene: Scene, key: str) -> Path:
    """The configuration of a host `other`, which signs with this key and has the same targets."""
    top = scene.world.top / "another"
    (top / "state").mkdir(parents=True)
    document: dict[str, Any] = json.loads(scene.world.config_file.read_text())
    document.update(host="other", state_dir=str(top / "state"), run_dir=str(top / "run"))
    file = scene.world.keys / f"{key}_ed25519"
    document["backup"].update(staging_dir=str(top / "staging"), signing_key_file=str(file), signer="fluxhero@other")
    with (scene.world.keys / "allowed_signers").open("a") as signers:
        signers.write(f"fluxhero@other {file.with_suffix('.pub').read_text()}")
    config = top / "config.json"
    config.write_text(json.dumps(document))
    return config


def test_a_reader_whose_clock_is_a_day_back_does_not_get_an_old_generation_without_a_word(
    tmp_path: Path, engine_server: EngineServer
) -> None:
    scene = Scene(tmp_path / "world", engine_server)
    life = Life(scene, ("near",), hours=(30, 1))
    old, new = life.older, life.newest
    watch = Invariants(scene)
    ran = scene.prove("near", clock_offset_s=-DAY_S)
    assert (ran.code, ran.result["generation"]) == (3, old), ran.out
    assert ran.result["problems"] == [f"generation {new} claims to come from the future: look at the clocks"]
    watch.hold(ran)
    status = scene.run("status", clock_offset_s=-DAY_S)
    assert status.code == 3
    assert "ahead of this host's clock" in life.reasons(status)["newest_ahead"]
    identity = scene.world.keys / "operator.key"
    found = scene.run(
        "extract",
        "--path",
        "*.env",
        "--to",
        scene.world.top / "tmp/found",
        "--identity",
        identity,
        "--target",
        "near",
        clock_offset_s=-DAY_S,
    )
    assert (found.code, found.result["generation"]) == (3, old), found.out
    assert new in str(found.result["problems"])
    shutil.rmtree(scene.world.top / "tmp/found")
    pruned = scene.run("prune", clock_offset_s=-DAY_S)
    assert pruned.code in (0, 3) and pruned.result["targets"]["near"]["deleted"] == []
    watch.hold_after_next_run(status, pruned)
    assert scene.run("status").code == 0
