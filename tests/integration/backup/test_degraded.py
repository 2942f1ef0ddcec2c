"""Targets fail on their own, and are completed later."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fluxmaint.backup import generation, staging
from fluxmaint.core.clock import Clock
from fluxmaint.core.errors import StoreError
from fluxmaint.core.journal import Journal
from fluxmaint.store.path import PathStore

from tests.support.world import World

if TYPE_CHECKING:
    from tests.support.seaweed import ObjectStore


def down(server: ObjectStore, prefix: str) -> dict[str, Any]:
    """The same target at a port where nobody listens."""
    return {**server.target(prefix), "endpoint": "http://127.0.0.1:9"}


def test_d13_one_target_down_is_degraded_and_caught_up(world: World, tmp_path: Path, object_store: ObjectStore) -> None:
    first = world.create(targets=[down(object_store, "late"), world.target()])
    assert first["result"] == "degraded"
    assert first["targets"] == {"offsite": "failed", "local": "stored"}
    assert "127.0.0.1:9" in first["errors"]["offsite"]
    world.fetch(tmp_path / "local", first["id"])
    last = Journal(world.top / "state/journal.jsonl").read("backup")[-1]
    assert (last["result"], list(last["errors"])) == ("degraded", ["offsite"])
    assert [staged.id for staged in staging.ready(world.top / "state/staging")] == [first["id"]]

    second = world.create(targets=[object_store.target("late"), world.target()])
    assert second["result"] == "ok"
    assert second["caught_up"] == {first["id"]: {"offsite": "stored", "local": "stored"}}
    assert staging.ready(world.top / "state/staging") == []
    for identity in (first["id"], second["id"]):
        world.fetch(tmp_path / f"offsite-{identity}", identity, target="offsite")
    objects = [
        {item.key: item.size for item in world.open(name).list("") if first["id"] in item.key}
        for name in ("local", "offsite")
    ]
    assert objects[0] == objects[1]


def test_all_targets_down_fails_and_is_completed_later(world: World, tmp_path: Path) -> None:
    (world.store / ".fluxmaint-target").unlink()
    with pytest.raises(StoreError) as caught:
        world.create()
    identity = caught.value.subject
    (world.store / ".fluxmaint-target").touch()
    result = world.create()
    assert result["caught_up"] == {identity: {"local": "stored"}}
    world.fetch(tmp_path / "out", identity)


def test_a_target_that_was_emptied_gets_its_cache_again(world: World, tmp_path: Path) -> None:
    targets = [world.target("one", "one"), world.target("two", "two")]
    world.create(targets=targets)
    shutil.rmtree(world.top / "two/fluxhero")
    result = world.create(targets=targets)
    assert result["result"] == "ok", result
    for name in ("one", "two"):
        world.fetch(tmp_path / name, result["id"], target=name)


def test_a_target_that_fails_half_way_stays_uncommitted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    put_file = PathStore.put_file

    def fail(self: PathStore, key: str, path: Path, sha256: str, **options: Any) -> bool:
        if self.name == "two" and key.endswith("logs.tar.zst.age"):
            raise StoreError("the disk is full", subject=key)
        return put_file(self, key, path, sha256, **options)

    monkeypatch.setattr(PathStore, "put_file", fail)
    targets = [world.target("one", "one"), world.target("two", "two")]
    result = world.create(targets=targets)
    assert result["targets"] == {"one": "stored", "two": "failed"}
    listed = [generation.list_generations(world.open(name), "fluxhero", "production") for name in ("one", "two")]
    assert [items[0].state for items in listed] == ["committed", "orphan"]
    monkeypatch.setattr(PathStore, "put_file", put_file)
    world.create(targets=targets)
    states = [item.state for item in generation.list_generations(world.open("two"), "fluxhero", "production")]
    assert states == ["committed", "committed"]


def test_waiting_generations_are_bounded(world: World) -> None:
    targets = [world.target("one", "one"), world.target("two", "two")]
    (world.top / "two/.fluxmaint-target").unlink()
    for _unused in range(staging.MOST_WAITING + 2):
        config = world.config(targets=targets)
        generation.create(config, "daily", journal=Journal(config.journal_file))
        (world.top / "two/.fluxmaint-target").unlink(missing_ok=True)
    waiting = staging.ready(world.top / "state/staging")
    assert len(waiting) <= staging.MOST_WAITING + 1


def test_different_content_in_a_target_is_never_overwritten(world: World) -> None:
    world.create()
    cache = min((world.store / "fluxhero/production/cache").iterdir())
    cache.write_bytes(b"something else")
    with pytest.raises(StoreError) as caught:
        world.create()
    assert cache.name in str(caught.value)
    assert cache.read_bytes() == b"something else"


def test_a_module_result_is_json(world: World) -> None:
    assert json.loads(json.dumps(world.create())) is not None


class Late(Clock):
    """A clock that is later by as much as a test says."""

    late = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.late


@pytest.mark.parametrize("slow_in", ["between objects", "inside one"])
def test_catching_up_over_a_slow_line_leaves_time_for_the_new_generation(
    world: World, monkeypatch: pytest.MonkeyPatch, slow_in: str
) -> None:
    targets = [world.target("one", "one"), world.target("two", "two")]
    (world.top / "two/.fluxmaint-target").unlink()
    first = world.create(targets=targets)
    (world.top / "two/.fluxmaint-target").touch()
    clock = Late()
    put_file = PathStore.put_file
    sent: list[str] = []

    def slow(self: PathStore, key: str, path: Path, sha256: str, **options: Any) -> bool:
        if first["id"] in key:
            sent.append(key)
            clock.late += 100
        return put_file(self, key, path, sha256, **options)

    def slowly(pieces: Any) -> Any:
        for piece in pieces:
            sent.append("piece")
            clock.late += 100
            yield piece

    def slow_inside(self: PathStore, key: str, path: Path, sha256: str, **options: Any) -> bool:
        if first["id"] not in key:
            return put_file(self, key, path, sha256, **options)
        return self._put(key, slowly(iter([b"x"] * 10)), 10, sha256)

    monkeypatch.setattr(PathStore, "put_file", slow if slow_in == "between objects" else slow_inside)
    second = world.create(targets=targets, clock=clock)
    assert len(sent) == 2, "150 s of 300 are for catching up"
    assert second["result"] == "degraded"
    assert second["targets"] == {"one": "stored", "two": "stored"}
    assert second["caught_up"] == {first["id"]: {"one": "stored", "two": "failed"}}
    assert "not finished within 150 s" in second["errors"]["two"]
    assert any("target two did not get" in problem and first["id"] in problem for problem in second["problems"])
    assert not list(world.top.glob("two/**/.partial-*"))
    monkeypatch.setattr(PathStore, "put_file", put_file)
    if slow_in == "between objects":
        third = world.create(targets=targets)
        assert third["caught_up"] == {first["id"]: {"one": "stored", "two": "stored"}}


def test_the_end_of_the_time_on_one_target_does_not_undo_what_another_has(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = [world.target("one", "one"), world.target("two", "two")]
    clock = Late()
    committed = threading.Event()
    put_file, put_new = PathStore.put_file, PathStore.put_new

    def put(self: PathStore, *arguments: Any, **options: Any) -> bool:
        if self.name == "two":
            assert committed.wait(60)
        return put_file(self, *arguments, **options)

    def commit(self: PathStore, key: str, data: bytes) -> None:
        put_new(self, key, data)
        clock.late = 3600
        committed.set()

    monkeypatch.setattr(PathStore, "put_file", put)
    monkeypatch.setattr(PathStore, "put_new", commit)
    result = world.create(targets=targets, clock=clock)
    assert result["result"] == "degraded"
    assert result["targets"] == {"one": "stored", "two": "failed"}
    assert "not finished within 300 s" in result["errors"]["two"]
    assert json.loads((world.top / "state/last-manifest.json").read_text())["id"] == result["id"]
    steps = [entry.get("step") for entry in Journal(world.top / "state/journal.jsonl").read("backup")]
    assert "target_failed" in steps
