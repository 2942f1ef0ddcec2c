# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upkeep of a database whose service goes on writing."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.core import config as configuration
from fluxmaint.core.clock import Clock
from fluxmaint.core.errors import ConfigError, EngineError, IntegrityError, LeaseError, PreconditionError
from fluxmaint.core.journal import Journal
from fluxmaint.core.lease import Lease
from fluxmaint.service import size_report, upkeep_job
from fluxmaint.sqlite import upkeep
from restore_world import ProcessService
from upkeep_world import FAST, SLOW, UpkeepWorld, make_upkeep_world

NewUpkeep = Callable[..., UpkeepWorld]


@pytest.fixture
def new_upkeep(tmp_path: Path) -> Iterator[NewUpkeep]:
    """Makes worlds in `tmp_path`; their services end with the test."""
    made: list[UpkeepWorld] = []

    def make(*arguments: Any, **options: Any) -> UpkeepWorld:
        directory = tmp_path / f"world{len(made)}"
        directory.mkdir()
        made.append(make_upkeep_world(directory, *arguments, **options))
        return made[-1]

    yield make
    for world in made:
        world.service.stop()


class Watched(ProcessService):
    """The real process, and how often it was stopped."""

    def __init__(self, service: ProcessService, sick: int = 0) -> None:
        self.__dict__.update(service.__dict__)
        self.stops = 0
        self.sick = sick
        self.asked = 0

    def stop(self) -> None:
        self.stops += 1
        super().stop()

    def wait_healthy(self) -> dict[str, Any]:
        """Not healthy from the second time on, for `sick` times."""
        self.asked += 1
        if 1 < self.asked <= 1 + self.sick:
            raise PreconditionError("is not well", subject="writer.service")
        return super().wait_healthy()


@pytest.mark.parametrize(
    ("journal_mode", "auto_vacuum", "speeds", "ways"),
    [
        ("delete", "none", SLOW, ["vacuum stopped", "analyze waiting"]),
        ("wal", "none", SLOW, ["vacuum stopped", "analyze waiting"]),
        ("delete", "none", FAST, ["vacuum waiting", "analyze waiting"]),
        ("delete", "incremental", SLOW, ["incremental_vacuum waiting", "analyze waiting"]),
        ("wal", "incremental", SLOW, ["incremental_vacuum waiting", "analyze waiting"]),
        ("delete", "full", SLOW, ["analyze waiting"]),
    ],
)
def test_what_is_due_is_planned_done_proven_and_not_done_again(
    new_upkeep: NewUpkeep, journal_mode: str, auto_vacuum: str, speeds: dict[str, float], ways: list[str]
) -> None:
    world = new_upkeep(journal_mode, auto_vacuum)
    world.expect(speeds)
    planned = world.plan_upkeep()
    [item] = planned["databases"]
    assert [f"{action['kind']} {action['way']}" for action in item["actions"]] == ways
    assert all(action["wait_s"] > 0 and action["duration_s"] > 0 for action in item["actions"])
    assert planned["changed"] is True
    pages, service = world.free_pages(), Watched(world.service)
    assert (pages > 200) is (auto_vacuum != "full")
    done = world.maintain(service=service)
    assert (done["changed"], done["result"]) == (True, "ok")
    assert [f"{action['kind']} {action['way']}" for action in done["databases"][0]["done"]] == ways
    # A restored or written-anew file needs the service stopped exactly once; nothing else stops it at all.
    assert service.stops == ("vacuum stopped" in ways)
    assert world.free_pages() < 20
    world.require_whole()
    again = world.maintain(service=service)
    assert (again["changed"], again["result"]) == (False, "ok"), again
    assert world.plan_upkeep()["changed"] is False
    assert service.stops == ("vacuum stopped" in ways)
    world.journal.verify()
    last = world.journal.read("maintain")[-1]
    assert (last["event"], last["result"]) == ("end", "ok")


def test_planning_changes_nothing(new_upkeep: NewUpkeep) -> None:
    world = new_upkeep(running=False)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in world.root.rglob("*") if path.is_file()}
    state = sorted(os.listdir(world.config.state_dir))
    assert world.plan_upkeep()["changed"] is True
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in world.root.rglob("*") if path.is_file()}
    assert after == before and sorted(os.listdir(world.config.state_dir)) == state


