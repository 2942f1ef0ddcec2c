# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands about the databases' size and upkeep."""

from __future__ import annotations

from ..core.config import Config
from ..service import size_report, units, upkeep_job, upkeep_text
from .command import DEGRADED, Answer, Commands, Context


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    sizes = commands.add("size", _size, "tell how large the databases are, how fast they grow, when the disk is full")
    sizes.add_argument("--database", action="append", default=[], metavar="NAME", help="only this one; repeatable")
    sizes.add_argument("--record", action="store_true", help="note the sizes in the journal: growth is told from that")

    upkeep = commands.add("maintain", _maintain, "keep the databases small and fast: do what is due, and prove it")
    upkeep.add_argument("--database", action="append", default=[], metavar="NAME", help="only this one; repeatable")
    upkeep.add_argument("--dry-run", action="store_true", help="say what would be done and what it costs, do nothing")
    upkeep.add_argument("--ignore-window", action="store_true", help="as if the maintenance window were open")
    upkeep.add_argument("--resume", action="store_true", help="only finish or undo what was interrupted")
    upkeep.set_defaults(left_behind=_left_behind)


def _size(context: Context) -> Answer:
    options, config = context.options, context.config
    facts = size_report.report(
        config,
        journal=context.journal(config),
        databases=options.database,
        record=options.record,
        clock=context.clock,
    )
    return Answer(facts, size_report.text(facts), 0 if facts["result"] == "ok" else DEGRADED)


def _maintain(context: Context) -> Answer:
    options, config = context.options, context.config
    service = units.SystemdService(config, clock=context.clock)
    journal = context.journal(config)
    if options.dry_run:
        planned = upkeep_job.plan(
            config,
            service=service,
            journal=journal,
            databases=options.database,
            ignore_window=options.ignore_window,
            clock=context.clock,
        )
        failed = any("error" in item for item in planned["databases"])
        return Answer(planned, upkeep_text.text(planned), DEGRADED if failed else 0)
    with context.progress("maintain") as progress:
        if options.resume:
            resumed = upkeep_job.resume(
                config, service=service, journal=journal, clock=context.clock, progress=progress
            )
            if resumed is None:
                return Answer({"result": "nothing"}, "no upkeep is unfinished")
            return Answer(resumed, f"{resumed['database']}: interrupted upkeep is {resumed['result']}")
        result = upkeep_job.run(
            config,
            service=service,
            journal=journal,
            databases=options.database,
            ignore_window=options.ignore_window,
            clock=context.clock,
            progress=progress,
        )
    return Answer(result, upkeep_text.text(result), DEGRADED if result["result"] == "degraded" else 0)


def _left_behind(config: Config) -> str:
    """What a person must know who has stopped upkeep."""
    left = upkeep_job.unfinished(config)
    return (
        f"Upkeep of {left['database']} is unfinished: fluxmaint maintain --resume finishes or undoes it" if left else ""
    )
