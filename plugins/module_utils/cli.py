# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""fluxmaint, the command line of the engine on a host. systemd timers call it, and so do people.

Each command is a function from its arguments and the configuration to an `Answer`: data for `--json`,
text for a terminal, and an exit code.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .core import config as configuration
from .core.clock import Clock
from .core.errors import EngineError, InputError, IntegrityError
from .core.journal import Journal
from .core.version import VERSION
from .sqlite import fingerprint, integrity

EXIT_CODES = """\
exit codes:
  0  success
  1  failed
  2  wrong usage, input or configuration
  3  degraded: something was done, something was not
  4  another operation holds the lease
  5  data is damaged, or a proof failed
  6  a backup target cannot be reached
  7  a deadline passed
"""
DEGRADED = 3


@dataclass(frozen=True)
class Answer:
    """What a command has to say: JSON-serialisable data, the same as text, and the exit code."""

    data: dict[str, Any]
    text: str
    exit_code: int = 0


@dataclass(frozen=True)
class Context:
    """What each command gets."""

    options: argparse.Namespace
    config_file: Path
    clock: Clock

    @property
    def config(self) -> configuration.Config:
        """The configuration of this host, read when it is asked for."""
        return configuration.load(self.config_file)

    def journal(self, config: configuration.Config) -> Journal:
        """The maintenance journal of this host."""
        config.state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        return Journal(config.journal_file, self.clock)


Command = Callable[[Context], Answer]


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


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON document")
    common.add_argument(
        "--config", type=Path, default=configuration.DEFAULT_PATH, metavar="FILE", help="default: %(default)s"
    )
    parser = argparse.ArgumentParser(
        prog="fluxmaint",
        description="Maintains a SQLite-backed service on this host.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str, to: Any = commands) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = to.add_parser(
            name,
            parents=[common],
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=command)
        return added

    add("version", _version, "tell the versions of fluxmaint, Python and SQLite")

    config = commands.add_parser("config", help="work with the configuration")
    check = add(
        "check",
        _config_check,
        "read the configuration and name every mistake in it",
        config.add_subparsers(required=True, metavar="COMMAND"),
    )
    check.add_argument(
        "--candidate",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="check the whole with FILE as the drop-in config.d/NAME",
    )

    journal = add("journal", _journal, "show what has been done on this host")
    journal.add_argument("--operation", metavar="NAME", help="only this operation, such as backup")
    journal.add_argument("--limit", type=int, metavar="N", help="only the last N entries")
    journal.add_argument("--verify", action="store_true", help="check the hash chain instead")

    inspect = add("integrity", _integrity, "check a database file, without changing it")
    inspect.add_argument("database", type=Path)
    inspect.add_argument("--level", choices=("quick", "full"), default="full")
    inspect.add_argument("--digests", action="store_true", help="compute the content digest of each table too")
    return parser


def main(arguments: Sequence[str] | None = None, clock: Clock | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        answer = command(Context(options, options.config, clock or Clock()))
    except EngineError as error:
        if options.json:
            sys.stdout.write(json.dumps(error.as_dict(), indent=2) + "\n")
        sys.stderr.write(f"fluxmaint: {error}\n")
        return error.exit_code
    sys.stdout.write((json.dumps(answer.data, indent=2, default=str) if options.json else answer.text) + "\n")
    return answer.exit_code
