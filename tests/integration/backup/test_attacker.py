"""Who holds the host's upload key destroys no proven generation, and does not get another one taken for the newest."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from fluxmaint.backup import catalog, crypto, layout, proof, prune
from fluxmaint.core.config import Retention
from fluxmaint.core.errors import EngineError
from fluxmaint.service import backup_status
from fluxmaint.store.open import open_store
from fluxmaint.store.path import PathStore

from tests.support.clocks import At
from tests.support.seaweed import BUCKET, ObjectStore
from tests.support.world import World

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "attack"
BASE = f"{PREFIX}/fluxhero/production/"


class Attacker:
    """Everything that somebody with the key of the uploader can think of."""

    def __init__(self, server: ObjectStore, identity: str = "uploader") -> None:
        self.client = server.client(identity)
        self.refused = 0
        found = self.client.list_object_versions(Bucket=BUCKET, Prefix=BASE)
        self.versions = [(item["Key"], item["VersionId"]) for item in found["Versions"]]

    def attempt(self, operation: str, **arguments: Any) -> bool:
        try:
            answer = getattr(self.client, operation)(Bucket=BUCKET, **arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] != "AccessDenied":
                raise
            self.refused += 1
            return False
        return not answer.get("Errors")

    def change_the_rules(self) -> None:
        now = datetime.now(timezone.utc)
        configuration = {"ObjectLockEnabled": "Enabled"}
        assert not self.attempt("put_object_lock_configuration", ObjectLockConfiguration=configuration)
        assert not self.attempt("put_bucket_versioning", VersioningConfiguration={"Status": "Suspended"})
        assert not self.attempt("put_bucket_policy", Policy="{}")
        assert not self.attempt("delete_bucket_policy")
        assert not self.attempt("delete_bucket")
        for key, version in self.versions[:3]:
            shorter = {"Mode": "COMPLIANCE", "RetainUntilDate": now + timedelta(seconds=1)}
            assert not self.attempt("put_object_retention", Key=key, VersionId=version, Retention=shorter)

    def delete(self) -> None:
        for key, version in self.versions:
            assert not self.attempt("delete_object", Key=key)
            assert not self.attempt("delete_object", Key=key, VersionId=version)
        batch = [{"Key": key, "VersionId": version} for key, version in self.versions]
        assert not self.attempt("delete_objects", Delete={"Objects": batch})

    def overwrite(self) -> None:
        for key, _version in self.versions:
            self.put(key, b"rubbish")

    def put(self, key: str, data: bytes) -> None:
        assert self.attempt("put_object", Key=key, Body=data)

    def original(self, key: str) -> bytes:
        version = next(version for found, version in self.versions if found == key)
        return bytes(self.client.get_object(Bucket=BUCKET, Key=key, VersionId=version)["Body"].read())

    def make_up(self, world: World, genuine: str, forged: str) -> None:
        """A generation that is committed, whole, and signed by a key that may sign, but not as this host."""
        source, place = (f"{BASE}generations/{identity}/" for identity in (genuine, forged))
        for key, _version in self.versions:
            if key.startswith(source):
                self.put(place + key[len(source) :], self.original(key))
        manifest = json.loads(self.original(source + layout.MANIFEST))
        data = json.dumps({**manifest, "id": forged}).encode()
        self.put(place + layout.MANIFEST, data)
        signature = crypto.sign(data, world.keys / "verifier_ed25519", crypto.MANIFEST_NAMESPACE)
        self.put(place + layout.SIGNATURE, signature)
        self.put(place + layout.COMMIT, hashlib.sha256(data).hexdigest().encode())

    def forge_proofs(self, generation: str) -> None:
        for hour in range(5):
            key = f"{BASE}proofs/{generation}/20991231T{hour:02d}0000Z-staging.json"
            self.put(key, json.dumps({"generation": generation, "result": "proven", "verifier": "staging"}).encode())
            self.put(key + ".sig", b"rubbish")


@pytest.fixture(scope="module")
def generations(
    tmp_path_factory: pytest.TempPathFactory, object_store: ObjectStore
) -> tuple[World, list[str], Attacker]:
    """Three generations, the first and the last proven, after the attack."""
    from tests.support.world import build

    world = build(tmp_path_factory.mktemp("attack") / "world")
    targets = [object_store.target(PREFIX)]
    kinds = (("full", 60), ("daily", 40), ("daily", 0))
    ids = [world.create(kind, targets=targets, clock=At(days=-days))["id"] for kind, days in kinds]
    for identity in (ids[0], ids[2]):
        assert world.prove(identity, target="offsite")["written_back"]
    attacker = Attacker(object_store)
    attacker.change_the_rules()
    attacker.delete()
    attacker.overwrite()
    now = datetime.now(timezone.utc)
    for moment in (now + timedelta(minutes=2), now + timedelta(hours=5), now + timedelta(days=20000)):
        attacker.make_up(world, ids[2], layout.new_id(moment))
    for identity in (*ids, layout.new_id(now + timedelta(days=30000))):
        attacker.forge_proofs(identity)
    # Delete markers as somebody with more rights could put them.
    for name in (layout.COMMIT, "db-trades.sqlite.zst.age"):
        object_store.client().delete_object(Bucket=BUCKET, Key=f"{BASE}generations/{ids[0]}/{name}")
    world.config(targets=[object_store.target(PREFIX, "reader")])
    return world, ids, attacker


def test_the_store_refused_what_destroys(generations: tuple[World, list[str], Attacker]) -> None:
    _world, _ids, attacker = generations
    assert attacker.refused > 2 * len(attacker.versions)


@pytest.mark.parametrize("number", range(3))
def test_every_generation_restores(generations: tuple[World, list[str], Attacker], tmp_path: Path, number: int) -> None:
    world, ids, _attacker = generations
    fetched = world.fetch(tmp_path / "out", ids[number], target="offsite")
    assert (fetched.findings["trades"].rows["trades"], fetched.manifest.id) == (200, ids[number])
    overwritten = {problem.partition(":")[0].rpartition("/")[2] for problem in fetched.problems}
    assert {"COMMIT", "MANIFEST.json", "MANIFEST.json.sig", "RESTORE.txt"} <= overwritten
    assert "db-trades.sqlite.zst.age" in overwritten


def test_latest_is_the_true_newest(generations: tuple[World, list[str], Attacker], tmp_path: Path) -> None:
    world, ids, _attacker = generations
    fetched = world.fetch(tmp_path / "out", "latest", target="offsite", parts=["db-trades"])
    assert fetched.manifest.id == ids[2]
    told = "\n".join(fetched.problems)
    assert "from the future" in told
    assert "passed over" in told


def test_proofs_count_and_made_up_ones_do_not(generations: tuple[World, list[str], Attacker]) -> None:
    world, ids, _attacker = generations
    signers = {"allowed_signers_file": world.keys / "allowed_signers"}
    for identity, count in zip(ids, (1, 0, 1)):
        proofs = proof.verified(world.open("offsite"), "fluxhero", "production", identity, **signers)
        assert len(proofs) == count, identity


def test_pruning_afterwards_keeps_what_is_proven(
    generations: tuple[World, list[str], Attacker], object_store: ObjectStore, tmp_path: Path
) -> None:
    world, ids, _attacker = generations
    config = world.config(targets=[object_store.target(PREFIX, "pruner")])
    planned, result = (
        prune.prune(
            open_store(config.require_backup().targets[0]),
            "fluxhero",
            "production",
            policy=Retention(keep_days=1, keep_weekly=0, keep_monthly=0),
            allowed_signers_file=world.keys / "allowed_signers",
            signer="fluxhero@production",
            dry_run=dry_run,
        )
        for dry_run in (True, False)
    )
    world.config(targets=[object_store.target(PREFIX, "reader")])
    assert len(result["suspect"]) == 3, "made-up generations are named, and neither count nor are deleted"
    reasons = {item["id"]: item["reason"] for item in result["kept"]}
    assert reasons[ids[2]] == "the newest proven one"
    assert reasons[ids[0]] == "the newest proven full one"
    assert [item["id"] for item in result["locked"]] == [ids[1]], "the policy would let it go, the lock does not"
    assert result["result"] == "degraded"
    assert [planned[key] for key in ("kept", "locked")] == [result[key] for key in ("kept", "locked")]
    for identity in (ids[0], ids[2]):
        assert world.fetch(tmp_path / identity, identity, target="offsite").manifest.id == identity


def test_a_thief_of_the_pruning_key_cannot_break_the_lock(
    generations: tuple[World, list[str], Attacker], object_store: ObjectStore, tmp_path: Path
) -> None:
    world, ids, attacker = generations
    thief = Attacker(object_store, "pruner")
    for key, version in attacker.versions:
        assert not thief.attempt("delete_object", Key=key, VersionId=version)
    assert not thief.attempt("put_object", Key=f"{BASE}rubbish", Body=b"rubbish")
    for key in {key for key, _version in thief.versions}:
        assert thief.attempt("delete_object", Key=key), "a marker, that hides it, no more"
    assert not list(world.open("offsite").list("fluxhero/production/generations/"))
    fetched = world.fetch(tmp_path / "out", "latest", target="offsite")
    assert fetched.manifest.id == ids[2]


def test_a_clock_that_was_ahead_does_not_keep_its_generation_the_latest(world: World, tmp_path: Path) -> None:
    ahead = world.create(clock=At(hours=9))["id"]
    far = world.create(clock=At(days=400))["id"]
    nothing_else = world.fetch(tmp_path / "nothing-else", parts=["config"])
    assert nothing_else.manifest.id == ahead, "near is better than nothing"
    right = world.create()["id"]
    fetched = world.fetch(tmp_path / "latest", parts=["config"])
    assert fetched.manifest.id == right
    told = [f"generation {identity} claims to come from the future: look at the clocks" for identity in (far, ahead)]
    assert (nothing_else.problems, fetched.problems) == (told, told)
    assert world.fetch(tmp_path / "named", far, parts=["config"]).manifest.id == far
    found = catalog.candidates(world.open(), "fluxhero", "production", now=At(days=-1).now() - timedelta(days=5))
    assert found.ids == [], "a reader whose clock is far behind is told so, not given anything"


def test_a_signature_that_nobody_can_verify_is_an_error_when_all_are_so(world: World, tmp_path: Path) -> None:
    identity = world.create()["id"]
    (world.store / f"fluxhero/production/generations/{identity}/MANIFEST.json.sig").write_text("rubbish")
    with pytest.raises(EngineError, match=r"MANIFEST\.json\.sig"):
        world.fetch(tmp_path / "out", "latest")


@pytest.mark.parametrize("forgery", ["stray commit", "no signature of this host", "object gone"])
def test_what_does_not_verify_makes_no_backup_look_fresh(
    world: World, monkeypatch: pytest.MonkeyPatch, forgery: str
) -> None:
    targets = [world.target("one", "one"), world.target("two", "two")]
    ids = [world.create(clock=At(hours=-hours), targets=targets)["id"] for hours in (60, 50, 30)]
    place = world.top / "one/fluxhero/production/generations"
    late = layout.new_id(At(minutes=-5).now())
    if forgery == "stray commit":
        (place / late).mkdir()
        (place / late / layout.COMMIT).write_text("x")
    elif forgery == "no signature of this host":
        shutil.copytree(place / ids[2], place / late)
    else:
        late = world.create(clock=At(minutes=-5), targets=targets)["id"]
        for target in ("one", "two"):
            (world.top / target / f"fluxhero/production/generations/{late}/db-trades.sqlite.zst.age").unlink()
    read: list[str] = []
    get_bytes = PathStore.get_bytes

    def noted(self: PathStore, key: str, *rest: Any) -> bytes:
        read.append(key)
        return get_bytes(self, key, *rest)

    monkeypatch.setattr(PathStore, "get_bytes", noted)
    facts = backup_status.status(world.config(targets=targets))
    assert facts["newest"] == ids[2]
    reasons = {reason["code"]: reason for reason in facts["reasons"]}
    assert reasons["backup_overdue"]["severity"] == facts["result"] == "overdue"
    assert f"generation {late} on one" in reasons[f"suspect_{late}"]["text"]
    assert facts["targets"]["one"]["newest"] == ids[2]
    assert f"does not verify on one{', two' * (forgery == 'object gone')}: no backup" in backup_status.text(facts)
    assert {key.split("/")[3] for key in read} == {late, ids[2]}, "no more is read than it takes to find a good one"
