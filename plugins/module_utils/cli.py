# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""fluxmaint, the command line of the engine on a host. systemd timers call it, and so do people.

Each command is a function from its arguments and the configuration to an `Answer`: data for `--json`,
text for a terminal, and an exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .backup import generation, overview, proof, restore, restore_plan
from .core import config as configuration
from .core.clock import Clock, parse_utc, utc_text
from .core.errors import InputError, IntegrityError, StoreError, as_engine_error
from .core.journal import Journal
from .core.lease import held_by
from .core.version import VERSION
from .service import preflight, restore_job, units
from .sqlite import fingerprint, integrity
from .store.open import open_store

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
  128 + N  ended by signal N
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


def _backup(context: Context) -> Answer:
    config = context.config
    result = generation.create(
        config,
        context.options.kind,
        clock=context.clock,
        journal=context.journal(config),
        accept_drift=context.options.accept_drift,
    )
    size = f"{result['bytes']} bytes as {result['stored_bytes']}"
    lines = [f"generation {result['id']} ({result['kind']}): {result['result']}, {size}, {result['duration_s']:.1f} s"]
    lines += [f"  target {name}: {state}" for name, state in result["targets"].items()]
    lines += [f"  {name}: {text}" for name, text in result["errors"].items()]
    lines += [f"  problem: {text}" for text in result["problems"]]
    return Answer(result, "\n".join(lines), DEGRADED if result["result"] == "degraded" else 0)


def _prove(context: Context) -> Answer:
    options, config = context.options, context.config
    backup = config.require_backup()
    result = proof.prove(
        open_store(backup.target(options.target), context.clock),
        config.service,
        options.host or config.host,
        options.generation,
        identity_file=options.identity,
        allowed_signers_file=backup.allowed_signers_file,
        signer=f"{config.service}@{options.host}" if options.host else backup.signer,
        work_dir=options.work_dir or config.state_dir / "proofs",
        verifier=config.host,
        signing_key_file=backup.signing_key_file if backup.signing_key_file.exists() else None,
        evidence_dir=config.state_dir / "evidence",
        clock=context.clock,
        journal=context.journal(config),
    )
    kept = "written back" if result["written_back"] else f"not written back: {result['write_back_error']}"
    text = (
        f"generation {result['generation']} of {result['host']} on target {result['target']} is proven:"
        f" {result['files']} files, {result['bytes']} bytes in {result['duration_s']:.1f} s; the proof is {kept}"
    )
    return Answer(result, text)


def _restore(context: Context) -> Answer:
    options, config = context.options, context.config
    if options.plan:
        result = restore_job.run_job_file(config, options.plan, clock=context.clock)
    elif options.resume:
        resumed = restore_job.resume(config, clock=context.clock)
        if resumed is None:
            return Answer({"result": "nothing"}, "no restore is unfinished")
        result = resumed
    else:
        result = _new_restore(context, config)
    known = ("result", "generation_id", "digests_equal", "restore_point", "resume_trading", "config_diff", "left_out")
    lines = [f"{key}: {result[key]}" for key in known if result.get(key) not in (None, "", [])]
    lines += [f"  {phase['name']}: {phase['seconds']:.1f} s" for phase in result.get("phases", [])]
    return Answer(result, "\n".join(lines))


def _new_restore(context: Context, config: configuration.Config) -> dict[str, Any]:
    options = context.options
    before = ""
    chosen = options.generation
    if chosen.startswith("before:"):
        chosen, before = "", utc_text(parse_utc(chosen[len("before:") :]))
    request = restore_plan.Request(
        generation=chosen,
        before=before,
        target=options.target,
        host=options.host,
        include=options.include.split(","),
        databases=options.databases.split(",") if options.databases else (),
        config_consent=options.config_consent,
        halt_trading=not options.no_halt,
        start_units=not options.no_start,
    )
    job = restore_job.Job(request, options.identity)
    if options.dry_run:
        return restore_job.preview(config, job, clock=context.clock)
    return restore_job.execute(config, job, clock=context.clock)


def _preflight(context: Context) -> Answer:
    config = context.config
    unit_state = units.SystemdService(config, clock=context.clock).load_state
    findings = preflight.check(config, unit_state=unit_state, clock=context.clock)
    lines = [f"mismatch: {text}" for text in findings.mismatches] + [f"warning: {text}" for text in findings.warnings]
    ok = not findings.mismatches
    lines.append("the host is as the contract says" if ok else f"{len(findings.mismatches)} mismatches")
    return Answer(findings.as_dict(), "\n".join(lines), 0 if ok else 1)


def _generations(context: Context) -> Answer:
    options = context.options
    facts = overview.overview(context.config, target=options.target, host=options.host, clock=context.clock)
    return Answer(facts, overview.table(facts), DEGRADED if facts["problems"] else 0)


