# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a snapshot has to stand before it counts: on the host that took it, and wherever it is restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import EngineError, InputError, IntegrityError
from ..sqlite import connect, fingerprint, integrity
from .manifest import DatabaseRecord, InvariantResult

_QUERY_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Findings:
    """A sound snapshot: SQLite's report and the answers to the operator's invariants."""

    report: integrity.Report
    invariants: list[InvariantResult]

    @property
    def rows(self) -> dict[str, int]:
        """Rows per table."""
        return {name: int(facts["rows"] or 0) for name, facts in self.report.tables.items()}


def examine(
    path: Path,
    *,
    subject: str,
    required: Mapping[str, Sequence[str]],
    invariants: Sequence[tuple[str, str, Any]],
    timeout_s: float,
    workers: int = 1,
    deadline: connect.Deadline | None = None,
) -> Findings:
    """Check a private snapshot: damage, foreign keys, required tables and columns, invariants.

    Args:
        subject: what to name in the error: the database, or the object that it came from.
        invariants: name, SQL and expected value of each.
        workers: processors to use.
        deadline: instead of `timeout_s`, one that somebody else may cancel.

    Raises:
        IntegrityError: with everything that is wrong in `findings`.
    """
    try:
        report = integrity.check(
            path, "full", timeout_s=timeout_s, immutable=True, sizes=False, workers=workers, deadline=deadline
        )
    except EngineError as error:
        if error.subject == str(path):  # where the snapshot lay for a while tells nobody anything
            error.subject = subject
        raise
    wrong = [f"integrity_check: {message}" for message in report.messages]
    wrong += [f"foreign key: {violation}" for violation in report.foreign_key_violations]
    if not report.tables:
        wrong.append("there is no table in it")
    with connect.reading(path, immutable=True) as con:
        for table, columns in required.items():
            present = {row[1] for row in con.execute(f"PRAGMA table_xinfo({fingerprint.quoted(table)})")}
            lacking = [column for column in columns if column not in present]
            if not present:
                wrong.append(f"the table {table} is missing")
            elif lacking:
                wrong.append(f"the table {table} lacks the columns {', '.join(lacking)}")
    answers = []
    for name, sql, expect in invariants:
        try:
            value = fingerprint.query_value(path, sql, immutable=True, timeout_s=timeout_s, deadline=deadline)
        except EngineError as error:
            wrong.append(f"the invariant {name} cannot be asked: {error.message}")
            continue
        answers.append(InvariantResult(name=name, sql=sql, expect=expect, value=value))
        if value != expect:
            wrong.append(f"the invariant {name} gives {value!r}, not {expect!r}")
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise IntegrityError(
            f"the snapshot is not sound: {'; '.join(wrong[:3])}{more}", subject=subject, findings=wrong
        )
    return Findings(report, answers)


def newest(
    path: Path,
    queries: Mapping[str, str],
    *,
    subject: str,
    deadline: connect.Deadline | None = None,
) -> Any:
    """The newest business timestamp, or None when there is no such query; errors name `subject`."""
    sql = queries.get("newest")
    if sql is None:
        return None
    try:
        value = fingerprint.query_value(
            path, sql, immutable=True, timeout_s=_QUERY_TIMEOUT_S, deadline=deadline
        )
    except EngineError as error:
        raise InputError(f"the query newest cannot be asked: {error.message}", subject=subject) from error
    if value is not None and not isinstance(value, (str, int, float)):
        raise InputError(f"the query newest gives {type(value).__name__}, not a text or a number", subject=subject)
    return value


def compare(record: DatabaseRecord, findings: Findings, *, subject: str) -> None:
    """Raise IntegrityError unless a restored database is the one that the manifest describes."""
    report = findings.report
    seen = {
        "schema digest": (record.schema_digest, report.schema_digest),
        "page size": (record.page_size, report.page_size),
        "page count": (record.page_count, report.page_count),
        "application_id": (record.application_id, report.application_id),
        "user_version": (record.user_version, report.user_version),
        "tables": (sorted(record.tables), sorted(findings.rows)),
    }
    rows = findings.rows
    seen.update({f"rows of {name}": (table.rows, rows.get(name)) for name, table in record.tables.items()})
    wrong = [f"{what} is {found}, the manifest says {said}" for what, (said, found) in seen.items() if said != found]
    if wrong:
        raise IntegrityError("; ".join(wrong[:5]), subject=subject, findings=wrong)


def drift(before: Mapping[str, int], now: Mapping[str, int], limit: float) -> list[str]:
    """Tables that lost more than the fraction `limit` of their rows since the previous generation."""
    lost = []
    for table, rows in sorted(before.items()):
        present = now.get(table, 0)
        if rows and rows - present > limit * rows:
            lost.append(f"{table} had {rows} rows and has {present}")
    return lost
