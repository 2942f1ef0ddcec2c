# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that keep the service's directories in shape: export months, remove old cache files."""

from __future__ import annotations

from typing import Any

from ..core.human import size_text
from ..core.period import PREVIOUS
from ..service import cache_cleanup, exports
from .command import DEGRADED, Answer, Commands, Context


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    exporting = commands.add("export", _export, "export a calendar month with the queries of the contract")
    exporting.add_argument("names", nargs="*", metavar="NAME", help="of an export; default: each one")
    exporting.add_argument(
        "--month", default=PREVIOUS, metavar="MONTH", help="2026-10, previous or current; default: %(default)s"
    )
    exporting.add_argument(
        "--accept-fewer", action="store_true", help="replace an export of a finished month that had more rows"
    )
    exporting.add_argument("--dry-run", action="store_true", help="query and count, leave no file behind")

    cleaning = commands.add("cleanup-cache", _cleanup, "remove old cache files that a proven backup holds")
    cleaning.add_argument("--max-age-days", type=float, metavar="DAYS", help="default: as configured")
    cleaning.add_argument("--max-bytes", type=int, metavar="BYTES", help="default: as configured")
    cleaning.add_argument("--dry-run", action="store_true", help="say what would be done, do nothing")


def _export(context: Context) -> Answer:
    options, config = context.options, context.config
    with context.progress("export") as progress:
        result = exports.run(
            config,
            options.names,
            which=options.month,
            accept_fewer=options.accept_fewer,
            dry_run=options.dry_run,
            clock=context.clock,
            journal=context.journal(config),
            progress=progress,
        )
    period = result["month"]
    lines = [f"{period['month']} of {period['time_zone']}: {period['begin']} to {period['end']}"]
    for name, item in result["exports"].items():
        lines += _export_lines(name, item, dry_run=options.dry_run)
    failed = any(item["error"] for item in result["exports"].values())
    return Answer(result, "\n".join(lines), DEGRADED if failed else 0)


def _export_lines(name: str, item: dict[str, Any], *, dry_run: bool) -> list[str]:
    if item["error"]:
        return [f"{name}: FAILED: {item['error']}"]
    state = "unchanged" if not item["changed"] else "would be written" if dry_run else "written"
    month = "" if item["complete"] else ", the month is not over"
    size = f"{item['rows']} rows, {size_text(item['bytes'])}"
    read = f"read from {'a snapshot' if item['read']['from'] == 'snapshot' else 'the live database'}"
    lines = [f"{name}: {item['path']} {state}: {size}, {read}{month}", f"  sha256 {item['sha256']}"]
    return [*lines, *(f"  note: {text}" for text in item["notes"])]


def _cleanup(context: Context) -> Answer:
    options, config = context.options, context.config
    result = cache_cleanup.cleanup(
        config,
        max_age_days=options.max_age_days,
        max_bytes=options.max_bytes,
        dry_run=options.dry_run,
        clock=context.clock,
        journal=context.journal(config),
    )
    return Answer(result, cache_cleanup.table(result))
