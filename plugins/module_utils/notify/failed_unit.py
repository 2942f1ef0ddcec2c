# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd knows about a unit that has failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.clock import Clock, utc_text
from ..core.config import Config
from ..core.errors import EngineError
from ..core.run import Completed, run
from .event import UNIT_FAILED, Event

_LINES = 40
_PROPERTIES = ("Result", "ExecMainStatus", "ExecMainStartTimestamp", "Description")
_SAYS = "fluxmaint: "  # how the last word of a failing fluxmaint begins

# What an exit status of fluxmaint means where it has said nothing else.
_MEANING = {"3": "degraded: something was done, something was not", "4": "another operation holds the lease"}

Runner = Callable[..., Completed]


def describe(config: Config, unit: str, *, clock: Clock | None = None, runner: Runner = run) -> Event:
    """The event for a unit that has failed: its result, exit status and the end of its log."""
    known: dict[str, str] = {}
    lines: list[str] = []
    try:
        properties = ["--timestamp=unix", f"--property={','.join(_PROPERTIES)}"]
        shown = runner(["systemctl", "show", *properties, "--", unit], timeout_s=20)
        known = dict(line.partition("=")[::2] for line in shown.text.splitlines())
        lines = _log(unit, known.get("ExecMainStartTimestamp", ""), runner)
    except EngineError as error:  # people must hear of the failure all the same
        lines = [f"the log of {unit} cannot be read: {error.message}"]
    result, status = known.get("Result", "unknown"), known.get("ExecMainStatus", "")
    said = next((line[len(_SAYS) :] for line in reversed(lines) if line.startswith(_SAYS)), "")
    said = said or _MEANING.get(status, "")
    ended = f"{unit} failed ({result}{', exit status ' + status if status not in ('', '0') else ''})"
    details: dict[str, Any] = {"exit_status": int(status) if status.isdigit() else None}
    return Event(
        event=UNIT_FAILED,
        service=config.service,
        host=config.host,
        time=utc_text((clock or Clock()).now()),
        unit=unit,
        result=result,
        message=f"{ended}: {said}" if said else ended,
        journal=lines,
        details={**details, "description": known.get("Description", "")},
    )


def _log(unit: str, since: str, runner: Runner) -> list[str]:
    """The last lines of the unit's last run, which began at `since`.

    Not chosen by the run's id: the journal does not know it for lines that it reads when the process has gone.
    """
    # What a unit said last may still be on its way to the journal.
    runner(["journalctl", "--sync"], timeout_s=20, check=False)
    chosen = [*([f"--since={since}"] if since.startswith("@") else []), f"_SYSTEMD_UNIT={unit}"]
    command = ["journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={_LINES}", *chosen]
    return list(runner(command, timeout_s=20).text.splitlines())
