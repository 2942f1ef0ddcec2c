# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive directory that cannot be written, and a clock that is wrong: said clearly, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from archive_world import NOW, Fixed, World
from fluxmaint.cli.main import main
from fluxmaint.core.errors import PreconditionError
from fluxmaint.core.journal import Journal
from fluxmaint.sqlite import archive

needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount")


@contextmanager
def mounted(path: Path) -> Iterator[None]:
    """A disk of 256 KiB."""
    path.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)], check=False)
    if made.returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def old_trades(world: World) -> list[tuple[Any, ...]]:
    world.trades(40, 150, every_s=86400)
    world.trades(3, 1)
    return sorted(world.lives())


@needs_mount
def test_a_full_archive_directory_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    world = World(tmp_path)
    everything = old_trades(world)
    with mounted(world.directory):
        world.archive(delete=True)
        kept = sorted(world.archived())
        world.trades(2, 140)
        world.trades(1, 1)
        everything += [row for row in world.lives() if row[0] > 43]
        filler = world.directory / "filler"
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(1 << 20))
        with pytest.raises(PreconditionError, match="cannot be written: No space left on device") as caught:
            world.archive(delete=True)
        assert caught.value.subject == str(world.directory / "trades_archive_202607.db")
        assert "look at the space" in str(caught.value)
        assert [path.name for path in world.files().values() if path.suffix == ".partial"] == []
        assert sorted(world.archived()) == kept
        assert sorted(world.archived() + world.lives()) == sorted(everything)
        filler.unlink()
        assert world.archive(delete=True)["deleted"] == 2
        assert sorted(world.archived() + world.lives()) == sorted(everything)


@needs_mount
def test_an_archive_directory_that_nobody_may_write_is_named(tmp_path: Path) -> None:
    world = World(tmp_path)
    everything = old_trades(world)
    with mounted(world.directory):
        world.archive(older_than_days=120, delete=True)
        stray = world.directory / "trades_archive_202501.db.partial"
        for wanted in ("trades_archive_202607.db", "."):
            if wanted == ".":
                stray.write_bytes(b"of a run that was killed")
            subprocess.run(["mount", "-o", "remount,ro", str(world.directory)], check=True)
            with pytest.raises(PreconditionError, match="cannot be written: Read-only file system") as caught:
                world.archive(delete=True)
            assert caught.value.subject == str(world.directory / wanted)
            assert sorted(world.archived() + world.lives()) == everything
            subprocess.run(["mount", "-o", "remount,rw", str(world.directory)], check=True)
        assert world.archive(delete=True)["result"] == "ok" and not stray.exists()
        assert sorted(world.archived() + world.lives()) == everything


def test_what_is_no_directory_is_named(tmp_path: Path) -> None:
    world = World(tmp_path)
    everything = old_trades(world)
    world.directory.write_bytes(b"")
    with pytest.raises(PreconditionError, match="Not a directory"):
        world.archive(delete=True)
    assert sorted(world.lives()) == everything


def test_one_table_without_room_does_not_keep_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    old_trades(world)
    world.run_sql("INSERT INTO positions VALUES (1, 'SPY', 'closed', '2026-06-01'), (2, 'SPY', 'closed', '2026-11-22')")
    closed = "SELECT id, opened_at AS time FROM positions"
    world.tables.insert(0, {"name": "positions", "database": "trades", "query": closed})
    publish = archive.archive_file.publish

    def full(made: Path, path: Path, *arguments: Any) -> Any:
        if "positions" in path.name:
            raise OSError(28, "No space left on device")
        return publish(made, path, *arguments)

    monkeypatch.setattr(archive.archive_file, "publish", full)
    result = world.archive()
    assert result["archived"] == 40 and "archive positions: " in result["problems"][0]


# ---- the clock


class Ahead(Fixed):
    """A clock that has jumped."""

    def __init__(self, days: float) -> None:
        super().__init__()
        self._days = days

    def now(self) -> datetime:
        return NOW + timedelta(days=self._days)


