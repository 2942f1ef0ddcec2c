# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGKILL and full disks in upkeep: the database is whole, no promised row is lost, nothing stays behind."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.cli.main import main
from fluxmaint.core.errors import EngineError
from fluxmaint.core.lease import Lease
from fluxmaint.service import upkeep_job

from tests.faults.disks import mounted, needs_mount

INTEGRATION = Path(__file__).resolve().parents[1] / "integration"
sys.path[:0] = [str(INTEGRATION / "upkeep"), str(INTEGRATION / "restore")]

from upkeep_world import FAST, SLOW, UpkeepWorld, make_upkeep_world  # noqa: E402

AROUND = ["measure", "check", "checked"], ["analyze", "check again", "kept"]
VACUUM = {
    "stopped": [
        *("vacuum", "healthy", "begun", "held", "stopped", "settled", "rebuilt", "placing", "linked", "placed"),
        *("recorded", "started", "ended"),
    ],
    "waiting": ["vacuum", "begun", "locked", "preimage", "vacuumed", "proven", "dropped"],
    "given back": ["incremental_vacuum"],
}


def moments(way: str) -> list[str]:
    return [*AROUND[0], *VACUUM[way], *AROUND[1]]


def world_for(directory: Path, way: str, journal_mode: str) -> UpkeepWorld:
    directory.mkdir(exist_ok=True)
    auto_vacuum = "incremental" if way == "given back" else "none"
    world = make_upkeep_world(directory, journal_mode, auto_vacuum)
    world.expect(FAST if way == "waiting" else SLOW)
    return world


def drive(world: UpkeepWorld, moment: str = "") -> tuple[int, dict[str, Any]]:
    command = [sys.executable, INTEGRATION / "restore" / "with_engine.py", INTEGRATION / "upkeep" / "upkeep_driver.py"]
    done = subprocess.run(
        [*command, world.directory, world.journal_mode, moment], capture_output=True, timeout=60, check=False
    )
    assert done.stdout or done.returncode == -signal.SIGKILL, done.stderr.decode()
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


WAYS = [("stopped", "delete"), ("stopped", "wal"), ("waiting", "delete"), ("given back", "delete")]


@pytest.mark.parametrize(("way", "journal_mode"), WAYS)
def test_moments_are_all_there_are(tmp_path: Path, way: str, journal_mode: str) -> None:
    """The lists that the kill tests go through are complete, so no step escapes them."""
    world = world_for(tmp_path / "world", way, journal_mode)
    try:
        status, result = drive(world)
        assert status == 0, result
        assert (world.directory / "moments.txt").read_text().splitlines() == moments(way)
        world.require_whole()
    finally:
        world.service.stop()


@pytest.mark.parametrize(
    ("way", "journal_mode", "moment"),
    [
        pytest.param(way, mode, moment, id=f"{way}-{mode}-{moment}")
        for way, mode in WAYS
        for moment in moments(way)
        if mode == "delete" or moment in ("stopped", "rebuilt", "placed")
    ],
)
def test_upkeep_killed(tmp_path: Path, way: str, journal_mode: str, moment: str) -> None:
    world = world_for(tmp_path / "world", way, journal_mode)
    try:
        status, _nothing = drive(world, moment)
        assert status == -signal.SIGKILL
        require_told(world, way, moment)
        if not world.service.hold_file.exists():
            world.service.start(["writer.service"])  # as a reboot would
        assert world.state() == "old"
        assert world.maintain()["result"] == "ok"
        world.require_whole()
        assert world.free_pages() < 20
        world.journal.verify()
        again = world.maintain()
        assert (again["changed"], again["result"]) == (False, "ok"), again
        assert upkeep_job.left(world.config) == {"running": False, "unfinished": None, "files": []}
    finally:
        world.service.stop()


def require_told(world: UpkeepWorld, way: str, moment: str) -> None:
    """What the killed run has left is told as `fluxmaint status` asks for it."""
    left = upkeep_job.left(world.config)
    assert left["running"] is False
    during = [name for name in VACUUM[way] if name not in ("vacuum", "healthy", "ended", "incremental_vacuum")]
    assert (left["unfinished"] is not None) is (moment in during)
    if moment in during:
        expected = {"database": "trades", "path": str(world.database), "way": way, "units": ["writer.service"]}
        assert {name: left["unfinished"][name] for name in expected} == expected
    names = {Path(item["path"]).name for item in left["files"]}
    assert ("trades.db.checked" in names) is (moment not in ("measure", "check", "kept"))
    assert not any(item["kept"] for item in left["files"])
    assert all(item["bytes"] == Path(item["path"]).stat().st_size for item in left["files"])


