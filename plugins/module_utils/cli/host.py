# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands about the host: versions, configuration, journal, contract, database files."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

from ..backup.overlaps import require_apart
from ..core import config as configuration
from ..core.errors import InputError, IntegrityError
from ..core.journal import Journal
from ..core.version import VERSION
from ..service import preflight, units
from ..sqlite import fingerprint, integrity
from .command import Answer, Commands, Context


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    commands.add("version", _version, "tell the versions of fluxmaint, Python and SQLite")

    check = commands.group("config", "work with the configuration").add(
        "check", _config_check, "read the configuration and name every mistake in it"
    )
    check.add_argument(
        "--candidate",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="check the whole with FILE as the drop-in config.d/NAME",
    )

    journal = commands.add("journal", _journal, "show what has been done on this host")
    journal.add_argument("--operation", metavar="NAME", help="only this operation, such as backup")
    journal.add_argument("--limit", type=int, metavar="N", help="only the last N entries")
    journal.add_argument("--verify", action="store_true", help="check the hash chain instead")

    commands.add("preflight", _preflight, "compare the host with the service contract")

    inspect = commands.add("integrity", _integrity, "check a database file, without changing it")
    inspect.add_argument("database", type=Path)
    inspect.add_argument("--level", choices=("quick", "full"), default="full")
    inspect.add_argument("--digests", action="store_true", help="compute the content digest of each table too")


def _version(_context: Context) -> Answer:
    data = {"version": VERSION, "python": sys.version.split()[0], "sqlite": sqlite3.sqlite_version}
    return Answer(data, f"fluxmaint {VERSION} (Python {data['python']}, SQLite {data['sqlite']})")


def _config_check(context: Context) -> Answer:
    candidates = {}
    for candidate in context.options.candidate:
        name, separator, path = candidate.partition("=")
        if not separator:
            raise InputError(f"--candidate takes NAME=FILE, not {candidate!r}")
        candidates[name] = Path(path)
    config = configuration.load(context.config_file, candidates)
    require_apart(config)
    databases = [database.name for database in config.databases]
    targets = [target.name for target in config.backup.targets] if config.backup else []
    data = {"valid": True, "service": config.service, "host": config.host, "databases": databases, "targets": targets}
    text = (
        f"{context.config_file} is valid: service {config.service} on {config.host},"
        f" databases {', '.join(databases)}, backup targets {', '.join(targets) or 'none'}"
    )
    return Answer(data, text)


def _journal(context: Context) -> Answer:
    config = context.config
    journal = Journal(config.journal_file, context.clock)
    if context.options.verify:
        count = journal.verify()
        return Answer({"entries": count, "chain": "ok"}, f"{config.journal_file}: {count} entries, the chain holds")
    entries = journal.read(context.options.operation, context.options.limit)
    return Answer({"entries": entries}, "\n".join(_entry_line(entry) for entry in entries) or "the journal is empty")


def _entry_line(entry: dict[str, Any]) -> str:
    known = ("time", "operation", "event", "result", "previous", "operation_id")
    rest = {key: value for key, value in entry.items() if key not in known}
    words = [entry["time"], entry["operation"], entry["event"], entry.get("result", "")]
    return " ".join([*filter(None, words), json.dumps(rest, sort_keys=True) if rest else ""]).rstrip()


def _integrity(context: Context) -> Answer:
    path = context.options.database
    report = integrity.check(path, context.options.level, clock=context.clock)
    data = report.as_dict()
    lines = [f"{path}: {'ok' if report.ok else 'DAMAGED'} ({report.level} check, {report.bytes} bytes)"]
    lines += [f"  {table}: {facts['rows']} rows" for table, facts in report.tables.items()]
    if context.options.digests and report.ok:
        data["content_digests"] = fingerprint.content_digests(path, clock=context.clock)
        lines += [f"  {table}: sha256 {digest['sha256']}" for table, digest in data["content_digests"].items()]
    lines += [f"  damage: {message}" for message in report.messages]
    lines += [f"  foreign key: {json.dumps(violation)}" for violation in report.foreign_key_violations]
    lines += [f"  hazard: {hazard}" for hazard in report.hazards]
    return Answer(data, "\n".join(lines), 0 if report.ok else IntegrityError.exit_code)


def _preflight(context: Context) -> Answer:
    config = context.config
    unit_state = units.SystemdService(config, clock=context.clock).load_state
    findings = preflight.check(config, unit_state=unit_state, clock=context.clock)
    lines = [f"mismatch: {text}" for text in findings.mismatches] + [f"warning: {text}" for text in findings.warnings]
    ok = not findings.mismatches
    lines.append("the host is as the contract says" if ok else f"{len(findings.mismatches)} mismatches")
    return Answer(findings.as_dict(), "\n".join(lines), 0 if ok else 1)
