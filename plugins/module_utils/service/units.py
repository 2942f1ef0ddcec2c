# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service's systemd units: stop and prove it, hold them down, start them, wait for health."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..core.clock import Clock
from ..core.config import Config
from ..core.errors import CommandError, TimeoutExceeded
from ..core.fsio import atomic_write, fsync_dir
from ..core.run import Completed, run
from . import probe

UNIT_DIR = Path("/etc/systemd/system")
HOLD_FILE = "50-fluxmaint-hold.conf"
# `systemctl mask` cannot mask a unit whose file is in /etc, and a mask in /run is below it and gone after
# a reboot. A failed assertion stops every kind of start: by hand, Restart=, timer, dependency, boot.
_HOLD = """# A restore, or upkeep of a database, is in progress; at its end this file goes.
# After a crash, `fluxmaint restore --resume` or `fluxmaint maintain --resume` finishes or undoes it.
[Unit]
AssertPathExists=!/proc/self
"""
_POLL_S = 0.2

Runner = Callable[..., Completed]


def unit_property(unit: str, name: str, runner: Runner = run) -> str:
    """What systemd says of a unit, such as `ActiveState`. Raises CommandError where it cannot be asked."""
    done = runner(["systemctl", "show", "--value", f"--property={name}", "--", unit], timeout_s=30)
    return done.text.strip()


class SystemdService:
    """Implements `backup.restore.ServiceControl` for systemd.

    Args:
        config: units and health conditions.
        stop_timeout_s: how long a unit may take to stop, in seconds.
        unit_dir: where drop-ins for units go.
        runner: runs `systemctl`.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        stop_timeout_s: float = 120,
        start_timeout_s: float = 120,
        unit_dir: Path = UNIT_DIR,
        runner: Runner = run,
    ) -> None:
        self._config = config
        self._clock = clock or Clock()
        self._stop_timeout_s = stop_timeout_s
        self._start_timeout_s = start_timeout_s
        self._unit_dir = unit_dir
        self._run = runner

    def active(self) -> list[str]:
        """The units that run or are about to."""
        return [unit for unit in self._config.units if self.state(unit) not in ("inactive", "failed")]

    def state(self, unit: str) -> str:
        """`ActiveState` of a unit; a unit that systemd does not know is `inactive`."""
        return self._show(unit, "ActiveState")

    def load_state(self, unit: str) -> str:
        """`LoadState` of a unit: `loaded`, `not-found`, `masked` or `bad-setting`."""
        return self._show(unit, "LoadState")

    def hold(self) -> None:
        """No unit can be started until `release`, not even by a reboot."""
        if not self._config.units:
            return
        for unit in self._config.units:
            directory = self._unit_dir / f"{unit}.d"
            if not directory.is_dir():
                directory.mkdir(mode=0o755)
                fsync_dir(self._unit_dir)
            if not (directory / HOLD_FILE).exists():
                atomic_write(directory / HOLD_FILE, _HOLD.encode(), 0o644)
        self._systemctl("daemon-reload")

    def held(self) -> list[str]:
        """The units that are held now."""
        return [unit for unit in self._config.units if (self._unit_dir / f"{unit}.d" / HOLD_FILE).exists()]

    def release(self) -> None:
        """Lift `hold`; unit files that have changed are read again."""
        if not self._config.units:
            return
        for unit in self._config.units:
            directory = self._unit_dir / f"{unit}.d"
            (directory / HOLD_FILE).unlink(missing_ok=True)
            if directory.is_dir():
                fsync_dir(directory)
                if not any(directory.iterdir()):
                    directory.rmdir()
        self._systemctl("daemon-reload")

    def stop(self) -> None:
        """Stop all units; returns when each is inactive and has no process. Raises TimeoutExceeded otherwise."""
        known = [unit for unit in self._config.units if self.load_state(unit) != "not-found"]
        if not known:
            return
        self._systemctl("stop", *known, timeout_s=self._stop_timeout_s)
        deadline = self._clock.monotonic() + self._stop_timeout_s
        while True:
            alive = [unit for unit in known if self.state(unit) not in ("inactive", "failed") or self._has_tasks(unit)]
            if not alive:
                return
            if self._clock.monotonic() > deadline:
                raise TimeoutExceeded(
                    f"{', '.join(alive)} still run {self._stop_timeout_s:g} s after the stop",
                    subject=alive[0],
                    remedy="look at systemctl status and the journal of the unit",
                )
            self._clock.sleep(_POLL_S)

    def start(self, units: Sequence[str]) -> None:
        """Start these units; those that run are left alone. Raises CommandError with systemd's reason."""
        if not units:
            return
        failed = [unit for unit in units if self.state(unit) == "failed"]
        if failed:
            self._systemctl("reset-failed", *failed)
        try:
            self._systemctl("start", *units, timeout_s=self._start_timeout_s)
        except CommandError as error:
            raise CommandError(
                f"cannot start {', '.join(units)}: {error.message}", subject=units[0], remedy="look at journalctl -u"
            ) from None

    def wait_healthy(self) -> dict[str, Any]:
        """Wait until every unit runs and every condition of the contract holds; returns the evidence."""
        return probe.wait_healthy(self._config.health, self._clock, conditions=[self._units_running])

    def _units_running(self) -> dict[str, Any]:
        states = {unit: self.state(unit) for unit in self._config.units}
        down = [f"{unit} is {state}" for unit, state in states.items() if state != "active"]
        return {"name": "units", "ok": not down, "reason": "; ".join(down), "states": states}

    def _has_tasks(self, unit: str) -> bool:
        tasks = self._show(unit, "TasksCurrent")  # 2**64 - 1, or "[not set]", when there is no control group
        return tasks.isdigit() and 0 < int(tasks) < 2**63

    def _show(self, unit: str, name: str) -> str:
        return unit_property(unit, name, self._run)

    def _systemctl(self, *words: str, timeout_s: float = 60) -> None:
        self._run(["systemctl", *words], timeout_s=timeout_s)
