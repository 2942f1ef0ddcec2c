"""Storing: targets at the same time, no faster than allowed, and never relying on what a pruner may be removing."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fluxmaint.backup import upload
from fluxmaint.core.errors import StoreError
from fluxmaint.store.base import AccessDenied
from fluxmaint.store.path import PathStore
from fluxmaint.store.s3 import PART_BYTES, S3Store

from tests.support.clocks import At
from tests.support.seaweed import BUCKET, ObjectStore

if TYPE_CHECKING:
    from tests.support.world import World

DAY_S = 86400


def test_targets_are_filled_at_the_same_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3, timeout=20)
    put_new = PathStore.put_new

    def meet(self: PathStore, key: str, data: bytes) -> None:
        together.wait()  # breaks when they come one after the other
        put_new(self, key, data)

    monkeypatch.setattr(PathStore, "put_new", meet)
    targets = [world.target(name, name) for name in ("one", "two", "three")]
    result = world.create(targets=targets)
    assert result["targets"] == {"one": "stored", "two": "stored", "three": "stored"}


def test_an_interrupted_run_ends_while_a_target_hangs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_STOP_WAIT_S", 0.2)
    hanging = threading.Event()
    put_file = PathStore.put_file

    def hang(self: PathStore, *arguments: Any, **options: Any) -> bool:
        if self.name == "one":
            hanging.wait(30)
        if self.name == "two":
            raise KeyboardInterrupt
        return put_file(self, *arguments, **options)

    monkeypatch.setattr(PathStore, "put_file", hang)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        world.create(targets=[world.target("one", "one"), world.target("two", "two")])
    hanging.set()
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("kind", ["path", "s3"])
def test_a_bandwidth_limit_holds(world: World, object_store: ObjectStore, tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_bytes(os.urandom(3 << 20))
    digest = _sha256(tmp_path / "file")
    took = {}
    for limit in (0, 2 << 20):
        target = world.target() if kind == "path" else object_store.target("limited")
        config = world.config(targets=[{**target, "bandwidth_limit_bytes_s": limit}])
        store = world.open(config.require_backup().targets[0].name)
        begun = time.monotonic()
        assert store.put_file(f"x/{limit}", tmp_path / "file", digest)
        took[limit] = time.monotonic() - begun
    # 3 MiB at 2 MiB/s: 1.5 s one way; an S3 target is read back through the line too.
    expected = 1.5 if kind == "path" else 3.0
    assert 0.85 * expected < took[2 << 20] < 2 * expected + took[0], took
    assert took[2 << 20] > 2 * took[0], took


def test_parts_of_a_large_object_arrive_whole(world: World, object_store: ObjectStore, tmp_path: Path) -> None:
    world.config(targets=[object_store.target("parts")])
    store = world.open("offsite")
    with open(tmp_path / "file", "wb") as stream:
        stream.writelines(os.urandom(PART_BYTES - 12345) for _unused in range(5))
    assert store.put_file("x/large", tmp_path / "file", _sha256(tmp_path / "file"))
    assert list(store.unfinished("x/")) == []


def test_parts_that_fail_leave_no_upload(
    world: World, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.config(targets=[object_store.target("parts-fail", "admin")])
    store = world.open("offsite")
    assert isinstance(store, S3Store)
    with open(tmp_path / "file", "wb") as stream:
        stream.truncate(6 * PART_BYTES)
    upload_part, sent = store._writer.upload_part, []

    def fail(**options: Any) -> Any:
        sent.append(options["PartNumber"])
        if options["PartNumber"] == 2:
            raise ConnectionError("the line is cut")
        return upload_part(**options)

    monkeypatch.setattr(store._writer, "upload_part", fail)
    with pytest.raises(Exception, match="the line is cut"):
        store.put_file("x/large", tmp_path / "file", _sha256(tmp_path / "file"))
    assert list(store.unfinished("x/")) == []
    assert not store.exists("x/large")
    assert len(sent) < 6, "the rest is not sent"


class TestRenewal:
    """A pruner removes only what was old when it looked: what a new generation needs must not be that."""

    def aged(self, world: World, days: float) -> None:
        for file in world.store.rglob("*.age"):
            then = time.time() - days * DAY_S
            os.utime(file, (then, then))

    def ages(self, world: World) -> dict[str, float]:
        return {file.name: time.time() - file.stat().st_mtime for file in world.store.rglob("*/cache/*.age")}

    def test_a_cache_file_that_was_gone_for_a_while_is_renewed(self, world: World) -> None:
        cached = world.root / "data/cache/spy.parquet"
        content = cached.read_bytes()
        world.create()
        cached.unlink()
        world.create()
        cached.write_bytes(content)
        self.aged(world, 40)
        assert world.create()["cache"]["new"] == 0
        old = [name for name, age in self.ages(world).items() if age > DAY_S]
        assert len(old) == 1, "the one that every generation lists stays as it is, the other is new again"

    def test_objects_of_a_generation_that_waited_are_renewed(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put_new = PathStore.put_new

        targets = [world.target(), world.target("two", "two")]
        (world.top / "two/.fluxmaint-target").unlink()
        monkeypatch.setattr(PathStore, "put_new", lambda self, key, data: fail_engine(key))
        with pytest.raises(Exception, match="no target took"):
            world.create(targets=targets)
        monkeypatch.setattr(PathStore, "put_new", put_new)
        self.aged(world, 3)
        world.target("two", "two")
        assert world.create(targets=targets)["result"] == "ok"
        own = [file for file in world.store.rglob("generations/*/*.age") if time.time() - file.stat().st_mtime > DAY_S]
        assert own == []

    def test_in_a_bucket_a_new_version_outlives_the_removal_of_the_old_one(
        self, world: World, object_store: ObjectStore
    ) -> None:
        world.config(targets=[object_store.target("renew")])
        store = world.open("offsite")
        store.put_new("x/object", b"content")
        before = [item.version for item in store.versions("x/")]
        store.renew("x/object")
        after = list(store.versions("x/"))
        assert [item.version for item in after][1:] == before
        assert after[0].latest
        with store.read("x/object", after[0].version) as chunks:
            assert b"".join(chunks) == b"content"
        assert object_store.client().list_objects_v2(Bucket=BUCKET, Prefix="renew/x/")["KeyCount"] == 1


def copying(world: World, object_store: ObjectStore, prefix: str, content: bytes, **options: Any) -> S3Store:
    """A store that copies objects above 5 MiB, the least that a server takes, in parts, with one object in it."""
    target = object_store.target(prefix, "admin")
    store = S3Store(
        **{key: target[key] for key in ("name", "endpoint", "bucket", "prefix")},
        region="us-east-1",
        credentials_file=Path(target["credentials_file"]),
        copy_bytes=5 << 20,
        **options,
    )
    file = world.top / "large"
    file.write_bytes(content)
    store.put_file("x/large", file, hashlib.sha256(content).hexdigest())
    return store


@pytest.mark.parametrize("lock_days", [0, 3])
def test_what_is_too_large_for_one_copy_is_renewed_in_parts(
    world: World, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, lock_days: int
) -> None:
    content = os.urandom((11 << 20) + 7)
    store = copying(world, object_store, f"copied-{lock_days}", content, lock_days=lock_days)
    copy, ranges = store._writer.upload_part_copy, []

    def noted(**options: Any) -> Any:
        ranges.append(options["CopySourceRange"])
        return copy(**options)

    monkeypatch.setattr(store._writer, "upload_part_copy", noted)
    store.renew("x/large")
    assert len(ranges) == 3
    new, old = list(store.versions("x/"))[:2]
    assert new.latest and new.size == len(content) and new.modified >= old.modified
    with store.read("x/large", new.version) as chunks:
        assert b"".join(chunks) == content
    for version in (new, old):
        until = store.retained_until("x/large", version.version)
        # Without a lock of its own the bucket's default of one day holds.
        assert until is not None and abs(until - At(days=lock_days or 1).now()) < timedelta(minutes=5)
    for refused in (new, old):
        with pytest.raises(AccessDenied):
            store.delete("x/large", refused.version)
    assert list(store.unfinished("x/")) == []


def test_a_copy_that_fails_or_is_of_other_content_leaves_the_old_version(
    world: World, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom((16 << 20) + 7)
    store = copying(world, object_store, "copied", content)
    before = [item.version for item in store.versions("x/")]
    copy = store._writer.upload_part_copy

    def fail(**options: Any) -> Any:
        if options["PartNumber"] == 2:
            raise ConnectionError("the line is cut")
        return copy(**options)

    with monkeypatch.context() as patched:
        patched.setattr(store._writer, "upload_part_copy", fail)
        with pytest.raises(StoreError, match="the line is cut"):
            store.renew("x/large")
    assert list(store.unfinished("x/")) == []
    assert [item.version for item in store.versions("x/")] == before

    def exchanged(**options: Any) -> Any:
        if options["PartNumber"] == 3:
            object_store.client().put_object(Bucket=BUCKET, Key="copied/x/large", Body=b"something else" * 1000000)
        return copy(**options)

    monkeypatch.setattr(store._writer, "upload_part_copy", exchanged)
    with pytest.raises(StoreError, match="was changed while the server copied it"):
        store.renew("x/large")
    assert len(list(store.versions("x/"))) == len(before) + 1, "no mixture of both"


class TestForms:
    """Encrypting a cache file twice gives other bytes of the same size: what a target holds must be in the manifest."""

    def test_generations_that_were_made_while_every_target_was_away(self, world: World, tmp_path: Path) -> None:
        (world.store / ".fluxmaint-target").unlink()
        for hours in (-2, -1):
            with pytest.raises(StoreError, match="no target took"):
                world.create(clock=At(hours=hours))
        result = world.create(targets=[world.target()])
        assert len(result["caught_up"]) == 2
        for identity in (*result["caught_up"], result["id"]):
            world.fetch(tmp_path / identity, identity, parts=["cache"])

    def test_a_new_target_that_was_cut_off_before_the_first_commit(
        self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.create(clock=At(hours=-2))
        targets = [world.target(), world.target("second", "second")]
        put_file = PathStore.put_file

        def cut(self: PathStore, key: str, *arguments: Any, **options: Any) -> bool:
            if self.name == "second" and "/generations/" in key:
                fail_engine(key)
            return put_file(self, key, *arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr(PathStore, "put_file", cut)
            first = world.create(targets=targets, clock=At(hours=-1))
        assert first["targets"] == {"local": "stored", "second": "failed"}
        second = world.create(targets=targets)
        assert second["result"] == "ok"
        for identity in (first["id"], second["id"]):
            for target in ("local", "second"):
                world.fetch(tmp_path / target / identity, identity, target=target, parts=["cache"])


def fail_engine(key: str) -> None:
    raise StoreError("not today", subject=key)


def _sha256(path: Path) -> str:
    from fluxmaint.core.fsio import sha256_file

    return str(sha256_file(path))
