# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cleaning the cache of a real service, judged by real generations and proofs."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.core.clock import Clock
from fluxmaint.core.errors import ConfigError, LeaseError, PreconditionError, StoreError
from fluxmaint.core.journal import Journal
from fluxmaint.core.lease import Lease
from fluxmaint.service import cache_cleanup

from tests.support.world import World, build

DAY_S = 86400
AHEAD_DAYS = 60


class Later(Clock):
    """A host's clock that is ahead of the files: their change time is the kernel's, nobody can set it back."""

    def __init__(self, days: float = AHEAD_DAYS) -> None:
        self._ahead = timedelta(days=days)

    def now(self) -> datetime:
        return super().now() + self._ahead


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = build(tmp_path / "world", rows=3)
    made.document["cache"]["regenerable"] = ["*.parquet"]
    return made


def cache(world: World) -> Path:
    return world.root / "data/cache"


def add(world: World, name: str | bytes, data: bytes = b"PAR1 data PAR1") -> Path:
    path = Path(os.fsdecode(os.path.join(os.fsencode(cache(world)), os.fsencode(name))))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o600)  # so that processes of other users, which may be hidden, cannot have it open
    return path


def back_up(world: World, *, proven: bool = True) -> str:
    """A generation that begins a day after all files, and its proof."""
    identity: str = world.create(clock=Later(1))["id"]
    if proven:
        world.prove(identity)
    return identity


def clean(world: World, *, journal: Journal | None = None, **options: Any) -> dict[str, Any]:
    config = world.config()
    options.setdefault("max_age_days", 30)
    options.setdefault("clock", Later())
    return cache_cleanup.cleanup(config, journal=journal or Journal(config.journal_file), **options)


def left(world: World) -> list[str]:
    return sorted(
        os.fsencode(path.relative_to(cache(world))).decode("utf-8", "backslashreplace")
        for path in cache(world).rglob("*")
        if not path.is_dir() or path.is_symlink()
    )


def test_d50_only_old_files_go_that_the_newest_proven_generation_holds(world: World) -> None:
    shutil.rmtree(cache(world))
    outside = world.top / "outside.parquet"
    outside.write_bytes(b"elsewhere")
    for name in ("old.parquet", "alone/in/here.parquet", "naïve ❄ file.parquet", "spaces and 'quotes'.parquet"):
        add(world, name)
    for name in ("edited.parquet", "touched.parquet", "open.parquet", "used.parquet", "two.parquet"):
        add(world, name)
    add(world, b"odd\xff\nname.parquet")
    add(world, "notes.txt")
    time.sleep(1.01 - time.time() % 1)  # generations begin with a whole second
    identity = world.create()["id"]
    world.prove(identity)
    # What happened since.
    add(world, "edited.parquet", b"PAR1 DATA PAR1")
    add(world, "touched.parquet")
    add(world, "new.parquet")
    os.link(cache(world) / "two.parquet", world.top / "second-name")
    (cache(world) / "link.parquet").symlink_to(outside)
    (cache(world) / "linked").symlink_to(world.top)
    os.mkfifo(cache(world) / "pipe.parquet")
    (cache(world) / "empty").mkdir()
    young = add(world, "young.parquet")
    now = Later().now().timestamp()
    os.utime(young, (now - 5 * DAY_S,) * 2)
    os.utime(cache(world) / "used.parquet", (now - 60, now - 60 * DAY_S))
    held = os.open(cache(world) / "open.parquet", os.O_RDONLY)
    try:
        before = left(world)
        planned = clean(world, dry_run=True)
        assert left(world) == before
        done = clean(world)
    finally:
        os.close(held)
    gone = {"old.parquet", "alone/in/here.parquet", "naïve ❄ file.parquet", "spaces and 'quotes'.parquet"}
    gone |= {"odd\\xff\nname.parquet"}
    assert {item["path"] for item in planned["removed"]} == gone
    assert {**done, "dry_run": True} == planned
    assert set(left(world)) == set(before) - gone
    assert {item["path"]: item["reason"].partition(" generation ")[0] for item in done["kept"]} == {
        "edited.parquet": "it is newer than",
        "new.parquet": "it is newer than",
        "open.parquet": "a process has it open",
        "touched.parquet": "it is newer than",
        "two.parquet": "another name leads to it",
        "used.parquet": "it was used a short time ago",
    }
    assert (cache(world) / "alone/in").is_dir()
    assert (cache(world) / "empty").is_dir()
    assert outside.read_bytes() == b"elsewhere"
    assert (done["generation"], done["target"]) == (identity, "local")
    assert done["freed_bytes"] == 14 * len(gone)
    assert done["left_bytes"] == done["total_bytes"] - done["freed_bytes"]
    text = cache_cleanup.table(done)
    assert "removed 5 files" in text
    assert "kept open.parquet" in text