@pytest.mark.parametrize(
    ("limits", "speeds", "state", "why"),
    [
        ({"stop_units": False}, SLOW, "refused", "the units must not be stopped for it"),
        ({"window": {"days": []}}, FAST, "waits", "outside of the maintenance window (never)"),
        ({}, {"stopped": 1.0, "waiting": 1.0}, "waits", "and the window ends in"),
    ],
)
def test_d45_no_vacuum_without_leave(
    new_upkeep: NewUpkeep, limits: dict[str, Any], speeds: dict[str, float], state: str, why: str
) -> None:
    world = new_upkeep(**limits)
    world.expect(speeds)
    inode, service = world.database.stat().st_ino, Watched(world.service)
    done = world.maintain(service=service)
    [left] = done["databases"][0]["left"]
    assert (left["kind"], left["state"]) == ("vacuum", state)
    assert why in left["why"]
    assert done["result"] == ("degraded" if state == "refused" else "ok")
    assert [action["kind"] for action in done["databases"][0]["done"]] == ["analyze"]
    assert service.stops == 0 and world.database.stat().st_ino == inode and world.free_pages() > 200
    world.require_whole()


def test_a_person_may_ignore_the_window(new_upkeep: NewUpkeep) -> None:
    world = new_upkeep(window={"days": []})
    world.expect(SLOW)
    assert world.maintain(ignore_window=True)["databases"][0]["done"][0]["kind"] == "vacuum"
    world.require_whole()


def test_a_service_that_does_not_run_needs_no_leave_and_is_not_started(new_upkeep: NewUpkeep) -> None:
    world = new_upkeep(running=False, stop_units=False)
    world.expect(SLOW)
    assert [item["way"] for item in world.maintain()["databases"][0]["done"]] == ["stopped", "waiting"]
    assert not world.service.active() and not world.service.hold_file.exists()
    assert world.state() == "old"


def test_nobody_is_stopped_for_a_file_with_two_names(new_upkeep: NewUpkeep) -> None:
    world = new_upkeep()
    service = Watched(world.service)
    world.expect(SLOW)
    os.link(world.database, world.directory / "second-name.db")
    result = world.maintain(service=service)
    assert result["result"] == "degraded" and service.stops == 0
    assert [left["why"].endswith("has 2 names, and a new one would have one of them") for left in
            result["databases"][0]["left"]] == [True]  # fmt: skip


