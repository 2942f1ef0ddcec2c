# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGKILL at every recorded moment of a restore and of its way back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.backup.restore_plan import BACK, FORWARD
from restore_world import NEW_ENV, OLD_ENV, World

HERE = Path(__file__).resolve().parents[1] / "integration" / "restore"
COMPANION = {"wal": ["0-trades.db-wal", "0-trades.db-shm"], "delete": ["0-trades.db-journal"]}


def forward_moments(journal_mode: str) -> list[str]:
    moved = ["0-trades.db", *COMPANION[journal_mode], "1-.env"]
    placed = ["trades.db", ".env"]
    moments = []
    for step in FORWARD:
        moments.append(f"begin:{step}")
        moments += [f"moved:{name}" for name in {"set_aside": moved, "place": placed}.get(step, [])]
        moments += [f"acted:{step}", f"recorded:{step}"]
    return moments


def back_moments(journal_mode: str) -> list[str]:
    kept = [name.removeprefix("0-") for name in COMPANION[journal_mode]]
    moments = []
    for step in BACK:
        moments.append(f"begin:{step}")
        if step == "withdraw":
            moments += ["moved:0-trades.db#2", "moved:1-.env#2"]
        if step == "put_back":  # the database and .env came to these places before, when the new ones did
            moments += [f"moved:{name}" for name in [*reversed(kept), "trades.db#2", ".env#2"]]
        moments += [f"acted:{step}", f"recorded:{step}"]
    return moments


def drive(world: World, moment: str = "") -> tuple[int, dict[str, Any]]:
    command = [sys.executable, HERE / "with_engine.py", HERE / "restore_driver.py"]
    done = subprocess.run(
        [*command, world.directory, world.journal_mode, moment],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout or done.returncode == -signal.SIGKILL, done.stderr.decode()
    world.require_no_secret(done.stdout.decode(), done.stderr.decode())
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def require_told(world: World, result: str) -> None:
    """The journal is whole, and its last word on the restore is the truth."""
    world.journal.verify()
    last = world.journal.read("restore")[-1]
    assert (last["event"], last["result"]) == ("end", result)


def reboot(world: World) -> None:
    """What a reboot or Restart= would do: start the service if that is possible."""
    if not world.service.hold_file.exists():
        world.service.start(["writer.service"])


def cases(moments: Callable[[str], list[str]]) -> list[Any]:
    return [
        pytest.param(mode, moment, id=f"{mode}-{moment}")
        for mode in ("delete", "wal")
        for moment in moments(mode)
        if not moment.startswith("begin:") or moment in ("begin:stage", "begin:stop_again")
    ]


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_moments_are_all_there_are(new_world: Callable[..., World], journal_mode: str) -> None:
    """The lists that the kill tests go through are complete, so no step escapes them."""
    good = new_world(journal_mode=journal_mode)
    assert drive(good)[0] == 0
    assert (good.directory / "moments.txt").read_text().split() == forward_moments(journal_mode)
    bad = new_world(journal_mode=journal_mode, origin="bad")
    assert drive(bad)[0] == 1
    moments = (bad.directory / "moments.txt").read_text().split()
    back = moments[moments.index("begin:stop_again") :]
    # What the short-lived new service has left beside its database is withdrawn too, and differs from run to run.
    beside = {f"moved:0-trades.db{suffix}" for suffix in ("-wal", "-shm", "-journal")}
    assert [moment for moment in back if moment not in beside] == [
        moment.removesuffix("#2") for moment in back_moments(journal_mode)
    ]


@pytest.mark.parametrize(("journal_mode", "moment"), cases(forward_moments))
def test_killed_on_the_way_forward(new_world: Callable[..., World], journal_mode: str, moment: str) -> None:
    world = new_world(journal_mode=journal_mode)
    status, _unused = drive(world, moment)
    assert status == -signal.SIGKILL
    reboot(world)
    assert world.state() in ("old", "new", "away")
    status, result = drive(world)
    assert (status, world.state()) == (0, "new"), result
    assert result["result"] == "restored"
    assert result["digests_equal"] is True and result["content_digests_equal"] is True
    assert world.env.read_text() == NEW_ENV
    assert world.service.active() and not world.service.hold_file.exists()
    assert not (world.config.state_dir / "staged" / "20261123T020000Z-7f3a2c").exists()
    require_told(world, "ok")


@pytest.mark.parametrize(("journal_mode", "moment"), cases(back_moments))
def test_killed_on_the_way_back(new_world: Callable[..., World], journal_mode: str, moment: str) -> None:
    world = new_world(journal_mode=journal_mode, origin="bad")
    status, _unused = drive(world, moment)
    assert status == -signal.SIGKILL
    reboot(world)
    assert world.state() in ("old", "new", "away")
    status, result = drive(world)
    assert (status, world.state()) == (1, "old"), result
    assert result["error"] == "RestoreFailed" and result["rolled_back"] is True
    assert world.env.read_text() == OLD_ENV
    assert world.service.active() and not world.service.hold_file.exists()
    assert not world.config.halt_file.exists()  # type: ignore[union-attr]
    require_told(world, "failed")