def test_the_second_run_changes_nothing_and_asks_no_target(world: World) -> None:
    shutil.rmtree(cache(world) / "daily")
    back_up(world)
    assert clean(world)["changed"] is True
    shutil.rmtree(world.store)
    again = clean(world)
    assert (again["changed"], again["removed"], again["kept"], again["generation"]) == (False, [], [], "")
    assert cache(world).is_dir()


def test_the_size_limit_takes_the_oldest_first_and_only_what_is_listed(world: World) -> None:
    shutil.rmtree(cache(world))
    paths = [add(world, f"{number}.parquet", bytes(1000)) for number in range(5)]
    odd = add(world, b"odd\xff.parquet", bytes(1000))
    for number, path in enumerate([*paths, odd]):
        os.utime(path, (1_700_000_000 + (-1 if path == odd else number),) * 2)
    back_up(world)
    done = clean(world, max_age_days=None, max_bytes=3500, clock=Later())
    assert [item["path"] for item in done["removed"]] == ["0.parquet", "1.parquet", "2.parquet"]
    assert {item["reason"] for item in done["removed"]} == {"size"}
    assert [item["path"] for item in done["kept"]] == ["odd\\xff.parquet"]
    assert done["left_bytes"] == 3000
    tight = clean(world, max_age_days=None, max_bytes=0)
    assert tight["left_bytes"] == 1000
    assert "nothing more may go yet" in tight["problems"][0]


def test_a_target_that_lost_the_object_is_no_backup_of_the_file(world: World) -> None:
    back_up(world)
    objects = sorted(world.store.glob("**/cache/*.age"))
    assert len(objects) == 2
    for path in objects:
        os.truncate(path, 3)
    done = clean(world)
    assert done["removed"] == []
    assert {item["reason"] for item in done["kept"]} == {"target local does not hold it"}


def test_without_proof_nothing_goes(world: World) -> None:
    before = left(world)
    with pytest.raises(PreconditionError, match="no generation is proven"):
        clean(world)
    identity = back_up(world, proven=False)
    with pytest.raises(PreconditionError, match="no generation is proven"):
        clean(world)
    world.prove(identity)
    forged = next(world.store.glob("**/proofs/**/*.sig"))
    forged.write_bytes(b"not a signature")
    with pytest.raises(PreconditionError, match="no generation is proven"):
        clean(world)
    shutil.move(world.store, world.top / "away")
    with pytest.raises(StoreError, match="no target can be reached") as unreachable:
        clean(world)
    assert unreachable.value.untouched == "every cache file"
    assert left(world) == before
    entries = Journal(world.config().journal_file).read("cache-cleanup")
    assert [entry["result"] for entry in entries if entry["event"] == "end"] == ["failed"] * 4


def test_a_newer_proven_generation_is_the_judge(world: World) -> None:
    back_up(world)
    changed = add(world, "spy.parquet", b"PAR1 newer PAR1")
    done = clean(world)
    assert [item["path"] for item in done["removed"]] == ["daily/qqq.parquet"]
    identity = world.create(clock=Later(2))["id"]
    assert clean(world)["removed"] == []  # stored, not proven
    world.prove(identity)
    assert [item["path"] for item in clean(world)["removed"]] == ["spy.parquet"]
    assert not changed.exists()


class Meddling(Journal):
    """Lets something happen to a file right before it goes."""

    deed: Callable[[Path], subprocess.Popen[bytes] | None]
    victim: Path
    process: subprocess.Popen[bytes] | None = None

    def append(self, operation: str, event: str, result: str = "", **evidence: Any) -> dict[str, Any]:
        if evidence.get("step") == "remove":
            self.process = self.deed(self.victim)
        return super().append(operation, event, result, **evidence)


def replaced(path: Path) -> None:
    other = path.with_name("other.tmp")
    other.write_bytes(b"PAR1 made by the service just now PAR1")
    os.replace(other, path)


def appended(path: Path) -> subprocess.Popen[bytes]:
    """Another process opens it, which takes until the cleanup lets go of it."""
    process = subprocess.Popen(["sh", "-c", 'printf more >> "$1"', "sh", str(path)])
    mine = f" {os.getpid()} "
    while not any("BREAKING" in line and mine in line for line in Path("/proc/locks").read_text().splitlines()):
        assert process.poll() is None, "it was opened all the same"
    return process


