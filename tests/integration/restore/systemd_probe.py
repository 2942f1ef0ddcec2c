# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a host with systemd and shows what `SystemdService` does there; prints facts as JSON.

The unit has Restart=always, its file in /etc, and a timer that starts it each second.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from fluxmaint.core import config as configuration
from fluxmaint.core.errors import EngineError
from fluxmaint.service.units import SystemdService

UNITS = Path("/etc/systemd/system")
SERVICE = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/sleep 1000\nRestart=always\nRestartSec=100ms\n"
TIMER = "[Timer]\nOnActiveSec=1s\nOnUnitActiveSec=1s\nOnUnitInactiveSec=1s\nAccuracySec=100ms\nUnit=probe-a.service\n"
STUBBORN = "[Service]\nExecStart=/bin/sh -c 'trap \"\" TERM; while true; do sleep 1; done'\nTimeoutStopSec=1\n"


def systemctl(*words: str) -> str:
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False).stdout.strip()


def main() -> dict[str, Any]:
    (UNITS / "probe-a.service").write_text(SERVICE)
    (UNITS / "probe-b.service").write_text(STUBBORN)
    (UNITS / "probe-a.timer").write_text(TIMER)
    systemctl("daemon-reload")
    config = configuration.parse(
        {
            "format": 1,
            "service": "probe",
            "host": "here",
            "root": "/opt/probe",
            "user": "root",
            "group": "root",
            "units": ["probe-a.service", "probe-b.service", "probe-unknown.service"],
            "databases": [{"name": "x", "path": "/opt/probe/x.db"}],
            "health": {"wait_s": 1},
        }
    )
    service = SystemdService(config)
    known = ["probe-a.service", "probe-b.service"]
    facts: dict[str, Any] = {"load_states": {unit: service.load_state(unit) for unit in config.units}}
    service.start(known)
    systemctl("start", "probe-a.timer")
    facts["running"] = service.active()

    service.hold()
    service.stop()
    facts["after_stop"] = service.active()
    systemctl("start", "probe-a.service")
    time.sleep(2.5)  # the timer fires twice
    facts["held"] = service.active()
    facts["timer_fires"] = systemctl("show", "--value", "--property=Result", "probe-a.timer")
    try:
        service.start(known)
        facts["start_while_held"] = "started"
    except EngineError as error:
        facts["start_while_held"] = str(error)

    systemctl("stop", "probe-a.timer")
    service.release()
    facts["after_release"] = service.active()
    facts["left_over"] = [str(path) for path in UNITS.glob("probe-*.d")]
    service.start(known)
    facts["started_again"] = service.active()
    try:
        service.wait_healthy()
        facts["health"] = "healthy"
    except EngineError as error:
        facts["health"] = str(error)
    service.stop()
    facts["end"] = service.active()
    return facts


try:
    print(json.dumps(main()))
finally:
    for unit in ("probe-a.timer", "probe-a.service", "probe-b.service"):
        systemctl("stop", unit)
        (UNITS / unit).unlink(missing_ok=True)
    systemctl("daemon-reload")
