# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that archive old rows, tell what archives hold, and ask them together with the live database."""

from __future__ import annotations

from typing import Any

from ..core.errors import IntegrityError
from ..core.human import size_text, table_lines
from ..sqlite import archive, archive_query
from .command import DEGRADED, Answer, Commands, Context


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    moving = commands.add("archive", _archive, "move old rows of the database into an archive for each month")
    moving.add_argument("--name", action="append", default=[], help="only this entry of service_archives; repeatable")
    moving.add_argument(
        "--older-than-days", type=int, default=archive.OLDER_THAN_DAYS, metavar="N", help="default: %(default)s"
    )
    moving.add_argument("--delete", action="store_true", help="delete from the live database what an archive holds")
    moving.add_argument(
        "--replace-changed",
        action="store_true",
        help="a person has decided: rows that changed after they were archived count as they are now",
    )
    moving.add_argument(
        "--accept-fewer",
        action="store_true",
        help="a person has decided: archives that are gone, or hold fewer rows than before, count as they are",
    )
    moving.add_argument(
        "--accept-clock",
        action="store_true",
        help="a person has looked at the clock: it is right, whatever the journal and the newest rows say",
    )
    moving.add_argument(
        "--writer-wait",
        type=float,
        default=archive.WRITER_WAIT_S,
        metavar="SECONDS",
        help="how long a deletion may keep writers waiting; default: %(default)s",
    )
    moving.add_argument("--timeout", type=float, default=archive.TIMEOUT_S, metavar="SECONDS")
    moving.add_argument("--dry-run", action="store_true", help="tell rows and bytes by month, do nothing")

    telling = commands.add("archive-info", _info, "tell what the archives hold, and prove it")
    telling.add_argument("--quick", action="store_true", help="look at names and headings only")

    asking = commands.add("query", _query, "run one SELECT over the live database and its archives")
    asking.add_argument("sql", metavar="SELECT")
    asking.add_argument("--database", default="", metavar="NAME", help="needed where the contract has several")
    asking.add_argument("--since", default="", metavar="YYYYMM", help="the first month of which archives are read")
    asking.add_argument("--until", default="", metavar="YYYYMM", help="the last one")
    asking.add_argument(
        "--max-rows", type=int, default=archive_query.MOST_ROWS, metavar="N", help="default: %(default)s"
    )
    asking.add_argument("--timeout", type=float, default=archive_query.TIMEOUT_S, metavar="SECONDS")


def _archive(context: Context) -> Answer:
    options, config = context.options, context.config
    with context.progress("archive") as progress:
        result = archive.run(
            config,
            names=options.name,
            older_than_days=options.older_than_days,
            delete=options.delete,
            replace_changed=options.replace_changed,
            accept_fewer=options.accept_fewer,
            accept_clock=options.accept_clock,
            writer_wait_s=options.writer_wait,
            timeout_s=options.timeout,
            dry_run=options.dry_run,
            clock=context.clock,
            journal=None if options.dry_run else context.journal(config),
            progress=progress,
        )
    return Answer(result, _text(result), DEGRADED if result["problems"] else 0)


def _text(result: dict[str, Any]) -> str:
    verb = "would be archived" if result["dry_run"] else "archived"
    rows = [("table", "month", "chosen", verb, "bytes", "deleted", "kept")]
    for table in result["tables"]:
        for month in table["months"]:
            chosen = sum(month[key] for key in ("added", "held", "differs", "elsewhere"))
            kept = ", ".join(f"{count} {reason}" for reason, count in month["kept"].items())
            rows.append(
                (table["name"], month["month"], str(chosen), str(month["added"]), size_text(month["bytes"]),
                 str(month["deleted"]), kept)
            )  # fmt: skip
    head = f"rows before {result['cutoff']}: {result['archived']} {verb}, {result['deleted']} deleted"
    return "\n".join([head, *table_lines(rows), *_said(result)])


def _said(result: dict[str, Any]) -> list[str]:
    notes = [f"note: {text}" for text in result["notes"]]
    return [*(f"problem: {text}" for text in result["problems"]), *notes]


def _info(context: Context) -> Answer:
    result = archive_query.info(context.config, content=not context.options.quick, clock=context.clock)
    rows = [("table", "month", "rows", "size", "state", "file")]
    for table in result["tables"]:
        for file in table["files"]:
            numbers = (str(file["rows"]), size_text(file["bytes"])) if file["ok"] else ("", "")
            rows.append((table["name"], file["month"], *numbers, "ok" if file["ok"] else "DAMAGED", file["path"]))
    lines = [*table_lines(rows), *_said(result)]
    return Answer(result, "\n".join(lines), 0 if result["ok"] else IntegrityError.exit_code)


def _query(context: Context) -> Answer:
    options = context.options
    answer = archive_query.query(
        context.config,
        options.sql,
        database=options.database,
        since=options.since,
        until=options.until,
        max_rows=options.max_rows,
        timeout_s=options.timeout,
        clock=context.clock,
    )
    data = answer.as_dict()
    rows = [["" if value is None else str(value) for value in row] for row in data["rows"]]
    more = [f"there are more than {options.max_rows} rows: say --max-rows"] if answer.truncated else []
    notes = [f"note: {text}" for text in answer.notes]
    return Answer(data, "\n".join([*table_lines([answer.columns, *rows]), *more, *notes]))
