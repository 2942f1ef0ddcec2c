# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exports that the service contract names: calendar months of the exchange, for external archival."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.clock import Clock
from ..core.config import Config, ExportQuery
from ..core.errors import EngineError
from ..core.journal import Journal
from ..core.lease import Lease
from ..core.period import PREVIOUS, Period, month
from ..core.progress import Report
from ..sqlite import archive_file, archive_query, export

_WORK = "exports"


def run(
    config: Config,
    names: Sequence[str] = (),
    *,
    which: str = PREVIOUS,
    accept_fewer: bool = False,
    dry_run: bool = False,
    clock: Clock | None = None,
    journal: Journal,
    progress: Report | None = None,
) -> dict[str, Any]:
    """Export one calendar month with each of the contract's queries, or those of the names given.

    Args:
        which: `2026-10`, `previous` or `current`, in the time zone of the exchange.
        accept_fewer: replace exports of a finished month that had more rows.
        dry_run: do everything but leave a file behind.

    Returns:
        `changed`, `directory`, `month` and `exports`: by name what `sqlite.export.run` returns, with `error` empty, or
        of one that failed its `error` alone.

    Raises:
        ConfigError: the contract names no export, or none of that name.
        LeaseError: another export runs.
        EngineError: every one has failed.
    """
    clock = clock or Clock()
    settings = config.require_exports()
    chosen = [settings.query(name) for name in names] if names else list(settings.queries)
    period = month(which, settings.time_zone, clock.now())
    done: dict[str, dict[str, Any]] = {}
    errors: list[EngineError] = []
    with Lease(config.run_dir / "export.lock", purpose="export", clock=clock):
        work = _work_directory(config)
        for one in chosen:
            with journal.operation("export", export=one.name, month=period.month, dry_run=dry_run) as operation:
                try:
                    result = export.run(
                        wanted(config, one, period, accept_fewer=accept_fewer),
                        timeout_s=settings.timeout_s,
                        reader=_with_archives(config, one, period),
                        work_dir=work,
                        max_wait_s=config.database(one.database).busy_timeout_s,
                        dry_run=dry_run,
                        clock=clock,
                        step=progress,
                    )
                except EngineError as error:  # the others have their turn
                    operation.result = "failed"
                    operation.evidence["error"] = error.as_dict()
                    errors.append(error)
                    done[one.name] = {"error": str(error)}
                    continue
                operation.evidence.update(
                    {key: result[key] for key in ("path", "rows", "bytes", "sha256", "changed", "complete", "read")}
                )
                done[one.name] = {**result, "error": ""}
    if len(errors) == len(chosen):
        raise errors[0]
    return {
        "changed": any(item.get("changed") for item in done.values()),
        "directory": str(settings.directory),
        "month": period.as_dict(),
        "exports": done,
    }


def wanted(config: Config, one: ExportQuery, period: Period, *, accept_fewer: bool = False) -> export.Export:
    """What the engine exports for an entry of the contract."""
    settings = config.require_exports()
    return export.Export(
        source=config.database(one.database).path,
        sql=one.sql,
        destination=settings.directory / f"{one.name}_{period.compact}.{one.format}",
        name=one.name,
        format=one.format,
        period=period,
        blobs=one.blobs,
        spreadsheet=one.spreadsheet,
        local_times=one.local_times,
        time_zone=settings.time_zone,
        require_rows=one.require_rows,
        accept_fewer=accept_fewer,
    )


def _with_archives(config: Config, one: ExportQuery, period: Period) -> export.Reader | None:
    """How to read the rows of a month that went into archives together with those that did not; None without any."""
    archives, database = config.archives, config.database(one.database)
    tables = [table.name for table in archives.tables if table.database == database.name] if archives else []
    if archives is None or not any(archive_file.existing(archives.directory, name) for name in tables):
        return None
    return lambda deadline: archive_query.opened(config, one.sql, database, period.parameters(), deadline)


def _work_directory(config: Config) -> Path:
    """A private directory for snapshots, without those that killed exports left: nobody else exports now."""
    work = config.state_dir / _WORK
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    work.chmod(0o700)
    export.sweep_snapshots(work)
    return work
