# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command for a database that is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..backup import salvage
from ..core.human import size_text
from .command import DEGRADED, Answer, Commands, Context


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    salvaging = commands.add("salvage", _salvage, "keep a damaged database and make what can be had back, beside it")
    salvaging.add_argument("--database", required=True, metavar="NAME", help="its name in the configuration")
    salvaging.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new or empty directory")
    salvaging.add_argument("--identity", type=Path, metavar="FILE", help="age identity, to compare with a generation")
    salvaging.add_argument(
        "--generation", default=salvage.NEWEST_PROVEN, metavar="ID", help="an id, proven (the newest), or none"
    )
    salvaging.add_argument("--target", default="", metavar="NAME", help="default: any one that holds the generation")
    salvaging.add_argument("--timeout", type=float, default=7200.0, metavar="S", help="seconds; default: %(default)g")
    salvaging.add_argument("--dry-run", action="store_true", help="say what would be done, do nothing")


def _salvage(context: Context) -> Answer:
    options, config = context.options, context.config
    request = salvage.Request(
        database=options.database,
        to=options.to,
        identity_file=options.identity,
        generation=options.generation,
        target=options.target,
        timeout_s=options.timeout,
    )
    if options.dry_run:
        return _plan(salvage.plan(config, request, clock=context.clock))
    with context.progress("salvage") as progress:
        report = salvage.run(config, request, journal=context.journal(config), clock=context.clock, progress=progress)
    return _report(report)


def _plan(plan: dict[str, Any]) -> Answer:
    if plan["result"] == "unchanged":
        return _report(plan)
    lines = [f"would keep {', '.join(plan['set'])} in {plan['directory']}"]
    lines.append(f"generation: {plan['generation']['id'] or plan['generation']['reason']}")
    lines += [
        f"candidate {name}: {'yes' if facts['available'] else facts['reason']}"
        for name, facts in plan["candidates"].items()
    ]
    lines.append(f"needs {size_text(plan['needed_bytes'])}, {size_text(plan['free_bytes'])} are free")
    return Answer(plan, "\n".join(lines))


def _report(report: dict[str, Any]) -> Answer:
    lines = [salvage.table(report), f"everything is in {report['directory']}; the database itself is as it was"]
    if report["recommended"]:
        lines.append(
            f"into place: fluxmaint restore --generation salvage-{report['id']}.{report['recommended']}"
            f" --databases {report['database']}"
        )
    return Answer(report, "\n".join(lines), 0 if report["recommended"] else DEGRADED)
