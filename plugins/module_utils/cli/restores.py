# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that bring data back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..backup import restore, restore_plan
from ..core import config as configuration
from ..core.clock import parse_utc, utc_text
from ..core.progress import Report
from ..service import restore_job, units
from .command import Answer, Commands, Context


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    restoring = commands.add("restore", _restore, "restore a generation into place, with automatic rollback")
    restoring.add_argument(
        "--generation",
        default="latest",
        metavar="ID",
        help="an id, latest, before:2026-11-23T02:00:00Z, point-ID or salvage-ID.CANDIDATE",
    )
    restoring.add_argument("--target", default="", metavar="NAME", help="default: the first one configured")
    restoring.add_argument("--host", default="", help="a generation of another host than this one")
    restoring.add_argument("--identity", type=Path, metavar="FILE", help="age identity to decrypt with")
    restoring.add_argument(
        "--include", default="databases", metavar="PARTS", help=f"some of {','.join(restore_plan.INCLUDE)}"
    )
    restoring.add_argument("--databases", default="", metavar="NAMES", help="only these databases")
    restoring.add_argument("--config-consent", action="store_true", help="replace configuration that differs")
    restoring.add_argument("--no-halt", action="store_true", help="let trading start with the units")
    restoring.add_argument("--no-start", action="store_true", help="leave the units stopped")
    restoring.add_argument("--dry-run", action="store_true", help="say what would be done, change nothing")
    restoring.add_argument("--resume", action="store_true", help="finish or undo a restore that was interrupted")
    restoring.add_argument("--plan", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    restoring.set_defaults(left_behind=_left_behind)


def _restore(context: Context) -> Answer:
    options, config = context.options, context.config
    with context.progress("restore") as progress:
        if options.plan:
            result = restore_job.run_job_file(config, options.plan, clock=context.clock, progress=progress)
        elif options.resume:
            resumed = restore_job.resume(config, clock=context.clock, progress=progress)
            if resumed is None:
                return Answer({"result": "nothing"}, "no restore is unfinished")
            result = resumed
        else:
            result = _new_restore(context, config, progress)
    known = ["result", "generation_id", "digests_equal", "restore_point", "resume_trading", "config_diff", "left_out"]
    lines = [f"{key}: {result[key]}" for key in [*known, "warnings"] if result.get(key) not in (None, "", [])]
    lines += [f"  {phase['name']}: {phase['seconds']:.1f} s" for phase in result.get("phases", [])]
    return Answer(result, "\n".join(lines))


def _left_behind(config: configuration.Config) -> str:
    """What a person must know who has stopped a restore."""
    found = restore.status(config)
    if found is None or not found["open"]:
        return ""
    held = units.SystemdService(config).held()
    cannot = f", and {', '.join(held)} cannot be started until then" if held else ""
    return f"Restore {found['id']} is unfinished: fluxmaint restore --resume finishes or undoes it{cannot}"


def _new_restore(context: Context, config: configuration.Config, progress: Report | None) -> dict[str, Any]:
    options = context.options
    before = ""
    chosen = options.generation
    if chosen.startswith("before:"):
        chosen, before = "", utc_text(parse_utc(chosen[len("before:") :]))
    request = restore_plan.Request(
        generation=chosen,
        before=before,
        target=options.target,
        host=options.host,
        include=options.include.split(","),
        databases=options.databases.split(",") if options.databases else (),
        config_consent=options.config_consent,
        halt_trading=not options.no_halt,
        start_units=not options.no_start,
    )
    job = restore_job.Job(request, options.identity)
    if options.dry_run:
        return restore_job.preview(config, job, clock=context.clock)
    return restore_job.execute(config, job, clock=context.clock, progress=progress)