def _status(context: Context) -> Answer:
    config = context.config
    ends = [entry for entry in Journal(config.journal_file).read("backup") if entry["event"] == "end"]
    last = ends[-1] if ends else None
    restoring = restore.status(config)
    unfinished = restoring["id"] if restoring and restoring["open"] else None
    lease = held_by(config.lease_file)
    try:
        held = overview.overview(config, verify_proofs=True, clock=context.clock)
        lines = [overview.table(held)]
    except StoreError as error:
        held = {"targets": error.facts.get("targets", {}), "newest": "", "newest_proven": ""}
        lines = [str(error)]
    lines.append(f"last backup: {last['time']} {last['result']} {last.get('id', '')}" if last else "last backup: never")
    if lease:
        lines.append(f"lease: held by process {lease['pid']} for {lease['purpose']} since {lease['since']}")
    if unfinished:
        lines.append(f"restore {unfinished} is unfinished: fluxmaint restore --resume finishes or undoes it")
    well = last is not None and last["result"] == "ok" and not unfinished
    well = well and all(state["reachable"] and state["committed"] for state in held["targets"].values())
    data = {
        "service": config.service,
        "host": config.host,
        "result": "ok" if well else "degraded",
        "last_backup": last and {"id": last.get("id"), "time": last["time"], "result": last["result"]},
        "newest": held["newest"],
        "newest_proven": held["newest_proven"],
        "targets": held["targets"],
        "lease": lease,
        "unfinished_restore": unfinished,
    }
    heading = f"{config.service} on {config.host}: {data['result']}"
    return Answer(data, "\n".join([heading, *lines]), 0 if well else DEGRADED)


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

    backup = add("backup", _backup, "take a generation and store it on every target")
    backup.add_argument("--kind", choices=("daily", "full"), default="daily")
    backup.add_argument(
        "--accept-drift", action="store_true", help="a person has looked at the tables that lost rows: take them"
    )

    listing = add("generations", _generations, "list the generations on the targets")
    listing.add_argument("--target", default="", metavar="NAME", help="only this target")
    listing.add_argument("--host", default="", help="of another host than this one")

    proving = add("prove", _prove, "restore a generation into an empty directory and check everything")
    proving.add_argument("--generation", default="latest", metavar="ID")
    proving.add_argument("--target", required=True, metavar="NAME", help="fetch from this target alone")
    proving.add_argument("--host", default="", help="a generation of another host than this one")
    proving.add_argument("--identity", type=Path, required=True, metavar="FILE", help="age identity to decrypt with")
    proving.add_argument("--work-dir", type=Path, metavar="DIR", help="where to restore to; emptied afterwards")

    restoring = add("restore", _restore, "restore a generation into place, with automatic rollback")
    restoring.add_argument(
        "--generation", default="latest", metavar="ID", help="an id, latest, or before:2026-11-23T02:00:00Z"
    )
    restoring.add_argument("--target", default="", metavar="NAME", help="default: the first one configured")
    restoring.add_argument("--host", default="", help="a generation of another host than this one")
    restoring.add_argument("--identity", type=Path, metavar="FILE", help="age identity to decrypt with")
    restoring.add_argument(
        "--include", default="databases", metavar="PARTS", help=f"some of {','.join(restore_plan.INCLUDE)}"
    )
    restoring.add_argument("--databases", default="", metavar="NAMES", help="only these databases")
    restoring.add_argument("--config-consent", action="store_true", help="replace configuration that differs")
    restoring.add_argument("--no-halt", action="store_true", help="let trading start with the units")
    restoring.add_argument("--no-start", action="store_true", help="leave the units stopped")
    restoring.add_argument("--dry-run", action="store_true", help="say what would be done, change nothing")
    restoring.add_argument("--resume", action="store_true", help="finish or undo a restore that was interrupted")
    restoring.add_argument("--plan", type=Path, metavar="FILE", help=argparse.SUPPRESS)

    add("status", _status, "tell the state of the backups of this host")
    add("preflight", _preflight, "compare the host with the service contract")

    inspect = add("integrity", _integrity, "check a database file, without changing it")
    inspect.add_argument("database", type=Path)
    inspect.add_argument("--level", choices=("quick", "full"), default="full")
    inspect.add_argument("--digests", action="store_true", help="compute the content digest of each table too")
    return parser


def main(arguments: Sequence[str] | None = None, clock: Clock | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    command: Command = options.command
    for stream in (sys.stdout, sys.stderr):  # names of files need not be valid text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _stoppable() as stops:
            try:
                answer = command(Context(options, options.config, clock or Clock()))
            except Exception as caught:
                if not stops:
                    raise
                # SQLite swallows what is raised while it runs a statement, and only says that it was interrupted.
                raise stops[0] from caught
    except Exception as caught:  # noqa: BLE001 - whatever it is, people and programs get one sentence
        error = as_engine_error(caught)
        return _failed(options.json, str(error), error.as_dict(), error.exit_code)
    except Stopped as stop:
        because = f": {stop.__cause__}" if isinstance(stop.__cause__, restore.RestoreFailed) else ""
        facts = {"error": "Stopped", "message": f"{stop}{because}", "subject": "", "untouched": "", "remedy": ""}
        return _failed(options.json, facts["message"], facts, 128 + stop.number)
    sys.stdout.write((json.dumps(answer.data, indent=2, default=str) if options.json else answer.text) + "\n")
    return answer.exit_code


def _failed(as_json: bool, text: str, facts: dict[str, Any], exit_code: int) -> int:
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=2, default=str) + "\n")
    sys.stderr.write(f"fluxmaint: {text}\n")
    return exit_code


class Stopped(BaseException):
    """A signal asks this process to end. Not an `Exception`: nothing but cleaning up is done on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


@contextlib.contextmanager
def _stoppable() -> Iterator[list[Stopped]]:
    """Let SIGTERM, SIGINT and SIGHUP end the command as an error does, so that no plain data stays behind.

    Yields what has been raised so far.
    """
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    raised: list[Stopped] = []

    def stop(number: int, _frame: object) -> None:
        raised.append(Stopped(number))
        raise raised[-1]

    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] != signal.SIG_IGN:  # as nohup and a shell's background jobs want it
            signal.signal(number, stop)
    try:
        yield raised
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
