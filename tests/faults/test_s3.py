# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object store that fails, stalls, lies or refuses, behind a proxy; then one that is away for an hour."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.faults.invariants import Invariants
from tests.faults.scene import EngineServer, Scene
from tests.support.s3_proxy import S3Proxy

if TYPE_CHECKING:
    from tests.support.seaweed import ObjectStore

PART = "db-trades.sqlite.zst.age"
LISTING = "list-type=2"
# What strikes, on which requests, how often, and whether the client's own retries get over it.
UPLOADS = {
    "500 on everything": ("error", "", "", -1, False),
    "500 on uploads": ("error", "PUT", ".age", -1, False),
    "500 on COMMIT": ("error", "PUT", "COMMIT", -1, False),
    "500 once": ("error", "PUT", PART, 1, True),
    "503 once": ("busy", "PUT", "COMMIT", 1, True),
    "stalls on a listing": ("stall", "GET", LISTING, -1, False),
    "stalls on an upload": ("stall", "PUT", PART, -1, False),
    "stalls on reading back": ("stall", "GET", PART, -1, False),
    "closes before an answer": ("reset", "PUT", PART, -1, False),
    "closes half-way while it is read": ("half", "GET", PART, -1, False),
    "closes half-way in a listing": ("half", "GET", LISTING, -1, False),
    "loses the answer to an upload": ("lost answer", "PUT", PART, 1, None),
    "loses the answer to COMMIT": ("lost answer", "PUT", "COMMIT", 1, None),
    "gives back wrong bytes": ("wrong bytes", "GET", PART, -1, False),
    "gives back a wrong COMMIT": ("wrong bytes", "GET", "COMMIT", -1, False),
    "gets wrong bytes": ("wrong upload", "PUT", PART, -1, False),
    "gets a wrong COMMIT": ("wrong upload", "PUT", "COMMIT", -1, False),
    "answers with wrong checksums": ("wrong checksum", "PUT", ".age", -1, None),
    "reads with wrong checksums": ("wrong checksum", "GET", ".age", -1, None),
    "may not list": ("denied", "GET", LISTING, -1, False),
    "may not upload": ("denied", "PUT", "", -1, False),
    "may not read": ("denied", "GET", ".age", -1, False),
}
READING = {
    "500": ("error", "GET", PART),
    "stalls": ("stall", "GET", PART),
    "closes before an answer": ("reset", "GET", PART),
    "closes half-way": ("half", "GET", PART),
    "wrong bytes": ("wrong bytes", "GET", PART),
    "wrong bytes in the manifest": ("wrong bytes", "GET", "MANIFEST.json"),
    "wrong bytes in the signature": ("wrong bytes", "GET", "MANIFEST.json.sig"),
    "wrong bytes in COMMIT": ("wrong bytes", "GET", "COMMIT"),
    "may not read": ("denied", "GET", PART),
}


@pytest.fixture(scope="module")
def proxy(object_store: ObjectStore) -> Iterator[S3Proxy]:
    with S3Proxy(object_store.endpoint) as made:
        yield made


@pytest.fixture(scope="module")
def life(
    tmp_path_factory: pytest.TempPathFactory, engine_server: EngineServer, object_store: ObjectStore, proxy: S3Proxy
) -> Scene:
    """One service for all these faults, one after the other; its store is behind the proxy."""
    scene = Scene(tmp_path_factory.mktemp("s3") / "world", engine_server)
    far = object_store.target(f"faults-{os.getpid()}-{random.randrange(10**9)}")
    far = {**far, "endpoint": proxy.endpoint, "answer_timeout_s": 1, "retries": 1}
    scene.configure(targets=[scene.world.target("near", "target-near"), far])
    first = scene.backup()
    assert first.code == 0, first.out + first.err
    for target in ("near", "offsite"):
        assert scene.prove(target).code == 0
    return scene


@pytest.fixture
def scene(life: Scene, proxy: S3Proxy) -> Iterator[Scene]:
    """That life, while nothing is wrong."""
    yield life
    proxy.heal()


@pytest.mark.parametrize("case", UPLOADS)
def test_storing(scene: Scene, proxy: S3Proxy, case: str) -> None:
    fault, method, path, times, recovers = UPLOADS[case]
    scene.change(case.replace(" ", "-"))
    watch = Invariants(scene)
    rule = proxy.fail(fault, method, path, times)
    ran = scene.backup()
    proxy.heal()
    assert rule.struck, "the fault has struck nothing"
    assert ran.code in (0, 3), ran.out
    assert ran.result["targets"]["near"] == "stored"
    if recovers is not None:
        assert (ran.result["targets"]["offsite"] == "stored") == recovers, ran.out
    watch.hold(ran)
    after = scene.backup()
    assert after.code == 0, after.out
    if ran.code == 3:
        assert after.result["caught_up"][ran.result["id"]] == {"near": "stored", "offsite": "stored"}
    watch.hold_after_next_run(after)


@pytest.mark.parametrize("case", READING)
def test_proving(scene: Scene, proxy: S3Proxy, case: str) -> None:
    fault, method, path = READING[case]
    watch = Invariants(scene)
    rule = proxy.fail(fault, method, path)
    ran = scene.prove("offsite")
    proxy.heal()
    assert rule.struck, "the fault has struck nothing"
    assert ran.code in (5, 6), ran.out
    assert ran.result["subject"], "which object it is about"
    watch.hold(ran)
    after = scene.prove("offsite")
    assert after.code == 0
    watch.hold_after_next_run(after)


def test_a_proof_that_may_not_be_written_is_not_reported_as_written(scene: Scene, proxy: S3Proxy) -> None:
    watch = Invariants(scene)
    made = scene.backup()
    proxy.fail("denied", "PUT", "/proofs/")
    ran = scene.prove("offsite")
    proxy.heal()
    assert ran.result["generation"] == made.result["id"]
    assert (ran.result["written_back"], bool(ran.result["write_back_error"])) == (False, True)
    status = scene.run("status").result
    assert status["newest_proven"] < made.result["id"]
    watch.hold_after_next_run(ran)


def test_status_does_not_call_a_store_that_fails_well(scene: Scene, proxy: S3Proxy) -> None:
    watch = Invariants(scene)
    proxy.fail("error", "GET", LISTING)
    ran = scene.run("status")
    assert (ran.code, ran.result["targets"]["offsite"]["reachable"]) == (3, False)
    proxy.heal()
    watch.hold(ran)


def test_away_for_an_hour(scene: Scene, proxy: S3Proxy, object_store: ObjectStore) -> None:
    """A backup every ten minutes, by a clock that is ahead; none reaches the store, which is back in the end."""
    document = json.loads(scene.world.config_file.read_text())
    down = [dict(target) for target in document["backup"]["targets"]]
    down[1]["endpoint"] = "http://127.0.0.1:9"
    up, watch, late = scene.targets, Invariants(scene), []
    scene.configure(targets=down)
    for minute in range(0, 60, 10):
        ran = scene.backup(clock_offset_s=minute * 60)
        assert ran.code == 3 and ran.result["targets"] == {"near": "stored", "offsite": "failed"}
        late.append(ran.result["id"])
        watch.hold(ran, away=("offsite",))
    scene.configure(targets=up)
    after = scene.backup(clock_offset_s=3600)
    assert after.code == 0, after.out
    assert after.result["caught_up"] == {identity: {"near": "stored", "offsite": "stored"} for identity in late}
    watch.hold_after_next_run(after)
