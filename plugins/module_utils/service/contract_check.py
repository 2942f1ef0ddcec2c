# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a running service everything that its contract promises, once: units, endpoints, queries, invariants, rows.

The preflight looks whether the contract can hold on a host; this looks whether the service keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.clock import Clock
from ..core.config import Config, Database
from ..core.errors import EngineError
from ..sqlite import connect, fingerprint
from . import probe


def check(
    config: Config,
    *,
    active: Callable[[], Sequence[str]],
    least_rows: Mapping[str, Mapping[str, int]] | None = None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Every promise of the contract, with the answers as evidence. Reads only.

    Args:
        active: the units that run.
        least_rows: for each database its tables with the number of rows that must be there at least.

    Returns:
        `ok`, `failures` (one sentence each), `units`, `conditions` (the probes), and `databases`: for each the answers
        to its queries, its invariants, and its rows per table. What promises nothing is a failure, not a success.
    """
    running = list(active())
    failures = [f"the unit {unit} does not run" for unit in config.units if unit not in running]
    conditions = [result.as_dict() for result in probe.check_all(config.health, clock or Clock())]
    failures += [f"{item['name']}: {item['reason']}" for item in conditions if not item["ok"]]
    if not conditions:
        failures.append("the contract names no endpoint that could be asked")
    databases = {}
    for database in config.databases:
        try:
            databases[database.name] = _database(database, (least_rows or {}).get(database.name, {}), failures)
        except EngineError as error:
            failures.append(f"database {database.name}: {error}")
    unknown = sorted(set(least_rows or {}) - {database.name for database in config.databases})
    failures += [f"the contract names no database {name}, of which rows are expected" for name in unknown]
    return {
        "ok": not failures,
        "failures": failures,
        "units": running,
        "conditions": conditions,
        "databases": databases,
    }


def _database(database: Database, least: Mapping[str, int], failures: list[str]) -> dict[str, Any]:
    queries: dict[str, Any] = {}
    for name, sql in database.queries.items():
        try:
            queries[name] = fingerprint.query_value(database.path, sql, timeout_s=database.busy_timeout_s)
        except EngineError as error:
            failures.append(f"database {database.name}: the query {name} gives no answer: {error}")
    invariants = []
    for item in database.invariants:
        value = fingerprint.query_value(database.path, item.sql, timeout_s=database.busy_timeout_s)
        invariants.append({"name": item.name, "expect": item.expect, "value": value})
        if value != item.expect:
            failures.append(f"database {database.name}: the invariant {item.name} gives {value!r}, not {item.expect!r}")
    with connect.reading(database.path) as connection:
        rows = fingerprint.count_rows(connection)
    if not rows:
        failures.append(f"database {database.name} has no table")
    failures += [
        f"database {database.name}: the table {table} has {rows.get(table, 0)} rows, at least {count} are expected"
        for table, count in least.items()
        if rows.get(table, 0) < count or table not in rows
    ]
    return {"queries": queries, "invariants": invariants, "rows": rows}
