# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rotate the service's logs with logrotate, only where that loses nothing, and prove it afterwards.

A log is rotated as its writer allows: copied and emptied where one descriptor stays open (each write must go to the
file's end), renamed where the writer opens its file again. Before each run it is looked at who writes, and whether
somebody else rotates the same file; such a log is left alone, the others are rotated. After a rename it is waited
until no process writes to the old file any more: a writer that was never told is found at once, not when its lines
are missed.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ..core.clock import Clock, utc_text
from ..core.config import COPIED, REOPENED, Config, LogFile, Rotation
from ..core.errors import CommandError, ConfigError, EngineError, InputError
from ..core.fsio import open_regular, read_json, write_json
from ..core.journal import Journal, Operation
from ..core.lease import Lease
from ..core.run import last_words, require_tool, run
from ..service.units import unit_property
from . import rotators, stanzas
from .writers import Writers, writers

# What other rotators have left counts for as long as logs are kept by default; older files may be leftovers.
_RECENT_S = 30 * 86400
# logrotate's state knows minutes.
_STATE_SLACK_S = 120
_NOTED_SLACK_S = 2
_POLL_S = 0.2
_RUN_TIMEOUT_S = 1800

UnitProperty = Callable[[str, str], str]
Runner = stanzas.Runner


@dataclass(frozen=True)
class Finding:
    """Something about a log that stands in the way of its rotation, or that people should know.

    Attributes:
        code: a fixed word.
        message: what it is, with the remedy.
        refuses: whether the log is not rotated because of it.
    """

    log: str
    path: str
    code: str
    message: str
    refuses: bool = True

    def __str__(self) -> str:
        return f"{self.path or self.log}: {self.message}"


@dataclass(frozen=True)
class Places:
    """Where to look.

    Attributes:
        state_file: logrotate's own state for these logs.
        record_file: what the last run has noted about each log.
        code: directory of the service's code, searched for handlers that rotate; None: it is not searched.
        exclude: names of directories in it that are not the service's own code.
        obsolete: files of the system's logrotate that are about to go, and do not count.
    """

    state_file: Path
    record_file: Path
    code: Path | None = None
    exclude: Sequence[str] = ()
    obsolete: Sequence[Path] = ()
    system_config: Path = stanzas.SYSTEM_CONFIG
    system_state: Path = stanzas.SYSTEM_STATE


@dataclass(frozen=True)
class LogFacts:
    """A log of the contract as it is on this host: its files with their writers, and who else rotates it."""

    log: LogFile
    files: list[dict[str, Any]]
    stanzas: list[str]

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {**asdict(self.log), "files": self.files, "stanzas": self.stanzas}


@dataclass(frozen=True)
class Facts:
    """Everything that was found out."""

    logs: list[LogFacts]
    findings: list[Finding]
    sources: list[str] = field(default_factory=list)

    @property
    def refusals(self) -> list[Finding]:
        """Findings because of which a log is not rotated."""
        return [finding for finding in self.findings if finding.refuses]

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {
            "logs": [facts.as_dict() for facts in self.logs],
            "findings": [asdict(finding) for finding in self.findings],
            "sources": self.sources,
        }


def places_of(config: Config, rotation: Rotation) -> Places:
    """The places of a configured host."""
    return Places(
        state_file=rotation.state_file,
        record_file=config.state_dir / "rotation.json",
        code=config.system.release_link if config.system else None,
        exclude=config.system.exclude if config.system else (),
    )


def existing(log: LogFile) -> list[Path]:
    """The files that a log is now; what a rotator has made of them is none of them."""
    return [Path(path) for path in sorted(glob.glob(log.path)) if not rotators.is_archive_name(os.path.basename(path))]


def look(
    logs: Sequence[LogFile], places: Places, *, unit: UnitProperty = unit_property, clock: Clock, runner: Runner = run
) -> Facts:
    """Find out how each log is written and who rotates it. Reads only.

    Args:
        unit: tells a property of a systemd unit, such as `CanReload`.
    """
    view = _View(logs, places, unit, clock, runner)
    findings = [finding for log in logs for finding in view.findings(log)]
    return Facts([view.facts(log) for log in logs], findings, [str(source) for source in view.sources])


class _View:
    """One look at the host: what several questions need is found out once."""

    def __init__(
        self, logs: Sequence[LogFile], places: Places, unit: UnitProperty, clock: Clock, runner: Runner
    ) -> None:
        self._unit = unit
        self._now = clock.now().timestamp()
        self.files = {log.name: existing(log) if log.path else [] for log in logs}
        every = [file for files in self.files.values() for file in files]
        self._beside = {
            file: [*((path, "") for path in rotators.archives(file)),
                   *((item.path, item.maker) for item in rotators.siblings(file))]
            for file in every
        }  # fmt: skip
        looked_at = [*every, *(path for paths in self._beside.values() for path, _maker in paths)]
        self.writers = writers(looked_at) if every else Writers((), 0)
        known = stanzas.system(places.system_config, runner=runner)
        self._stanzas = [stanza for stanza in known if stanza.file not in places.obsolete]
        self._rotated_by_system = stanzas.rotated_at(places.system_state)
        self._rotated = {**self._rotated_by_system, **stanzas.rotated_at(places.state_file)}
        self._record = _record(places.record_file)
        self.sources = rotators.sources(places.code, places.exclude) if places.code else []
        self._declared = any(log.writer == "self" for log in logs)
        owners: dict[Path, list[str]] = {}
        for name, files in self.files.items():
            for file in files:
                owners.setdefault(file, []).append(name)
        self._owners = owners

    def facts(self, log: LogFile) -> LogFacts:
        """What is known about a log."""
        return LogFacts(log, [self._file(file) for file in self.files[log.name]], self._others(log))

    def findings(self, log: LogFile) -> Iterator[Finding]:
        """What stands in the way of rotating a log."""
        yield from self._units(log)
        if not log.path:
            return
        for other in self._others(log):
            yield Finding(
                log.name, log.path, "second_stanza",
                f"{other} rotates it as well; two rotators lose lines. Remove that entry, for example with"
                " logrotate_obsolete_files",
            )  # fmt: skip
        if log.writer == "self":
            return
        if self.sources and not self._declared:
            yield Finding(
                log.name, log.path, "rotated_by_service",
                f"the service's code rotates logs by itself: {self.sources[0]}; two rotators lose lines. Switch that"
                " off, or give the files that it writes the writer `self` in service_logs",
            )  # fmt: skip
        for file in self.files[log.name]:
            yield from self._hazards(log, file)

    def _file(self, file: Path) -> dict[str, Any]:
        made = rotators.archives(file)
        rotated = self._rotated.get(str(file))
        return {
            "path": str(file),
            "bytes": file.stat().st_size if file.exists() else 0,
            "writers": [
                {"pid": writer.pid, "command": writer.command, "unit": writer.unit, "append": writer.append}
                for writer in self.writers.of(file)
            ],
            "archives": len(made),
            "newest_archive": str(made[-1]) if made else "",
            "last_rotated": utc_text(rotated) if rotated else "",
        }

    def _others(self, log: LogFile) -> list[str]:
        if not log.path:
            return []
        files = [str(file) for file in self.files[log.name]]
        return sorted({str(stanza.file) for stanza in self._stanzas if stanza.covers(log.path, files)})

    def _units(self, log: LogFile) -> Iterator[Finding]:
        if log.writer not in ("signal", "reload"):
            return
        try:
            state, can = self._unit(log.unit, "LoadState"), self._unit(log.unit, "CanReload")
        except EngineError as error:
            yield Finding(
                log.name, log.path, "unit_unknown", f"systemd cannot be asked for {log.unit}: {error.message}"
            )
            return
        if state != "loaded":
            yield Finding(log.name, log.path, "unit_unknown", f"the unit {log.unit} is {state}; correct service_logs")
        elif log.writer == "reload" and can != "yes":
            yield Finding(log.name, log.path, "no_reload", _no_reload(log.unit))

    def _hazards(self, log: LogFile, file: Path) -> Iterator[Finding]:
        """What is wrong with one file."""
        if len(self._owners[file]) > 1:
            yield Finding(
                log.name,
                str(file),
                "named_twice",
                f"is in service_logs more than once: {', '.join(self._owners[file])}",
            )
        if file.is_symlink() or (file.exists() and file.stat().st_nlink > 1):
            yield Finding(
                log.name,
                str(file),
                "linked",
                "is a link, or has a second name; logrotate leaves such files alone. Name the file itself",
            )
        if self.writers.unseen:
            yield Finding(
                log.name,
                str(file),
                "unseen",
                f"who writes to it is not known: {self.writers.unseen} processes may not be looked at."
                " Run as root, with CAP_SYS_PTRACE",
            )
        yield from self._writers(log, file)
        yield from self._left(log, file)
        noted = self._record.get(str(file), {}).get("identity")
        if noted and noted != _identity(file):
            yield Finding(
                log.name,
                str(file),
                "replaced",
                "something else than the rotation has replaced it since the last look; if that is no restore, a"
                " second rotator is at work",
                refuses=False,
            )

    def _writers(self, log: LogFile, file: Path) -> Iterator[Finding]:
        for writer in self.writers.of(file):
            if log.writer in COPIED and not writer.append:
                yield Finding(
                    log.name,
                    str(file),
                    "no_append",
                    f"{writer} does not write to its end (O_APPEND): after emptying the file it would go on at the old"
                    " place and leave a hole. Open the log for appending, or let the service open it again (writer"
                    " `signal` or `watch`)",
                )

    def _left(self, log: LogFile, file: Path) -> Iterator[Finding]:
        """What lies beside the file, and who still writes to it."""
        for path, maker in self._beside[file]:
            modified = _modified(path)
            held = self.writers.of(path)
            if held and not (log.writer in REOPENED and self._waits(file, path, modified)):
                yield Finding(
                    log.name,
                    str(file),
                    "old_name",
                    f"{held[0]} writes to it under its old name {path}, so its lines are missed and would be lost when"
                    f" that file goes. Restart {held[0].unit or 'the service'}, and correct the writer in service_logs",
                )
            elif maker and not self._explained(file, path, modified):
                yield Finding(
                    log.name,
                    str(file),
                    "rotated_by_service",
                    f"{path.name} was left by another rotator ({maker}); two rotators lose lines. Switch it off and"
                    " move its files away, or give the log the writer `self` in service_logs",
                )

    def _waits(self, file: Path, archive: Path, modified: float) -> bool:
        """Whether the writer of a renamed log has written nothing since, so that it had no reason to open it again."""
        noted = self._record.get(str(file), {})
        return noted.get("archive") == str(archive) and modified <= float(noted.get("at", 0))

    def _explained(self, file: Path, path: Path, modified: float) -> bool:
        """Whether a file beside a log is old, or the system's logrotate has made it once."""
        if modified < self._now - _RECENT_S:
            return True
        rotated = self._rotated_by_system.get(str(file))
        return rotated is not None and path.name[-1].isdigit() and modified <= rotated.timestamp() + _STATE_SLACK_S


def _identity(path: Path) -> list[int] | None:
    """Device and inode: what a file is, whatever it is called."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return [status.st_dev, status.st_ino]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _no_reload(unit: str) -> str:
    return (
        f"{unit} has no reload (CanReload=no): a reload fails, and the service goes on writing to the old file. Use the"
        " writer `own`, or `signal` where the service opens its log again on one"
    )


def _record(path: Path) -> dict[str, dict[str, Any]]:
    """What the last run has noted; a record that is not readable is none."""
    try:
        record = read_json(path)
    except InputError:
        return {}
    logs = record.get("logs") if isinstance(record, dict) else None
    return {key: value for key, value in logs.items() if isinstance(value, dict)} if isinstance(logs, dict) else {}


def validate(
    files: Sequence[Path],
    *,
    system_config: Path = stanzas.SYSTEM_CONFIG,
    unit: UnitProperty = unit_property,
    runner: Runner = run,
) -> list[str]:
    """Let logrotate read configuration files before they count; returns the patterns that they name.

    Raises ConfigError with everything that is wrong: what logrotate calls an error whatever its exit status, no entry
    at all, an entry that the system's logrotate has as well, and scripts that reload a unit which has no reload.
    """
    alone = stanzas.read(files, runner=runner)
    mistakes = list(alone.errors)
    patterns = [pattern for stanza in alone.stanzas for pattern in stanza.patterns]
    if not patterns and not mistakes:
        mistakes.append("holds no entry")
    if system_config.is_file():
        before = stanzas.read([system_config], runner=runner).errors
        together = stanzas.read([system_config, *files], runner=runner).errors
        mistakes.extend(error for error in together if error not in before and error not in mistakes)
    for file in files:
        for name in stanzas.reloaded_units(file.read_text(errors="replace")):
            try:
                if unit(name, "CanReload") != "yes":
                    mistakes.append(_no_reload(name))
            except EngineError as error:
                mistakes.append(f"reloads {name}, and systemd cannot be asked whether it can: {error.message}")
    if mistakes:
        raise ConfigError(
            "; ".join(mistakes), subject=", ".join(map(str, files)), untouched="the logs", mistakes=mistakes
        )
    return patterns


def rotate(
    config: Config,
    *,
    force: bool = False,
    dry_run: bool = False,
    journal: Journal,
    clock: Clock | None = None,
    places: Places | None = None,
    unit: UnitProperty = unit_property,
    runner: Runner = run,
) -> dict[str, Any]:
    """Rotate what is due, and prove for each log that its writer goes on in the new file.

    Args:
        force: rotate what is not due, too; an empty log is not rotated.
        dry_run: only tell what would be rotated.

    Returns:
        `rotated`, with archive, bytes and proof for each; `findings`; `problems`, which make the run degraded.

    Raises LeaseError when another rotation runs, ConfigError when this host rotates nothing.
    """
    clock = clock or Clock()
    rotation = config.require_rotation()
    places = places or places_of(config, rotation)
    require_tool("logrotate")
    config.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    with Lease(config.run_dir / "rotation.lock", purpose="rotation", clock=clock):
        facts = look(rotation.logs, places, unit=unit, clock=clock, runner=runner)
        refused = {finding.log for finding in facts.refusals}
        rotatable = [log for log in rotation.logs if log.writer in (*COPIED, *REOPENED)]
        wanted = [log for log in rotatable if log.name not in refused]
        files = [rotation.config_dir / f"{log.name}.conf" for log in wanted]
        lacking = [str(file) for file in files if not file.is_file()]
        if lacking:
            raise ConfigError("is missing", subject=", ".join(lacking), remedy="apply the role logrotate")
        reading = stanzas.read(files, force=force, state=rotation.state_file, runner=runner) if files else None
        due = list(reading.due) if reading else []
        result: dict[str, Any] = {
            "due": due,
            "rotated": [],
            "findings": [asdict(finding) for finding in facts.findings],
            "problems": [*map(str, facts.refusals), *(reading.errors if reading else ())],
        }
        if dry_run:
            return result
        if not due and not result["problems"]:
            if files:  # a log that logrotate sees for the first time gets its entry in the state
                _logrotate(files, rotation, force=False, runner=runner)
            _note(places, facts, [], clock)
            return result
        with journal.operation("rotation", force=force) as operation:
            noted = stanzas.rotated_at(rotation.state_file)
            for log in wanted:
                for file in existing(log):
                    _tidy(file, noted.get(str(file)) if log.writer in COPIED else None)
            if files:
                result["problems"] += _logrotate(files, rotation, force=force, runner=runner)
            result["rotated"], problems = _prove(wanted, facts, rotation.reopen_wait_s, clock)
            result["problems"] += [problem for problem in problems if problem not in result["problems"]]
            _note(places, facts, result["rotated"], clock)
            _tell(operation, result)
    return result


def _tidy(file: Path, copied_at: datetime | None) -> None:
    """Remove what a logrotate that was killed has left: half of a compressed archive, a copy whose log was not emptied.

    Both hold nothing that is not elsewhere: the archive that was being compressed, and the log itself. logrotate notes
    a rotation at its end: such a copy is newer than that.

    Args:
        copied_at: when logrotate noted that it had copied and emptied the log; None where it does not do that.
    """
    made = rotators.archives(file)
    for archive in made:
        compressed = archive.with_name(archive.name + ".gz")
        if compressed in made:
            compressed.unlink()
    if copied_at is None or not made or made[-1].suffix == ".gz":
        return
    begun = int(made[-1].name.rpartition("-")[2])
    if begun > copied_at.timestamp() + _NOTED_SLACK_S and _begins_with(file, made[-1]):
        made[-1].unlink()


def _begins_with(file: Path, copy: Path) -> bool:
    """Whether a file begins with all that another one holds."""
    with open_regular(copy, follow=False) as short, open_regular(file, follow=False) as long:
        if os.fstat(short.fileno()).st_size > os.fstat(long.fileno()).st_size:
            return False
        while block := short.read(1 << 20):
            if long.read(len(block)) != block:
                return False
    return True


def _logrotate(files: Sequence[Path], rotation: Rotation, *, force: bool, runner: Runner) -> list[str]:
    argv = ["logrotate", "--state", str(rotation.state_file), *(["--force"] if force else []), *map(str, files)]
    try:
        done = runner(argv, timeout_s=_RUN_TIMEOUT_S, check=False)
    except CommandError as error:
        return [error.message]
    errors = list(stanzas.errors_of(done.stderr.decode("utf-8", "replace")))
    if done.returncode != 0 and not errors:
        errors = [f"logrotate ended with status {done.returncode}: {last_words(done.stderr)}"]
    return errors


def _prove(
    logs: Sequence[LogFile], before: Facts, wait_s: float, clock: Clock
) -> tuple[list[dict[str, Any]], list[str]]:
    """What was rotated, each with its proof; and what is wrong."""
    known = {facts.log.name: facts for facts in before.logs}
    rotated: list[dict[str, Any]] = []
    problems: list[str] = []
    for log in logs:
        for was in known[log.name].files:
            file = Path(was["path"])
            made = rotators.archives(file)
            if not made or made[-1].name.split(".gz")[0] == Path(was["newest_archive"]).name.split(".gz")[0]:
                continue
            pids = [writer["pid"] for writer in was["writers"]]
            proof, problem = _goes_on(log, file, made[-1], pids, wait_s, clock)
            rotated.append(
                {
                    "log": log.name,
                    "path": str(file),
                    "archive": str(made[-1]),
                    "bytes": _bytes(made[-1]),
                    "proof": proof,
                }
            )
            if problem:
                problems.append(f"{file}: {problem}")
    return rotated, problems


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _goes_on(
    log: LogFile, file: Path, archive: Path, pids: Sequence[int], wait_s: float, clock: Clock
) -> tuple[str, str]:
    """The proof that the writers `pids` go on in the new file; and what is wrong, empty when nothing is."""
    if log.writer in COPIED:
        seen = writers([file])
        if seen.unseen:
            return "none", "who writes to it now is not known"
        aside = [writer for writer in seen.found if not writer.append]
        if aside:
            return "none", f"{aside[0]} does not write to the end of the emptied file"
        return ("appends" if seen.found else "nobody writes"), ""
    return _reopens(log, file, archive, pids, wait_s, clock)


def _reopens(
    log: LogFile, file: Path, archive: Path, pids: Sequence[int], wait_s: float, clock: Clock
) -> tuple[str, str]:
    """Wait until the writers of a renamed log write to the new file.

    One that has nothing to write need not open it yet: what counts is that the old file no longer grows.
    """
    begin = clock.monotonic()
    settled: int | None = None
    while True:
        seen = writers([archive, file])
        if seen.unseen:
            return "none", "who writes to it now is not known"
        old, new = seen.of(archive), seen.of(file)
        if not old and new:
            return "opened again", ""
        if not old and not any(Path("/proc", str(pid)).exists() for pid in pids):
            return "nobody writes", ""
        passed = clock.monotonic() - begin
        if settled is None and passed >= wait_s / 2:
            settled = _bytes(archive)
        if passed >= wait_s:
            break
        clock.sleep(_POLL_S)
    remedy = f"restart {log.unit or 'the service'}, and correct the writer in service_logs"
    if not old:
        return "none", f"its writer has closed {archive}, and not opened the new file within {wait_s:g} s; {remedy}"
    if _bytes(archive) > (settled or 0):
        return "none", f"{old[0]} still writes to the old file {archive} after {wait_s:g} s; {remedy}"
    return "waits: it has written nothing since", ""


def _note(places: Places, facts: Facts, rotated: Sequence[Mapping[str, Any]], clock: Clock) -> None:
    """Note what each log is now, so that the next look knows when somebody else has replaced it."""
    earlier = _record(places.record_file)
    fresh = {item["path"]: item["archive"] for item in rotated}
    noted: dict[str, dict[str, Any]] = {}
    for known in facts.logs:
        for file in known.files:
            path = file["path"]
            identity = _identity(Path(path))
            if identity is None:
                continue
            was = earlier.get(path, {})
            noted[path] = {"identity": identity, "archive": was.get("archive", ""), "at": was.get("at", 0.0)}
            if path in fresh:
                noted[path].update(archive=fresh[path], at=clock.now().timestamp())
    if noted != earlier:
        write_json(places.record_file, {"logs": noted}, 0o640)


def _tell(operation: Operation, result: Mapping[str, Any]) -> None:
    operation.evidence["rotated"] = result["rotated"]
    operation.evidence["problems"] = result["problems"]
    if result["problems"]:
        operation.result = "degraded"


def text_of(facts: Facts) -> list[str]:
    """One line for each log and each of its files, then the findings."""
    lines = []
    for known in facts.logs:
        log = known.log
        lines.append(f"{log.name}: {log.path or 'the journal of systemd'}, writer {log.writer}")
        for file in known.files:
            writing = ", ".join(
                f"{item['unit'] or item['command']} ({item['pid']}{', appends' if item['append'] else ''})"
                for item in file["writers"]
            )
            last = f", last rotated {file['last_rotated']}" if file["last_rotated"] else ""
            lines.append(f"  {file['path']}  {file['bytes']} bytes, written by {writing or 'nobody'}{last}")
    lines += [f"{'refused' if finding.refuses else 'note'}: {finding}" for finding in facts.findings]
    return lines