def test_d47_a_damaged_database_is_not_touched(new_upkeep: NewUpkeep) -> None:
    world = new_upkeep()
    world.expect(SLOW)
    with contextlib.closing(sqlite3.connect(world.database, timeout=30)) as connection:
        connection.execute("CREATE TABLE words(word TEXT, n INT)")
        connection.executemany("INSERT INTO words VALUES (?, 1)", [(f"unique word {n}",) for n in range(500)])
        connection.execute("CREATE INDEX by_word ON words(word)")
        connection.commit()
    world.service.stop()
    with contextlib.closing(sqlite3.connect(world.database)) as connection:
        connection.execute("SELECT count(*) FROM words").fetchone()  # rolls back what the service has left
    data = bytearray(world.database.read_bytes())
    at = data.rfind(b"unique word 499")
    data[at : at + 15] = b"unique word 000"
    world.database.write_bytes(data)
    world.service.start(["writer.service"])
    service = Watched(world.service)
    with pytest.raises(IntegrityError) as caught:
        world.maintain(service=service)
    assert caught.value.exit_code == 5 and "trades.db" in str(caught.value)
    assert service.stops == 0 and service.active()
    assert not (world.database.parent / upkeep_job.DIRECTORY).exists()
    with contextlib.closing(sqlite3.connect(world.database)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_stat1'").fetchone() == (0,)
    assert world.journal.read("maintain")[-1]["result"] == "failed"


def test_d46_a_database_that_somebody_has_open_is_not_replaced(new_upkeep: NewUpkeep) -> None:
    world = new_upkeep()
    world.expect(SLOW)
    inode = world.database.stat().st_ino
    code = "import sys\nstream = open(sys.argv[1])\nprint('ready', flush=True)\nsys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(world.database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(PreconditionError, match=f"process {other.pid} "):
            world.maintain()
        other.stdin.close()
    assert world.database.stat().st_ino == inode
    world.require_whole()


@pytest.mark.parametrize("speeds", [SLOW, FAST])
def test_what_cannot_be_proven_is_undone(
    new_upkeep: NewUpkeep, speeds: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second look at the content finds a row that was not there at the first."""
    world = new_upkeep()
    world.expect(speeds)
    looked: list[upkeep.Content] = []
    real = upkeep.content

    def content(connection: sqlite3.Connection) -> upkeep.Content:
        looked.append(real(connection))
        if len(looked) != 2:
            return looked[-1]
        return upkeep.Content({**looked[-1].digests, "heartbeat": "another"}, looked[-1].schema, looked[-1].settings)

    monkeypatch.setattr(upkeep, "content", content)
    service = Watched(world.service)
    with pytest.raises(IntegrityError, match="table heartbeat"):
        world.maintain(service=service)
    assert len(looked) == 2 and service.stops == 1
    assert world.free_pages() > 200
    world.require_whole()


def test_a_service_that_gets_ill_and_has_written_keeps_what_it_wrote(new_upkeep: NewUpkeep) -> None:
    world = new_upkeep()
    world.expect(SLOW)
    service = Watched(world.service, sick=1)
    started: list[int] = []

    def progress(step: str, _facts: dict[str, Any]) -> None:
        if step == "started":
            before = len(world.acknowledged())
            while len(world.acknowledged()) == before:
                pass
            started.append(before)

    with pytest.raises(PreconditionError, match="it has written, so the new file stays"):
        world.maintain(service=service, progress=progress)
    assert started
    world.require_whole()
    assert world.free_pages() < 20


def test_a_service_that_does_not_come_up_gets_its_old_file_back(new_upkeep: NewUpkeep) -> None:
    world = new_upkeep()
    world.expect(SLOW)
    inode = world.database.stat().st_ino

    class Dead(Watched):
        def start(self, units: Any) -> None:
            if self.asked != 1:
                super().start(units)

    service = Dead(world.service, sick=1)
    with pytest.raises(PreconditionError, match="the old file is in place again"):
        world.maintain(service=service)
    assert world.database.stat().st_ino == inode
    world.require_whole()


def test_a_service_that_is_not_well_is_left_to_people(new_upkeep: NewUpkeep) -> None:
    world = new_upkeep()
    world.expect(SLOW)
    service = Watched(world.service, sick=1)
    service.asked = 1
    with pytest.raises(PreconditionError, match="is not well"):
        world.maintain(service=service)
    assert service.stops == 0
    world.require_whole()


@pytest.mark.parametrize("name", ["lease", "backup.lock"])
def test_d10_never_beside_a_backup_or_a_restore(new_upkeep: NewUpkeep, name: str) -> None:
    world = new_upkeep()
    with Lease(world.config.run_dir / name, purpose="backup full"), pytest.raises(LeaseError, match="for backup full"):
        world.maintain()
    assert world.free_pages() > 200


def test_a_restore_that_came_between_is_not_undone(new_upkeep: NewUpkeep) -> None:
    """Killed before the new file had its name; then somebody put another database there."""
    world = new_upkeep()
    world.expect(SLOW)

    class Killed(BaseException):
        pass

    def progress(step: str, _facts: dict[str, Any]) -> None:
        if step == "linked":
            kept = world.database.parent / upkeep_job.DIRECTORY
            shutil.copytree(kept, world.directory / "kept")
            shutil.copy(upkeep_job.state_file(world.config), world.directory / "upkeep.json")
            raise Killed

    with pytest.raises(Killed):
        world.maintain(progress=progress)
    world.require_whole()
    world.service.stop()
    shutil.copytree(world.directory / "kept", world.database.parent / upkeep_job.DIRECTORY)
    shutil.copy(world.directory / "upkeep.json", upkeep_job.state_file(world.config))
    world.database.unlink()
    for path in world.database.parent.glob("trades.db-*"):
        path.unlink()
    shutil.copy(world.generation / "trades.db", world.database)
    inode = world.database.stat().st_ino
    world.finish()
    assert world.database.stat().st_ino == inode and world.state() == "new"


def test_an_unfinished_restore_comes_first(new_upkeep: NewUpkeep) -> None:
    world = new_upkeep()
    plan = world.config.state_dir / "restore.json"
    from fluxmaint.backup import restore_plan

    restore_plan.save(world.config, restore_plan.Plan(id="r1", started_at="", request=restore_plan.Request()))
    assert plan.exists()
    with pytest.raises(PreconditionError, match="restore r1 is unfinished"):
        world.maintain()


def test_no_section_no_upkeep(new_upkeep: NewUpkeep) -> None:
    world = new_upkeep(running=False)
    (world.directory / "config.d" / "database.json").unlink()
    with pytest.raises(ConfigError, match="apply the role database"):
        world.maintain()


def test_one_database_that_fails_does_not_keep_others_from_theirs(new_upkeep: NewUpkeep) -> None:
    world = new_upkeep()
    world.expect(FAST)
    document = (world.directory / "config.json").read_text()
    broken = world.root / "data" / "cache" / "broken.db"
    broken.write_bytes(b"no database, but encrypted or worse" * 100)
    entry = '"databases": [{"name": "broken", "path": "' + str(broken) + '"}, '
    (world.directory / "config.json").write_text(document.replace('"databases": [', entry))
    with pytest.raises(EngineError, match="is not a SQLite database") as caught:
        world.maintain()
    found = {item["name"]: item["done"] for item in caught.value.facts["databases"]}
    assert found["broken"] == [] and [action["kind"] for action in found["trades"]] == ["vacuum", "analyze"]
    assert broken.read_bytes().startswith(b"no database")
    broken.unlink()
    (world.directory / "config.json").write_text(document)
    world.require_whole()


# -- sizes -------------------------------------------------------------------------------------------------


class Later(Clock):
    """The real clock, some days ahead."""

    def __init__(self, days: float) -> None:
        self._ahead = timedelta(days=days)

    def now(self) -> Any:
        return super().now() + self._ahead


def test_growth_is_unknown_until_there_is_history(new_upkeep: NewUpkeep) -> None:
    world = new_upkeep(running=False)
    config = world.config

    def report(days: float, **options: Any) -> dict[str, Any]:
        clock = Later(days)
        return size_report.report(config, journal=Journal(config.journal_file, clock), clock=clock, **options)

    first = report(0, record=True)
    assert first["databases"][0]["growth_bytes_per_day"] is None and first["databases"][0]["days_until_full"] is None
    assert "no notes of its size" in first["databases"][0]["growth_unknown"]
    assert "growth     unknown" in size_report.text(first)
    with contextlib.closing(sqlite3.connect(world.database)) as connection:
        connection.execute("CREATE TABLE more AS SELECT zeroblob(2000000) AS data")
        connection.commit()
    # Free pages are used first, so the file need not grow for the data to do so.
    [later] = report(2)["databases"]
    assert later["growth_bytes_per_day"] == pytest.approx(1_000_000, rel=0.01)
    room = later["disk_free_bytes"] + later["free_page_bytes"]
    assert later["days_until_full"] == pytest.approx(room / later["growth_bytes_per_day"], rel=0.01)
    text = size_report.text(report(2))
    assert "+1.0 MB a day" in text and "heartbeat" in text
    [largest] = [line for line in text.splitlines() if line.startswith("  more ") and "#" in line]
    assert largest.count("#") == 48
    [entry] = [entry for entry in world.journal.read("size") if entry["event"] == "end"]
    assert entry["databases"]["trades"]["used_bytes"] > 0


def test_a_database_that_cannot_be_measured_is_told(new_upkeep: NewUpkeep) -> None:
    world = new_upkeep(running=False)
    world.database.unlink()
    facts = size_report.report(world.config, journal=world.journal, record=True)
    assert facts["result"] == "degraded"
    assert facts["databases"][0]["error"]["error"] == "InputError"
    assert "cannot be measured: does not exist" in size_report.text(facts)


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"window": {"days": ["Sunday"]}}, "upkeep.window.days"),
        ({"window": {"start": "24:00"}}, "upkeep.window.start"),
        ({"wait_fraction": 0.9}, "upkeep.wait_fraction"),
        ({"free_ratio": 0}, "upkeep.free_ratio"),
        ({"vacuum": True}, "upkeep.vacuum is not a known key"),
    ],
)
def test_mistakes_in_the_settings_are_named(new_upkeep: NewUpkeep, changes: dict[str, Any], mistake: str) -> None:
    world = new_upkeep(running=False)
    world.limit(**changes)
    with pytest.raises(ConfigError, match=mistake.replace(".", r"\.")):
        configuration.load(world.directory / "config.json")
    world.limit()
