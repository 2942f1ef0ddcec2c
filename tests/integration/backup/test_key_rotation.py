"""After a change of keys the newest generation can be decrypted whole by each of the new recipients."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from fluxmaint.core.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.world import World


def rotate(world: World, *names: str) -> None:
    """Let `recipients.txt` name these identities from now on."""
    lines = [(world.keys / f"{name}.key").read_text().splitlines() for name in names]
    public = [next(line for line in found if "public key" in line).rpartition(" ")[2] for found in lines]
    (world.keys / "recipients.txt").write_text("\n".join(public) + "\n")


def test_a_new_recipient_decrypts_the_newest_generation_whole(world: World, tmp_path: Path) -> None:
    old = world.create("full")
    rotate(world, "escrow", "stranger")
    new = world.create("full")
    assert new["cache"] == {"files": 2, "new": 2}, "the cache files are encrypted anew"
    fetched = world.fetch(tmp_path / "new", new["id"], **world.reading("stranger"))
    assert sum(file.part == "cache" for file in fetched.files) == 2
    with pytest.raises(EngineError):
        world.fetch(tmp_path / "never", new["id"], **world.reading("operator"))
    # The old generation stays as it was: for the old recipients, with the old objects.
    world.fetch(tmp_path / "old", old["id"], **world.reading("operator"))
    with pytest.raises(EngineError):
        world.fetch(tmp_path / "not", old["id"], **world.reading("stranger"))
    assert world.create("daily")["cache"] == {"files": 2, "new": 0}, "stored once for the same recipients"


def test_the_order_of_the_recipients_does_not_matter(world: World) -> None:
    world.create()
    rotate(world, "escrow", "operator")
    assert world.create()["cache"]["new"] == 0


def test_a_target_that_was_down_during_the_change_gets_both(world: World, tmp_path: Path) -> None:
    targets = [world.target("one", "one"), world.target("two", "two")]
    (world.top / "two/.fluxmaint-target").unlink()
    old = world.create("daily", targets=targets)
    rotate(world, "escrow", "stranger")
    (world.top / "two/.fluxmaint-target").touch()
    new = world.create("daily", targets=targets)
    assert new["caught_up"] == {old["id"]: {"one": "stored", "two": "stored"}}
    world.fetch(tmp_path / "old", old["id"], target="two", **world.reading("operator"))
    world.fetch(tmp_path / "new", new["id"], target="two", **world.reading("stranger"))


def test_generations_of_an_older_writer_are_read(world: World, tmp_path: Path) -> None:
    """Before, cache objects were named by their content alone."""
    from fluxmaint.backup import layout

    def plain(sha256: str, recipients: object) -> str:
        return f"cache/{sha256}.zst.age"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "cache_object", plain)
        old = world.create()
    new = world.create()
    names = {}
    for identity in (old["id"], new["id"]):
        fetched = world.fetch(tmp_path / identity, identity)
        names[identity] = {item.object for item in fetched.manifest.cache}
    assert not names[old["id"]] & names[new["id"]]
    assert json.loads(json.dumps(new["cache"])) == {"files": 2, "new": 2}