@pytest.mark.parametrize("deed", [replaced, appended])
def test_a_file_that_changes_between_look_and_removal_stays(
    world: World, deed: Callable[[Path], subprocess.Popen[bytes] | None]
) -> None:
    shutil.rmtree(cache(world) / "daily")
    back_up(world)
    path = cache(world) / "spy.parquet"
    path.chmod(0o600)
    world.create(clock=Later(2))
    world.prove()
    journal = Meddling(world.config().journal_file)
    journal.deed, journal.victim = deed, path
    done = clean(world, journal=journal)
    assert done["removed"] == []
    assert done["kept"][0]["reason"] in ("it has changed meanwhile", "a process wants to open it")
    if journal.process is not None:
        journal.process.wait(10)
    assert path.read_bytes().endswith(b"more" if deed is appended else b"just now PAR1")


def test_a_directory_that_became_a_link_leads_nowhere(world: World) -> None:
    """The very files that were looked at lie elsewhere by then."""
    os.utime(cache(world) / "spy.parquet", (1_700_000_000,) * 2)  # the older one goes first
    back_up(world)
    moved = world.top / "moved"

    def swap(_path: Path) -> None:
        if not moved.exists():
            os.rename(cache(world) / "daily", moved)
            (cache(world) / "daily").symlink_to(moved)

    journal = Meddling(world.config().journal_file)
    journal.deed, journal.victim = swap, cache(world)
    done = clean(world, journal=journal)
    assert [item["path"] for item in done["removed"]] == ["spy.parquet"]
    assert (moved / "qqq.parquet").exists()
    assert [item["path"] for item in done["kept"]] == ["daily/qqq.parquet"]


def test_the_content_decides_whatever_the_times_say(world: World) -> None:
    """The host's clock was ahead when the generation began."""
    shutil.rmtree(cache(world) / "daily")
    back_up(world)
    path = cache(world) / "spy.parquet"
    path.write_bytes(path.read_bytes()[::-1])
    done = clean(world)
    assert [(item["path"], item["reason"]) for item in done["kept"]] == [
        ("spy.parquet", "the backup has another content of it")
    ]
    assert path.exists()


def test_what_the_contract_does_not_call_regenerable_stays(world: World) -> None:
    """Archives of old trades lie among the cache files of a profile; nothing can make them again."""
    archive = add(world, "archive/trades_2020.parquet")
    world.document["cache"]["regenerable"] = ["daily/*.parquet"]
    back_up(world)
    assert [item["path"] for item in clean(world)["removed"]] == ["daily/qqq.parquet"]
    assert archive.exists()
    world.document["cache"]["regenerable"] = []
    with pytest.raises(ConfigError, match="no cache file counts as regenerable"):
        clean(world)


def test_a_backup_or_a_restore_keeps_it_away(world: World) -> None:
    config = world.config()
    for path in (config.lease_file, config.run_dir / "backup.lock"):
        with Lease(path, purpose="test"), pytest.raises(LeaseError):
            clean(world)
    with pytest.raises(ConfigError, match="no limit"):
        clean(world, max_age_days=None)
    configured = {**world.document, "cache_cleanup": {"max_age_days": 0, "max_bytes": 10**12}}
    world.document = configured
    assert clean(world, max_age_days=None)["changed"] is False


def test_the_kernel_can_say_who_has_a_file_open(tmp_path: Path) -> None:
    """What the cleanup relies on where processes are hidden; file systems without it answer that they cannot."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        assert fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_WRLCK
    except OSError as error:
        pytest.skip(f"this file system has no leases: {error}")
    finally:
        os.close(descriptor)


def test_an_old_file_that_was_never_in_a_backup_stays(world: World) -> None:
    made = world.top / "elsewhere/old.parquet"
    made.parent.mkdir()
    made.write_bytes(b"PAR1 the only one PAR1")
    made.chmod(0o600)
    add(world, "listed.parquet")
    back_up(world)
    made.parent.rename(cache(world) / "moved")  # which leaves the times of the files in it as they were
    done = clean(world)
    assert "listed.parquet" in {item["path"] for item in done["removed"]}
    assert {item["path"]: item["reason"] for item in done["kept"]}["moved/old.parquet"].endswith("does not list it")
    assert (cache(world) / "moved/old.parquet").exists()
