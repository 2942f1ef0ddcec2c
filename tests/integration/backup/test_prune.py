"""Pruning deletes what retention lets go, in an order that makes a kill harmless, and never what is needed."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from fluxmaint.backup import catalog, crypto, generation, layout, prune
from fluxmaint.core.errors import ConfigError, LeaseError, StoreError
from fluxmaint.core.journal import Journal
from fluxmaint.core.lease import Lease
from fluxmaint.store.open import open_store
from fluxmaint.store.path import PathStore
from fluxmaint.store.s3 import S3Store

from tests.support.clocks import At
from tests.support.seaweed import ObjectStore
from tests.support.world import World

if TYPE_CHECKING:
    from pathlib import Path

POLICY = {"keep_days": 10, "keep_weekly": 1, "keep_monthly": 0}


def targets(world: World) -> list[dict[str, Any]]:
    return [world.target("one", "one"), world.target("two", "two")]


def make(world: World, *days: float, **changes: Any) -> list[str]:
    changes.setdefault("targets", targets(world))
    return [world.create(clock=At(days=-ago), **changes)["id"] for ago in days]


def run(world: World, *, dry_run: bool = False, target: str = "", **changes: Any) -> dict[str, Any]:
    changes.setdefault("targets", targets(world))
    config = world.config(**{"retention": POLICY, **changes})
    result: dict[str, Any] = prune.prune_configured(
        config, target=target, dry_run=dry_run, journal=Journal(config.journal_file)
    )
    return result


def ids(world: World, target: str = "one", state: str = "committed") -> list[str]:
    listed = catalog.list_generations(world.open(target), "fluxhero", "production")
    return [item.id for item in listed if item.state == state]


def age(path: Path, days: float) -> None:
    for file in path.rglob("*"):
        if file.is_file():
            os.utime(file, (time.time() - days * 86400,) * 2)


@pytest.fixture
def history(world: World) -> list[str]:
    """Five generations; one is due: the older one of a week that has two, and newer ones are proven."""
    now = datetime.now(timezone.utc)
    monday = 28 + now.weekday()
    found = make(world, monday - 1, monday - 2, 3, 0)
    for identity in found[2:]:
        world.prove(identity, target="one")
    return found


def test_a_target_that_is_away_does_not_keep_the_others_from_being_pruned(world: World, history: list[str]) -> None:
    config = world.config(retention=POLICY, targets=targets(world))
    (world.top / "one/.fluxmaint-target").unlink()
    with pytest.raises(StoreError, match="target one lacks its marker"):
        prune.prune_configured(config, journal=Journal(config.journal_file))
    ends = [entry["result"] for entry in Journal(world.top / "state/journal.jsonl").read("prune") if "result" in entry]
    assert ends == ["failed", "ok"]
    assert ids(world, "two") == history[::-1], "what the other target holds is not known: nothing is deleted"


def test_the_policy_is_applied_on_every_directory(world: World, history: list[str], tmp_path: Path) -> None:
    planned = run(world, dry_run=True)
    assert ids(world) == history[::-1], "a dry run deletes nothing"
    result = run(world)
    for name in ("one", "two"):
        found = result["targets"][name]
        assert [item["id"] for item in found["deleted"]] == [history[0]]
        assert [item["id"] for item in planned["targets"][name]["deleted"]] == [history[0]]
        assert (found["result"], found["changed"]) == ("ok", True)
        assert ids(world, name) == history[:0:-1]
        assert not (world.top / name / f"fluxhero/production/generations/{history[0]}").exists()
        for identity in history[1:]:
            world.fetch(tmp_path / f"{name}-{identity}", identity, target=name)
    entry = Journal(world.top / "state/journal.jsonl").read("prune")[-1]
    assert [item["id"] for item in entry["deleted"]] == [history[0]]
    again = run(world)
    assert (again["changed"], again["result"]) == (False, "ok"), "a second run has nothing to do"
    assert history[1] in prune.table(result["targets"]["one"])
    assert json.loads(json.dumps(result)) == result


def test_nothing_goes_while_no_newer_one_is_proven_on_two_targets(world: World) -> None:
    made = make(world, 29, 28, 27, 0)
    assert run(world)["changed"] is False
    world.prove(made[3], target="one")
    away = world.top / "away"
    (world.top / "two/fluxhero/production/generations" / made[3]).rename(away)
    assert run(world, target="one")["changed"] is False, "one target alone does not do"
    away.rename(world.top / "two/fluxhero/production/generations" / made[3])
    assert run(world, target="one")["changed"] is True


@pytest.mark.parametrize("target", ["one", "two"])
@pytest.mark.parametrize("half", ["generations/{}/db-trades.sqlite.zst.age", "generations/{}/RESTORE.txt", "cache/*"])
def test_a_proven_one_of_which_a_half_is_gone_lets_nothing_go(world: World, target: str, half: str) -> None:
    made = make(world, 29, 28, 27, 0)
    world.prove(made[3], target="one")
    found = next((world.top / target / "fluxhero/production").glob(half.format(made[3])))
    found.rename(world.top / "away")
    result = run(world)
    assert result["changed"] is False, "what cannot be restored makes nothing superfluous, wherever the other copy is"
    suspect = result["targets"][target]["suspect"]
    assert made[3] in suspect and result["result"] == "degraded"
    assert f"{found.name}: is missing on target {target}" in str(result["targets"][target]["problems"])
    (world.top / "away").rename(found)
    assert run(world)["changed"] is True


@pytest.mark.parametrize("flaw", ["signature", "another manifest", ""])
def test_a_forged_proof_lets_nothing_go(world: World, flaw: str) -> None:
    made = make(world, 29, 28, 27, 0)
    for name in ("one", "two"):
        store = world.open(name)
        key = layout.proof("fluxhero", "production", made[3], datetime.now(timezone.utc), "staging")
        manifest = store.digest(f"fluxhero/production/generations/{made[3]}/{layout.MANIFEST}")
        digest = "0" * 64 if flaw == "another manifest" else manifest
        said = {"generation": made[3], "host": "production", "result": "proven", "proven_at": "2026-11-23T04:00:00Z"}
        data = json.dumps({**said, "verifier": "staging", "manifest_sha256": digest}).encode()
        signer = "foreign" if flaw == "signature" else "verifier"
        signature = crypto.sign(data, world.keys / f"{signer}_ed25519", crypto.PROOF_NAMESPACE)
        store.put_new(key, data)
        store.put_new(key + ".sig", signature)
    assert run(world)["changed"] is not bool(flaw)


def test_a_kill_at_any_deletion_leaves_whole_generations_and_orphans(
    world: World, history: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    delete = PathStore.delete
    left = [0]

    def deadly(self: PathStore, key: str, version: str = "") -> None:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        delete(self, key, version)

    world.prove(history[0], target="one")
    world.prove(history[1], target="one")
    shutil.copytree(world.top / "one", tmp_path / "before")
    monkeypatch.setattr(PathStore, "delete", deadly)
    killed = 0
    for deletions in range(40):
        shutil.rmtree(world.top / "one")
        shutil.copytree(tmp_path / "before", world.top / "one")
        left[0] = deletions
        try:
            run(world, target="one")
        except Killed:
            killed += 1
        else:
            break
        assert deletions == 0 or history[0] not in ids(world), "COMMIT goes first"
        if history[0] in ids(world):
            world.fetch(tmp_path / "whole", history[0], target="one")
        left[0] = -1
        age(world.top / "one", 5)
        run(world, target="one")
        assert ids(world, state="orphan") == []
        assert sorted(ids(world)) == history[1:]
        proofs = {item.key.split("/")[3] for item in world.open("one").list("fluxhero/production/proofs/")}
        assert proofs == set(history[1:]), "proofs go with their generation"
    assert killed > 8, "it was killed after each of its deletions"
    for identity in history[1:]:
        world.fetch(tmp_path / identity, identity, target="one")


def test_what_was_never_completed_goes_after_a_grace(world: World, tmp_path: Path) -> None:
    made = make(world, 20, 0)
    for name in ("one", "two"):
        (world.top / name / f"fluxhero/production/generations/{made[0]}/COMMIT").unlink()
    partial = world.top / f"one/fluxhero/production/generations/{made[1]}/.partial-x"
    partial.write_bytes(b"half")
    result = run(world)
    assert result["targets"]["one"]["orphans"]["waiting"] == [made[0]], "young by the store's own time"
    age(world.top / "one", 3)
    result = run(world)
    assert result["targets"]["one"]["orphans"]["deleted"] == [made[0]]
    assert result["targets"]["two"]["orphans"]["waiting"] == [made[0]]
    assert result["targets"]["one"]["uploads"] == {"aborted": 1, "waiting": 0}
    assert not partial.exists()
    world.fetch(tmp_path / "out", made[1], target="one")


def test_a_cache_file_goes_when_no_generation_lists_it(world: World, tmp_path: Path) -> None:
    gone = world.root / "data/cache/spy.parquet"
    first = make(world, 40)
    gone.unlink()
    made = make(world, 40 - 1 / 24, 3, 0)
    for identity in made:
        world.prove(identity, target="one")
    cache = world.top / "one/fluxhero/production/cache"
    assert len(list(cache.iterdir())) == 2
    result = run(world, target="one", retention={**POLICY, "keep_weekly": 0})
    assert first[0] not in ids(world)
    assert result["targets"]["one"]["cache"]["waiting"] == 1, "it is young by the store's time"
    age(cache, 3)
    assert run(world, target="one")["targets"]["one"]["cache"]["deleted"] == 1
    assert len(list(cache.iterdir())) == 1
    world.fetch(tmp_path / "out", made[-1], target="one")


def test_what_somebody_else_has_put_there_is_named_and_left_alone(world: World, history: list[str]) -> None:
    base = world.top / "one/fluxhero/production"
    foreign = [base / "cache", base / "generations" / history[0], base / "proofs"]
    for directory in foreign:
        (directory / os.fsdecode(b"\xff\xfe.jpg")).write_text("precious")
    age(base, 30)
    result = run(world)["targets"]["one"]
    assert [item["id"] for item in result["deleted"]] == [history[0]], "the rest is done"
    assert result["result"] == "degraded"
    assert sum("\\xff\\xfe.jpg is no object" in problem for problem in result["problems"]) == 3
    assert all((directory / os.fsdecode(b"\xff\xfe.jpg")).read_text() == "precious" for directory in foreign)
    Journal(world.top / "state/journal.jsonl").verify()
    assert ids(world) == history[:0:-1]


def test_no_pruning_during_a_backup(world: World, history: list[str]) -> None:
    with Lease(world.top / "run/backup.lock", purpose="backup daily"), pytest.raises(LeaseError, match="backup daily"):
        run(world)
    assert ids(world) == history[::-1]


def test_a_bad_policy_is_refused_before_anything(world: World, history: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"backup\.retention\.keep_days.*|backup\.retention\.keep_yearly"):
        run(world, retention={"keep_days": 0, "keep_yearly": 3})
    world.config(targets=targets(world))
    assert ids(world) == history[::-1]


def test_a_bucket_is_not_pruned_by_the_host(world: World, object_store: ObjectStore) -> None:
    with pytest.raises(ConfigError, match="controller"):
        run(world, targets=[object_store.target("host-prune")])


class TestInABucket:
    """Without a lock in common: the pruner is another machine."""

    @pytest.fixture
    def bucket(self, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """A bucket whose objects can be deleted at once, and whose clock says that they are 40 days old."""
        client = object_store.client()
        if "unlocked" not in [item["Name"] for item in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket="unlocked")
            client.put_bucket_versioning(Bucket="unlocked", VersioningConfiguration={"Status": "Enabled"})
        now = S3Store.now
        monkeypatch.setattr(S3Store, "now", lambda self: now(self) + timedelta(days=40))
        return {**object_store.target(f"prune-{time.time_ns()}"), "bucket": "unlocked"}

    def prune(self, world: World, server: ObjectStore, bucket: dict[str, Any], **options: Any) -> dict[str, Any]:
        pruner = {**bucket, "credentials_file": str(server.credentials_file("pruner"))}
        config = world.config(targets=[pruner], retention=POLICY)
        result: dict[str, Any] = prune.prune(
            open_store(config.require_backup().targets[0]),
            "fluxhero",
            "production",
            policy=config.require_backup().retention,
            allowed_signers_file=world.keys / "allowed_signers",
            signer="fluxhero@production",
            **options,
        )
        world.config(targets=[bucket])
        return result

    def test_every_version_goes(
        self, world: World, object_store: ObjectStore, bucket: dict[str, Any], tmp_path: Path
    ) -> None:
        made = make(world, 32, 31, 30, 0, targets=[bucket])
        world.prove(made[3], target="offsite")
        prefix = f"{bucket['prefix']}/fluxhero/production/generations/"
        client = object_store.client()
        for identity in made:
            client.put_object(Bucket="unlocked", Key=f"{prefix}{identity}/COMMIT", Body=b"rubbish over it")
            client.delete_object(Bucket="unlocked", Key=f"{prefix}{identity}/MANIFEST.json")
        upload = client.create_multipart_upload(Bucket="unlocked", Key=f"{prefix}{made[3]}/left")["UploadId"]
        result = self.prune(world, object_store, bucket)
        gone = [item["id"] for item in result["deleted"]]
        assert gone
        found = client.list_object_versions(Bucket="unlocked", Prefix=prefix)
        left = {item["Key"][len(prefix) :].split("/")[0] for item in found["Versions"] + found["DeleteMarkers"]}
        assert left == set(made) - set(gone)
        assert result["uploads"]["aborted"] == 1
        assert upload not in str(client.list_multipart_uploads(Bucket="unlocked").get("Uploads"))
        world.fetch(tmp_path / "out", made[3], target="offsite")

    def test_the_uploader_cannot_prune(self, world: World, object_store: ObjectStore, tmp_path: Path) -> None:
        target = object_store.target("no-prune")
        made = make(world, 32, 31, 30, 0, targets=[target])
        world.prove(made[3], target="offsite")
        config = world.config(targets=[target], retention=POLICY)
        store = open_store(config.require_backup().targets[0])
        assert isinstance(store, S3Store)
        store.retained_until = lambda key, version="": None  # type: ignore[method-assign]
        place = {"policy": config.require_backup().retention, "allowed_signers_file": world.keys / "allowed_signers"}
        result = prune.prune(store, "fluxhero", "production", **place, signer="fluxhero@production")
        assert (result["result"], result["changed"], result["deleted"]) == ("degraded", False, [])
        assert "refuses to delete" in result["problems"][0]
        for identity in made:
            world.fetch(tmp_path / identity, identity, target="offsite")

    def test_a_cache_file_that_a_backup_needs_meanwhile_survives(
        self, world: World, object_store: ObjectStore, bucket: dict[str, Any], tmp_path: Path
    ) -> None:
        """It was gone from the host and is unlisted by now. While the pruner is at it, a backup finds it again."""
        cached = world.root / "data/cache/spy.parquet"
        content = cached.read_bytes()
        make(world, 32, targets=[bucket])
        cached.unlink()
        made = make(world, 32 - 1 / 24, 0, targets=[bucket])
        world.prove(made[1], target="offsite")
        meanwhile: list[str] = []

        def progress(step: str, facts: dict[str, Any]) -> None:
            if step == "delete_object" and "/cache/" in facts["object"] and not meanwhile:
                cached.write_bytes(content)
                meanwhile.append(world.create(targets=[bucket])["id"])

        result = self.prune(world, object_store, bucket, progress=progress)
        assert result["cache"]["deleted"] == 1
        assert meanwhile
        fetched = world.fetch(tmp_path / "out", meanwhile[0], target="offsite")
        assert sum(file.part == "cache" for file in fetched.files) == 2

    def test_an_orphan_that_a_backup_completes_meanwhile_survives(
        self,
        world: World,
        object_store: ObjectStore,
        bucket: dict[str, Any],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It waited for the target for days, half stored."""
        put_new = S3Store.put_new

        def fail(self: S3Store, key: str, data: bytes) -> None:
            raise StoreError("not today", subject=key)

        monkeypatch.setattr(S3Store, "put_new", fail)
        with pytest.raises(StoreError):
            make(world, 5, targets=[bucket])
        monkeypatch.setattr(S3Store, "put_new", put_new)
        meanwhile: list[str] = []

        def progress(step: str, facts: dict[str, Any]) -> None:
            if step == "delete_orphan" and not meanwhile:
                meanwhile.extend(world.create(targets=[bucket])["caught_up"])

        result = self.prune(world, object_store, bucket, progress=progress)
        assert result["orphans"]["deleted"] == meanwhile
        listed = generation.list_generations(world.open("offsite"), "fluxhero", "production")
        assert [item.state for item in listed] == ["committed", "committed"]
        world.fetch(tmp_path / "out", meanwhile[0], target="offsite")
