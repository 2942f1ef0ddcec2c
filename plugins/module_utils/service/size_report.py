# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How large the service's databases are, how fast they grow, and when the disk will be full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.clock import Clock, utc_text
from ..core.config import Config
from ..core.errors import EngineError
from ..core.human import size_text, table_lines
from ..core.journal import Journal
from ..sqlite import size
from .size_history import OPERATION, History, note

_PLOT_WIDTH = 48
_MOST_PLOTTED = 15


def report(
    config: Config,
    *,
    journal: Journal,
    databases: Sequence[str] = (),
    record: bool = False,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Measure the databases, without changing anything in them.

    Args:
        record: note the sizes in the journal: growth is told from such notes.

    Returns `databases`, each with `name`, the facts of `sqlite.size.Sizes`, `growth_bytes_per_day` and
    `days_until_full` (None where that is unknown, and `growth_unknown` says why); one that cannot be measured has an
    `error` instead.
    """
    clock = clock or Clock()
    history = History(journal)
    chosen = [config.database(name) for name in databases] if databases else list(config.databases)
    now = clock.now()
    found: list[dict[str, Any]] = []
    notes: dict[str, Any] = {}
    copy_dir = config.state_dir if config.state_dir.is_dir() else None
    for database in chosen:
        try:
            sizes = size.measure(database.path, copy_dir=copy_dir, clock=clock)
        except EngineError as error:
            found.append({"name": database.name, "path": str(database.path), "error": error.as_dict()})
            continue
        notes[database.name] = note(sizes)
        growth = size.growth_per_day([*history.samples(database.name), (now, sizes.used_bytes)], now)
        found.append({"name": database.name, **sizes.as_dict(), "growth_bytes_per_day": growth})
    _when_full(found)
    if record:
        with journal.operation(OPERATION) as operation:
            operation.evidence = {"databases": notes}
            operation.result = "degraded" if len(notes) < len(chosen) else "ok"
    failed = len(notes) < len(chosen)
    return {"time": utc_text(now), "result": "degraded" if failed else "ok", "recorded": record, "databases": found}


def _when_full(found: list[dict[str, Any]]) -> None:
    """Databases on the same file system use up the same room."""
    growing: dict[int, float] = {}
    for item in found:
        if item.get("growth_bytes_per_day") is not None:
            device = Path(item["path"]).stat().st_dev
            growing[device] = growing.get(device, 0.0) + item["growth_bytes_per_day"]
    for item in found:
        if "error" in item:
            continue
        growth = item["growth_bytes_per_day"]
        item["growth_unknown"] = "" if growth is not None else "there are no notes of its size from a day or more ago"
        item["days_until_full"] = None
        if growth is not None:
            item["growth_bytes_per_day"] = round(growth)
            room = item["disk_free_bytes"] + item["free_page_bytes"]
            item["days_until_full"] = size.days_until_full(room, growing[Path(item["path"]).stat().st_dev])


def text(facts: Mapping[str, Any]) -> str:
    """The report as a person reads it: the facts, a table and a plot of each database."""
    return "\n\n".join("\n".join(_database_lines(item)) for item in facts["databases"]) or "there is no database"


def _database_lines(item: Mapping[str, Any]) -> list[str]:
    if "error" in item:
        return [f"{item['name']}: cannot be measured: {item['error']['message']}"]
    growth, full = item["growth_bytes_per_day"], item["days_until_full"]
    grows = f"{_signed(growth)} a day" if growth is not None else f"unknown: {item['growth_unknown']}"
    never = "unknown" if growth is None else "never, as it does not grow"
    when = f"in {full:.0f} days" if full is not None else never
    lines = [
        f"{item['name']}: {size_text(item['bytes'])}, {_percent(item['free_ratio'])} of the pages free, {item['path']}",
        f"  growth     {grows}",
        f"  disk full  {when}, {size_text(item['disk_free_bytes'])} free",
    ]
    if item["objects"] is None:
        return [*lines, f"  tables     unknown: {item['no_objects']}"]
    lines.append(f"  pages      {_percent(item['fill'])} full, {_percent(item['fragmentation'])} scattered")
    rows = [("  name", "kind", "size", "rows", "full", "scattered"), *(_row(part) for part in item["objects"])]
    return [*lines, *table_lines(rows), "", *plot(item["objects"])]


def _row(part: Mapping[str, Any]) -> tuple[str, ...]:
    rows = "" if part["rows"] is None else str(part["rows"])
    scattered = _percent(part["gaps"] / max(part["pages"], 1))
    return f"  {part['name']}", part["kind"], size_text(part["bytes"]), rows, _percent(part["fill"]), scattered


def plot(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """A bar for each of the largest tables and indexes, in plain characters; the largest is as wide as all."""
    shown = items[:_MOST_PLOTTED]
    largest = max((item["bytes"] for item in shown), default=0) or 1
    width = max((len(item["name"]) for item in shown), default=0)
    lines = []
    for item in shown:
        length = max(1, round(_PLOT_WIDTH * item["bytes"] / largest))
        lines.append(f"  {item['name'].ljust(width)} |{'#' * length} {size_text(item['bytes'])}")
    if len(items) > len(shown):
        lines.append(f"  and {len(items) - len(shown)} smaller ones")
    return lines


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.0f} %"


def _signed(growth: float) -> str:
    return ("+" if growth >= 0 else "-") + size_text(abs(growth))
