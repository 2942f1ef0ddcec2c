# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ctrl-C in the runner ends what it has started."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

RUNNER = """
import signal
import sys
from pathlib import Path
from tests.lab import run_tests

# A shell starts what runs in its background with the signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def lane():
    command = "sleep 300 & echo $! > {pid}; wait"
    run_tests.execute(["sh", "-c", command], Path("{log}"), cwd=Path("/"), env={{}}, timeout_s=300)

try:
    run_tests.side_by_side([lane])
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_an_interrupted_runner_leaves_no_process(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = RUNNER.format(pid=pid, log=tmp_path / "log")
    runner = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[3])
    try:
        deadline = time.monotonic() + 20
        while not (pid.exists() and pid.read_text().strip()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        runner.send_signal(signal.SIGINT)
        runner.wait(timeout=20)
    finally:
        runner.kill()
    child = int(pid.read_text())
    while _runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