def noted(world: World, *days_ago: float) -> None:
    """Entries of other work."""
    world.config  # noqa: B018 - makes the directory
    for days in days_ago:
        Journal(world.journal.path, Ahead(-days)).append("backup", "end", "ok")


def test_rows_are_old_only_beside_the_newest_row(tmp_path: Path) -> None:
    """The host starts with a clock half a year ahead, before anything has set it: no row of the last 90 days leaves."""
    world = World(tmp_path)
    world.trades(5, 150)
    world.trades(5, 60)
    world.trades(5, 1)
    newest = max(row[1] for row in world.lives())
    result = world.archive(delete=True, clock=Ahead(180))
    table = result["tables"][0]
    assert (result["result"], result["archived"], table["waiting"]) == ("ok", 5, 10)
    assert table["newest"] == newest[:19] + "Z"
    assert "10 rows wait: they are old for the clock, which says 2027-05-22T04:00:00Z" in result["notes"][0]
    assert len(world.lives()) == 10
    accepted = world.archive(clock=Ahead(180), accept_clock=True)
    assert (accepted["archived"], accepted["tables"][0]["waiting"]) == (10, 0)


def test_rows_that_are_not_closed_tell_the_time_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.trades(5, 150)
    world.trades(2, 1, status="open")
    assert world.archive()["archived"] == 5


def test_a_row_from_the_future_tells_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.trades(5, 149)
    world.trades(5, 60)
    world.trades(1, -3000)
    result = world.archive(clock=Ahead(40))
    assert (result["archived"], result["tables"][0]["waiting"]) == (0, 10)


@pytest.mark.parametrize("early", [0, 1, 2])
def test_a_clock_that_jumped_ahead_is_refused(tmp_path: Path, early: int) -> None:
    """The service wrote with the wrong clock already, and so did other work, so that only the journal tells."""
    world = World(tmp_path)
    everything = old_trades(world)
    world.trades(3, -179)
    noted(world, 200, 170, 140, 110, 90, 60, 30, 1, 0.5, *[-180] * early)
    before = sorted(world.lives())
    with pytest.raises(PreconditionError, match=r"nothing was noted here for 18\d days.*jumped ahead") as caught:
        world.archive(delete=True, clock=Ahead(180))
    assert "--accept-clock" in str(caught.value) and caught.value.subject == str(world.journal.path)
    with pytest.raises(PreconditionError, match="jumped ahead"):
        archive.run(world.config, dry_run=True, clock=Ahead(180))
    assert sorted(world.lives()) == before and world.files() == {}
    assert world.archive(clock=Fixed())["archived"] == 40 <= len(everything), "the clock was set back"


def test_a_host_that_was_off_needs_one_word(tmp_path: Path) -> None:
    world = World(tmp_path)
    old_trades(world)
    noted(world, 200, 170, 60, 30, 1)
    with pytest.raises(PreconditionError, match="nothing was noted here for 110 days, from 2026-06-06"):
        world.archive()
    assert world.archive(accept_clock=True)["archived"] == 40
    assert world.archive()["result"] == "ok", "what a person has said is remembered"
    noted(world, -50)
    with pytest.raises(PreconditionError, match="jumped ahead"):
        world.archive(clock=Ahead(50))


def test_silence_that_ended_long_ago_is_no_matter(tmp_path: Path) -> None:
    world = World(tmp_path)
    old_trades(world)
    noted(world, 400, 91, 60, 30, 1)
    assert world.archive()["result"] == "ok"


def test_the_command_accepts_the_clock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(tmp_path)
    old_trades(world)
    noted(world, 200, 60)
    config = ["--config", str(tmp_path / "config.json")]
    assert main(["archive", *config], clock=Fixed()) == 1
    assert "jumped ahead" in capsys.readouterr().err
    assert main(["archive", "--accept-clock", *config], clock=Fixed()) == 0
