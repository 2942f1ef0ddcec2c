# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a host with systemd: restores detached while its caller is killed; prints facts as JSON.

Arguments: none; or `launch DIRECTORY` for the caller that is killed; or what systemd starts instead of fluxmaint:
`restore --config FILE --plan FILE --json`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fluxmaint.backup.restore_plan import Request
from fluxmaint.core import config as configuration
from fluxmaint.service import restore_job
from restore_world import GENERATION, World, make_world

HERE = Path(__file__).resolve().parent
AGAIN = [sys.executable, "-B", str(HERE / "with_engine.py"), str(HERE / "detached_probe.py")]
UNIT = Path("/etc/systemd/system/probe-writer.service")
JOB = restore_job.Job(Request(GENERATION))


def launcher(directory: Path) -> restore_job.TransientUnit:
    return restore_job.TransientUnit(directory / "config.json", directory / "executable")


def prepare(directory: Path) -> World:
    """A world whose service is a systemd unit, and whose generation is staged."""
    directory.mkdir()
    world = make_world(directory, journal_mode="wal", start=False)
    document = json.loads((directory / "config.json").read_text())
    document["units"] = [UNIT.name]
    (directory / "config.json").write_text(json.dumps(document))
    words = [sys.executable, HERE / "restore_writer.py", world.database, "wal", world.ledger, world.config.halt_file]
    UNIT.write_text(f"[Service]\nExecStart={' '.join(map(str, words))}\nRestart=always\n")
    script = directory / "executable"
    script.write_text(f'#!/bin/sh\nsleep 1\nexec {" ".join(AGAIN)} "$@"\n')
    script.chmod(0o755)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "start", UNIT.name], check=True)
    while len(world.acknowledged()) < 3:
        time.sleep(0.01)
    world.run(Request(stage_only=True))
    return world


def main() -> dict[str, Any]:
    facts: dict[str, Any] = {}
    world = prepare(Path("/root/world"))
    caller = subprocess.Popen([*AGAIN, "launch", str(world.directory)])
    while subprocess.run(["systemctl", "is-active", "-q", restore_job.UNIT], check=False).returncode != 0:
        time.sleep(0.05)
    os.kill(caller.pid, signal.SIGKILL)
    caller.wait()
    try:
        launcher(world.directory).launch(world.config, JOB)
    except restore_job.LeaseError as error:
        facts["second"] = str(error)
    deadline = time.monotonic() + 60
    while world.plan is None or world.plan.open or world.plan.request.stage_only:
        assert time.monotonic() < deadline, "the restore did not end"
        time.sleep(0.1)
    facts["state"] = world.plan.state
    written = len(world.acknowledged())
    time.sleep(0.5)
    facts["writes_on"] = len(world.acknowledged()) > written
    facts["origin"] = world.acknowledged()[-1][0]
    subprocess.run(["systemctl", "stop", UNIT.name], check=True)
    world.run(Request(stage_only=True))
    answer = launcher(world.directory).launch(world.config, JOB)
    facts["answer"] = {key: answer[key] for key in ("result", "digests_equal", "generation_id")}
    try:
        launcher(world.directory).launch(world.config, restore_job.Job(Request("20200101T000000Z-000000")))
    except restore_job.InputError as error:
        facts["error"] = error.as_dict()
    facts["run_dir"] = sorted(path.name for path in world.config.run_dir.iterdir())
    return facts


if sys.argv[1:2] == ["restore"]:
    restore_job.run_job_file(configuration.load(Path(sys.argv[3])), Path(sys.argv[5]))
elif sys.argv[1:2] == ["launch"]:
    launcher(Path(sys.argv[2])).launch(configuration.load(Path(sys.argv[2]) / "config.json"), JOB)
else:
    print(json.dumps(main()))
