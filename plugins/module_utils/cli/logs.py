# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands about the service's logs: read what is new, tell what they say."""

from __future__ import annotations

from pathlib import Path

from ..core.clock import parse_utc
from ..core.errors import InputError
from ..core.human import size_text
from ..logs import reading
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
    report.add_argument("--week", action="store_true", help="the last whole week, Monday to Sunday, of this host")
    report.add_argument("--save", action="store_true", help="write it as HTML, text and JSON to this host's reports")
    report.add_argument("--directory", type=Path, metavar="DIR", help="write it there instead")


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
    # Reading, every hour, needs none of these.
    from ..logs import summary
    from ..logs.report import files, findings, text
    from ..logs.report.words import last_week

    options, config = context.options, context.config
    if options.week and (options.since or options.until):
        raise InputError("--week is a period already; leave --since and --until out")
    since = parse_utc(options.since) if options.since else None
    until = parse_utc(options.until) if options.until else None
    if options.week:
        since, until = last_week(context.clock.now())
    document = summary.summarise(config, since=since, until=until, clock=context.clock)
    # A report that does not know of everything is made, and not taken for a success.
    exit_code = 0 if findings.complete(document) else DEGRADED
    if not options.save and options.directory is None:
        return Answer(dict(document), text.render(document).rstrip("\n"), exit_code)
    saved = files.save(document, config, context.journal(config), options.directory, weekly=options.week)
    lines = [saved["verdict"]["headline"], *saved["files"].values()]
    return Answer({"period": document["period"], **saved}, "\n".join(lines), exit_code)