@pytest.mark.parametrize("moment", ["held", "placed", "started"])
def test_upkeep_killed_and_finished_at_boot(tmp_path: Path, moment: str) -> None:
    """What the unit that runs at boot does: no new upkeep, only the service back with a whole database."""
    world = world_for(tmp_path / "world", "stopped", "delete")
    try:
        assert drive(world, moment)[0] == -signal.SIGKILL
        finished = world.finish()
        assert finished is not None
        assert finished["result"] == ("undone" if moment == "held" else "done")
        assert world.state() == "old" and world.service.active() and not world.service.hold_file.exists()
        assert not (world.config.state_dir / "upkeep.json").exists()
        assert world.finish() is None
    finally:
        world.service.stop()


NOWHERE = ("staging_dir", "recipients_file", "signing_key_file", "allowed_signers_file")
BACKUP = {**{key: f"/nonexistent/{key}" for key in NOWHERE}, "timeout_s": 1, "signer": "a@b"}


def test_status_tells_unfinished_upkeep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = world_for(tmp_path / "world", "stopped", "delete")
    backup = {**BACKUP, "targets": [{"name": "local", "type": "path", "path": str(tmp_path)}]}
    (world.directory / "config.d" / "backup.json").write_text(json.dumps({"backup": backup}))
    config = ["--config", str(world.directory / "config.json")]

    def told() -> tuple[dict[str, Any], str]:
        assert main(["status", "--json", *config]) == 3
        facts = json.loads(capsys.readouterr().out)
        assert main(["status", *config]) == 3
        return facts, capsys.readouterr().out

    try:
        facts, text = told()
        assert facts["upkeep"] == {"running": False, "unfinished": None, "files": []}
        assert "upkeep" not in text
        assert drive(world, "linked")[0] == -signal.SIGKILL
        facts, text = told()
        assert facts["result"] == "failed"
        assert "upkeep_unfinished" in [reason["code"] for reason in facts["reasons"]]
        assert facts["upkeep"]["unfinished"]["step"] == "placing"
        assert "  failed: upkeep of trades is unfinished: fluxmaint maintain --resume finishes or undoes it" in text
        assert f"\nupkeep         unfinished: vacuum of {world.database} (stopped), placing at " in text
        assert "writer.service ran before; beside it trades.db.before, trades.db.checked, trades.db.new" in text
        with Lease(world.config.lease_file, purpose="backup"):
            assert "upkeep_unfinished" in [reason["code"] for reason in told()[0]["reasons"]]
        record = world.config.state_dir / "upkeep.json"
        kept = record.read_bytes()
        record.write_bytes(kept[:20])
        assert "is not valid JSON" in told()[1]
        record.write_text('{"database": "trades"}')
        assert "upkeep.json is not ours" in told()[1]
        record.write_bytes(kept)
        assert world.finish() is not None
        assert "upkeep" not in told()[1]
    finally:
        world.service.stop()


def test_running_upkeep_is_not_told_as_unfinished(tmp_path: Path) -> None:
    world = world_for(tmp_path / "world", "stopped", "delete")
    seen = []
    try:
        world.maintain(progress=lambda step, _facts: seen.append((step, upkeep_job.left(world.config))))
        assert all(left["running"] for _step, left in seen)
        assert [left["unfinished"]["step"] for step, left in seen if step in ("begun", "recorded")] == [
            "begun",
            "placed",
        ]
    finally:
        world.service.stop()


@needs_mount
@pytest.mark.parametrize(
    ("way", "moment"),
    [
        ("stopped", "settled"),
        ("stopped", "rebuilt"),
        ("waiting", "locked"),
        ("waiting", "preimage"),
        ("given back", "check again"),
    ],
)
def test_upkeep_on_a_disk_that_fills_up(tmp_path: Path, way: str, moment: str) -> None:
    """It fails, or ends; the service may run on with every row, and the next run does what is due."""
    with mounted(tmp_path / "disk", "64M") as disk:
        world = world_for(disk.path / "world", way, "delete")

        def progress(step: str, _facts: dict[str, Any]) -> None:
            if step == moment:
                subprocess.run(disk.fill, shell=True, check=False, timeout=60)

        try:
            with contextlib.suppress(EngineError):
                world.maintain(progress=progress)
            disk.free()
            assert not world.service.hold_file.exists()
            world.service.start(["writer.service"])  # which may have ended on the full disk
            assert world.maintain()["result"] == "ok"
            world.require_whole()
            assert world.free_pages() < 20
            world.journal.verify()
        finally:
            world.service.stop()


def test_what_was_written_after_upkeep_was_killed_is_never_undone(tmp_path: Path) -> None:
    """Somebody lifts the hold and starts the service before upkeep is finished: its rows are only in the new file."""
    world = world_for(tmp_path / "world", "stopped", "delete")
    try:
        assert drive(world, "placed")[0] == -signal.SIGKILL
        before = len(world.acknowledged())
        world.service.release()
        world.service.start(["writer.service"])
        while len(world.acknowledged()) < before + 20:
            time.sleep(0.02)
        finished = world.finish()
        assert finished is not None and finished["result"] == "done"
        assert world.state() == "old", "every row that was promised is there"
    finally:
        world.service.stop()
