"""400 days on a real S3 store with object lock, by a clock of our own: what is kept is what the plan says.

One small generation a day, most of them proven, some locked by the server in real time, pruned every sixteen days.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from fluxmaint.backup import crypto, layout, prune, retention
from fluxmaint.backup.manifest import Manifest
from fluxmaint.core.clock import Clock, utc_text
from fluxmaint.core.config import Retention
from fluxmaint.store.open import open_store
from fluxmaint.store.s3 import S3Store

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.support.seaweed import ObjectStore
    from tests.support.world import World

DAYS = 400
BUCKET = "four-hundred-days"
PREFIX = "fluxhero/production/"
POLICY = Retention()


class FakeClock(Clock):
    """Our own days. It starts today, because the store dates objects by its own clock."""

    def __init__(self) -> None:
        self.start = datetime.now(timezone.utc).replace(microsecond=0)
        self.day = 0

    def now(self) -> datetime:
        return self.at(self.day)

    def at(self, day: int) -> datetime:
        return self.start + timedelta(days=day)


@dataclasses.dataclass(frozen=True)
class Day:
    """What happens on one day beside a backup."""

    number: int
    proven: bool
    lock_days: int


class Calendar:
    """Makes one generation a day out of a real one: same objects, its own manifest, signed and committed."""

    def __init__(self, world: World, server: ObjectStore, clock: FakeClock) -> None:
        self.clock = clock
        self.keys = world.keys
        self.client = server.client()
        world.create("daily", targets=[world.target()])
        source = next((world.store / PREFIX / "generations").iterdir())
        self.manifest = Manifest.from_bytes((source / layout.MANIFEST).read_bytes())
        parts = [part for part in self.manifest.parts if part.name == "db-trades"]
        self.manifest = dataclasses.replace(self.manifest, parts=parts, cache=[])
        names = [parts[0].object, layout.INSTRUCTIONS]
        self.objects = {name: (source / name).read_bytes() for name in names}

    def put(self, key: str, data: bytes, until: datetime | None = None) -> None:
        lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until} if until else {}
        self.client.put_object(Bucket=BUCKET, Key=PREFIX + key, Body=data, **lock)

    def generation(self, day: Day) -> retention.Held:
        now = self.clock.at(day.number)
        until = now + timedelta(days=day.lock_days) if day.lock_days else None
        identity = layout.new_id(now)
        manifest = dataclasses.replace(self.manifest, id=identity, started_at=utc_text(now), finished_at=utc_text(now))
        data = manifest.to_bytes()
        digest = hashlib.sha256(data).hexdigest()
        signature = crypto.sign(data, self.keys / "signing_ed25519", crypto.MANIFEST_NAMESPACE)
        objects = {layout.MANIFEST: data, layout.SIGNATURE: signature, layout.COMMIT: digest.encode() + b"\n"}
        for name, content in {**self.objects, **objects}.items():
            self.put(f"generations/{identity}/{name}", content, until)
        if day.proven:
            self.proof(identity, digest, now)
        return retention.Held(identity, "daily", proven=day.proven, copies=1, retained_until=until)

    def proof(self, identity: str, digest: str, now: datetime) -> None:
        said = {"generation": identity, "host": "production", "manifest_sha256": digest, "result": "proven"}
        data = json.dumps({**said, "verifier": "staging", "proven_at": utc_text(now)}).encode()
        key = layout.proof("fluxhero", "production", identity, now, "staging")[len(PREFIX) :]
        self.put(key + ".sig", crypto.sign(data, self.keys / "verifier_ed25519", crypto.PROOF_NAMESPACE))
        self.put(key, data)

    def there(self, identity: str) -> bool:
        key = f"{PREFIX}generations/{identity}/{layout.COMMIT}"
        try:
            self.client.head_object(Bucket=BUCKET, Key=key)
        except ClientError:
            return False
        return True


def test_400_days(
    world: World, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(20261123)
    clock = FakeClock()
    object_store.client().create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
    monkeypatch.setattr(S3Store, "now", lambda self: clock.now())
    calendar = Calendar(world, object_store, clock)
    target: dict[str, Any] = {**object_store.target(""), "bucket": BUCKET}
    pruner = {**target, "credentials_file": str(object_store.credentials_file("pruner"))}
    store = open_store(world.config(targets=[pruner]).require_backup().targets[0], clock)
    made: dict[str, retention.Held] = {}
    refused: set[str] = set()
    known: dict[str, prune.Known] = {}
    deletions = 0
    days: list[Day] = []
    pool = ThreadPoolExecutor(4)
    for clock.day in range(DAYS):
        # One day in five nobody proves; for three weeks the verifier is away; each 25th generation is locked.
        proven = draw.random() < 0.8 and not 150 <= clock.day < 171
        days.append(Day(clock.day, proven, draw.choice((20, 60)) if clock.day % 25 == 3 else 0))
        if clock.day % 16 == 15:
            # Days between two prunings have nothing to do with each other, so they may pass at the same time.
            made.update({held.id: held for held in pool.map(calendar.generation, days)})
            days.clear()
            expected = retention.plan(made.values(), POLICY, clock.now())
            result = prune.prune(
                store,
                "fluxhero",
                "production",
                policy=POLICY,
                allowed_signers_file=world.keys / "allowed_signers",
                signer="fluxhero@production",
                clock=clock,
                known=known,
            )
            gone = {item["id"] for item in result["deleted"]}
            # By our clock these locks are over, by the server's they are not: it refuses, and all of it stays.
            due = {item.id for item in expected.delete}
            refused = {identity for identity in due if made[identity].retained_until is not None}
            assert gone == due - refused
            assert {item["id"] for item in result["locked"]} == {item.id for item in expected.locked}
            assert len(result["problems"]) == len(refused)
            assert not result["orphans"]["deleted"] and not result["suspect"]
            deletions += len(gone)
            made = {identity: item for identity, item in made.items() if identity not in gone}
            newest = max(item.id for item in made.values() if item.proven)
            assert calendar.there(newest), "the newest proven one is always there"
    pool.shutdown()
    assert deletions > 300
    assert refused, "the server itself has refused some"
    found = {key.key.split("/")[3] for key in store.list(f"{PREFIX}generations/")}
    assert found == set(made) == retention.plan(made.values(), POLICY, clock.now()).kept() | refused
    proofs = {key.key.split("/")[3] for key in store.list(f"{PREFIX}proofs/")}
    assert proofs == {item.id for item in made.values() if item.proven}, "a proof goes with its generation"
    world.config(targets=[{**target, "credentials_file": str(object_store.credentials_file("reader"))}])
    newest = max(made)
    for identity in {newest, min(made), *draw.sample(sorted(made), 3)}:
        fetched = world.fetch(tmp_path / identity, identity, target="offsite", parts=["db-trades"])
        assert fetched.findings["trades"].rows["trades"] == 200
    latest = world.fetch(tmp_path / "latest", target="offsite", parts=["db-trades"], clock=clock)
    assert latest.manifest.id == newest
