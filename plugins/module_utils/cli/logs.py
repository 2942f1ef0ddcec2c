# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands about the service's logs: read what is new, tell what they say."""

from __future__ import annotations

from ..core.clock import parse_utc
from ..core.human import size_text, table_lines
from ..logs import reading, summary
from .command import DEGRADED, Answer, Commands, Context


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    logs = commands.group("logs", "read the service's logs, and tell what they say")
    read = logs.add("read", _read, "read what is new in the logs, and add it to the totals")
    read.add_argument("--dry-run", action="store_true", help="name the files with something new, read nothing")
    report = logs.add("report", _report, "tell what the logs of a period say, from the totals")
    report.add_argument(
        "--since", metavar="TIME", help="such as 2026-11-23T02:00:00Z; default: seven days before the end"
    )
    report.add_argument("--until", metavar="TIME", help="default: now")


def _read(context: Context) -> Answer:
    config = context.config
    if context.options.dry_run:
        unread = reading.unread(config)
        lines = [f"{item['path']}: {size_text(item['bytes'])}" for item in unread]
        return Answer({"unread": unread}, "\n".join(lines) or "nothing new in any file")
    with context.progress("logs read") as progress:
        result = reading.read(config, clock=context.clock, journal=context.journal(config), progress=progress)
    lines = [f"{result['events']} events, {size_text(result['bytes'])}"]
    for source in result["sources"]:
        lines.append(
            f"  {source['name']}: {source['events']} events, {source['unparsed']} unparsed,"
            f" {source['doubles_dropped']} doubles dropped"
        )
        lines += [f"    gap: {text}" for text in source["gaps"]] + [f"    failed: {text}" for text in source["errors"]]
    return Answer(result, "\n".join(lines), DEGRADED if result["result"] == "degraded" else 0)


def _report(context: Context) -> Answer:
    options = context.options
    document = summary.summarise(
        context.config,
        since=parse_utc(options.since) if options.since else None,
        until=parse_utc(options.until) if options.until else None,
        clock=context.clock,
    )
    totals, before = document["totals"], document["previous_totals"]
    rows = [["", "this period", "before"]]
    for name, count in totals.items():
        rows.append([name.replace("_", " "), str(count), str(dict(before)[name]) if before else ""])
    lines = [f"{document['period']['begin']} to {document['period']['end']}", *table_lines(rows)]
    lines += [f"note: {text}" for text in document["notes"]]
    return Answer(dict(document), "\n".join(lines))
