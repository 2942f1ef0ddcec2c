# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGKILL at any moment: each row is in the database, in an archive or in both, with what it holds, never in none."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import deadly
import pytest
from archive_world import Fixed, World
from fluxmaint.core.clock import Clock
from fluxmaint.core.journal import Journal
from fluxmaint.sqlite import archive, archive_delete, archive_file
from fluxmaint.sqlite.connect import Deadline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_archive_under_load import Service

LOT = random.SystemRandom()


def require_every_row(
    world: World, expected: dict[int, tuple[Any, ...]], seen: dict[int, tuple[Any, ...]] | None = None
) -> None:
    """Nothing is lost, nothing is twice, and each archive is sound.

    Args:
        seen: the rows of the database, where others write to it.
    """
    live = seen or {row[0]: row for row in world.lives()}
    rows = world.archived()
    archived = {row[0]: row for row in rows}
    assert len(rows) == len(archived), "a row is in archives twice"
    assert set(live) | set(archived) == set(expected)
    assert {key: live.get(key, archived.get(key)) for key in expected} == expected
    config = world.config
    assert config.archives is not None
    deadline = Deadline(Clock(), 60, "test")
    for month, path in archive_file.existing(config.archives.directory, "trades").items():
        archive_file.read(path, config.archives.tables[0], month, deadline)


def prepared(
    directory: Path, monkeypatch: pytest.MonkeyPatch, rows: int = 40
) -> tuple[World, dict[int, tuple[Any, ...]]]:
    monkeypatch.setattr(archive_delete, "_FIRST_BATCH", 4)
    monkeypatch.setattr(archive_delete, "_LARGEST_BATCH", 8)
    monkeypatch.setattr(archive_delete, "_STEPS_BETWEEN_LOOKS", 20)
    world = World(directory / "first")
    world.trades(rows, 150, every_s=86400 * 40 / rows)
    world.trades(5, 20)
    return world, {row[0]: row for row in world.lives()}


def again(world: World, directory: Path) -> World:
    """The same world, as it was, in another directory."""
    shutil.copytree(world.top, directory)
    copy = World.__new__(World)
    copy.__dict__.update(world.__dict__)
    copy.top, copy.data = directory, directory / "data"
    copy.database, copy.directory = copy.data / "trades.db", copy.data / "archive"
    return copy


def count(world: World, directory: Path, **options: Any) -> tuple[int, int]:
    """Entries and events of a whole run."""
    file = directory / "counted"
    assert deadly.run(again(world, directory / "whole"), counted=str(file), **options) == 0
    entries, events = map(int, file.read_text().split())
    return entries, events


def kill_and_go_on(world: World, expected: dict[int, tuple[Any, ...]], **moment: int) -> None:
    code = deadly.run(world, delete=True, **moment)
    assert code in (deadly.KILLED, 0), moment
    require_every_row(world, expected)
    result = world.archive(delete=True)
    assert result["result"] == "ok"
    require_every_row(world, expected)
    assert len(world.lives()) == 5, moment
    assert sorted(path.suffix for path in world.files().values()) == [".db"] * 3, "nothing unfinished is left"
    assert world.archive(delete=True)["changed"] is False


def test_killed_at_every_recorded_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, expected = prepared(tmp_path, monkeypatch)
    entries, _events = count(world, tmp_path, delete=True)
    assert entries > 20
    for number in range(1, entries):
        kill_and_go_on(again(world, tmp_path / f"entry{number}"), expected, entry=number)


def test_killed_anywhere_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before changes outside, and in the middle of statements: moments drawn by lot, some from each part of the run."""
    world, expected = prepared(tmp_path, monkeypatch)
    _entries, events = count(world, tmp_path, delete=True)
    parts = 24
    assert events > 4 * parts
    for part in range(parts):
        event = LOT.randrange(events * part // parts + 1, events * (part + 1) // parts + 1)
        kill_and_go_on(again(world, tmp_path / f"event{part}"), expected, event=event)


def test_a_disk_that_is_full_at_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file may grow beyond some size: the snapshot, the choice, the new archive or the journal cannot be written."""
    world, expected = prepared(tmp_path, monkeypatch)
    codes = []
    for kilobytes in (1, 4, 10, 14, 18, 22, 26, 30, 60):
        copy = again(world, tmp_path / f"full{kilobytes}")

        def work(copy: World = copy, size: int = kilobytes << 10) -> None:
            config, journal = copy.config, copy.journal
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            archive.run(config, journal=journal, clock=Fixed(), delete=True)

        codes.append(deadly.in_child(work))
        require_every_row(copy, expected)
        assert copy.archive(delete=True)["result"] == "ok"
        require_every_row(copy, expected)
        assert len(copy.lives()) == 5
    assert codes[0] == deadly.FAILED and codes[-1] == 0


def killed_after(world: World, seconds: float) -> bool:
    """Archive in a process that another one kills; whether it was still at work."""
    pid = os.fork()
    if pid == 0:
        try:
            clock = Fixed(patient=True)
            archive.run(world.config, journal=Journal(world.journal.path, clock), clock=clock, delete=True)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def test_killed_at_random_moments_while_the_service_writes(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.trades(9000, 150, every_s=400)
    world.trades(1, 1)
    expected = {row[0]: row for row in world.lives()}
    service = Service(world.database)
    try:
        killed = [killed_after(world, LOT.uniform(0.05, 1.2)) for _time in range(6) if not require_old(world, expected)]
    finally:
        report = service.stop()
    assert any(killed) and report["failures"] == []
    require_old(world, expected)
    assert world.archive(delete=True)["result"] == "ok"
    require_old(world, expected)
    assert len(world.archived()) == 9000 and len(world.lives()) == 1 + report["commits"]
    assert world.run_sql("PRAGMA integrity_check") == [("ok",)]


def require_old(world: World, expected: dict[int, tuple[Any, ...]]) -> None:
    """As `require_every_row`, while new rows come."""
    live = {row[0]: row for row in world.lives()}
    require_every_row(world, {**{key: row for key, row in live.items() if row[2] == "NEW"}, **expected}, live)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("kill"), st.integers(1, 30), st.booleans()),
        st.tuples(st.just("event"), st.integers(1, 400), st.booleans()),
        st.tuples(st.just("run"), st.just(0), st.booleans()),
        st.tuples(st.just("add"), st.integers(1, 9), st.booleans()),
        st.tuples(st.just("change"), st.integers(1, 30), st.booleans()),
    ),
    min_size=2,
    max_size=6,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS, data=st.data())
def test_any_order_of_runs_kills_and_changes(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    actions: list[tuple[str, int, bool]],
    data: Any,
) -> None:
    world, _rows = prepared(tmp_path_factory.mktemp("any"), monkeypatch, rows=12)
    expected = {row[0]: row for row in world.lives()}
    for action, number, flag in actions:
        if action == "kill":
            deadly.run(world, entry=number, delete=flag)
        elif action == "event":
            deadly.run(world, event=number, delete=flag)
        elif action == "run":
            world.archive(delete=flag)
        elif action == "add":
            world.trades(number, 125 if flag else 10)
        elif action == "change":
            world.run_sql("UPDATE trades SET pnl = pnl + 1 WHERE id = ?", number)
        expected.update({row[0]: row for row in world.lives()})
        require_every_row(world, expected)
