# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the service contract with the host, before anything relies on it.

Reads only: databases are opened read-only for milliseconds, queries are compiled and not run, each
endpoint is asked once, no file is made.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..backup.overlaps import overlaps
from ..core.clock import Clock
from ..core.config import Config, Database, TargetPath
from ..core.errors import EngineError, InputError
from ..core.fsio import free_bytes
from ..core.period import CURRENT, month
from ..core.run import run
from ..sqlite import archive_file, connect, export, fingerprint, hot_backup, integrity
from ..sqlite.archive_selection import compile_query
from . import probe

SKIPPED_DIRECTORIES = frozenset({".git", ".next", ".venv", "__pycache__", "node_modules", "venv"})
_EXAMPLES = frozenset({"dist", "example", "sample", "template"})
_WALK_LIMIT = 200_000
_VERSION = re.compile(rb"(\d+(?:\.\d+)+|\d+)")
_TOOL_TIMEOUT_S = 20
_LISTEN = "0A"  # state column of /proc/net/tcp
_ANY_ADDRESS = frozenset({"0" * 8, "0" * 32})

UnitState = Callable[[str], str]


@dataclass(frozen=True)
class Findings:
    """What the preflight has found.

    Attributes:
        mismatches: where the host is not what the contract says; each names the remedy or the key to change.
        warnings: hazards, each with its remedy.
        facts: what was looked at: databases with journal mode and size, tools with versions, probes.
    """

    mismatches: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the contract holds."""
        return not self.mismatches

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {"ok": self.ok, **asdict(self)}


@dataclass(frozen=True)
class Need:
    """What an enabled role needs on this host: a command, perhaps of a version, or free space.

    Attributes:
        command: name of an executable.
        min_version: lowest version that does, such as `20.9`; empty for any.
        path: directory whose file system needs `free_bytes`.
        purpose: what needs it, for the message.
        remedy: what to do when it is lacking.
    """

    purpose: str
    command: str = ""
    min_version: str = ""
    path: str = ""
    free_bytes: int = 0
    remedy: str = ""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Need:
        """From `{"command": "node", "min_version": "20.9", "for": "front end"}` or `{"path", "free_bytes", "for"}`."""
        values = {key: value for key, value in data.items() if value is not None}
        values["purpose"] = values.pop("for", "")
        unknown = set(values) - {"purpose", "command", "min_version", "path", "free_bytes", "remedy"}
        if unknown or bool(values.get("command")) == bool(values.get("path")):
            raise InputError(f"a need names either a command or a path with free_bytes: {dict(data)}")
        return cls(**values)


def check(
    config: Config,
    needs: Sequence[Need] = (),
    *,
    unit_state: UnitState | None,
    endpoints: bool = True,
    clock: Clock | None = None,
) -> Findings:
    """Verify the contract; every mismatch at once.

    Args:
        needs: tools and space that the enabled roles need.
        unit_state: tells systemd's `LoadState` of a unit; None leaves the units out.
        endpoints: ask the health endpoints too; switch it off where nothing is deployed yet.
    """
    clock = clock or Clock()
    findings = Findings()
    _accounts(config, findings)
    _places(config, findings)
    findings.mismatches.extend(overlaps(config))
    findings.facts["databases"] = {database.name: _database(database, findings) for database in config.databases}
    _archives(config, findings, clock)
    _exports(config, findings, clock)
    _uncovered(config, findings)
    if unit_state is not None:
        _units(config, unit_state, findings)
    if endpoints:
        _endpoints(config, findings, clock)
    findings.facts["tools"] = {need.command: _tool(need, findings) for need in needs if need.command}
    for need in needs:
        if need.path:
            _space(need, findings)
    _targets(config, findings)
    return findings


def _units(config: Config, unit_state: UnitState, findings: Findings) -> None:
    for unit in config.units:
        try:
            state = unit_state(unit)
        except EngineError as error:
            words = f"systemd cannot be asked for the units {', '.join(config.units)}: {error.message}"
            findings.mismatches.append(f"{words}; they need a host that systemd has booted")
            return
        if state != "loaded":
            findings.mismatches.append(f"unit {unit}: systemd says {state or 'nothing'}; correct service_units")


def _accounts(config: Config, findings: Findings) -> None:
    try:
        pwd.getpwnam(config.user)
    except KeyError:
        findings.mismatches.append(f"user {config.user}: does not exist")
    try:
        grp.getgrnam(config.group)
    except KeyError:
        findings.mismatches.append(f"group {config.group}: does not exist")


def _places(config: Config, findings: Findings) -> None:
    directories = [config.root, *(database.path.parent for database in config.databases)]
    directories += [config.logs.directory] if config.logs else []
    directories += [config.cache.directory] if config.cache else []
    for directory in dict.fromkeys(directories):
        if not directory.is_dir():
            findings.mismatches.append(f"{directory}: is not a directory")
    for file in config.config_files:
        if not file.is_file():
            findings.mismatches.append(f"{file}: is named as configuration and does not exist")
        elif file.stat().st_mode & 0o007:
            findings.warnings.append(f"{file}: other users have access; set its mode to 0640")


def _database(database: Database, findings: Findings) -> dict[str, Any]:
    path = database.path
    facts: dict[str, Any] = {"path": str(path)}
    try:
        real, _header = connect.require_database(path)
        facts["bytes"] = real.stat().st_size
        with connect.reading(path, busy_timeout_s=1.0) as connection:
            facts["journal_mode"] = str(connection.execute("PRAGMA journal_mode").fetchone()[0])
            _schema(connection, database, findings)
            _queries(connection, database, findings)
        with open(real, "rb") as stream:
            hazards = integrity.file_hazards(real, stream.read(connect.HEADER_BYTES))
    except EngineError as error:
        findings.mismatches.append(f"database {database.name}: {error}")
        return facts
    findings.warnings.extend(f"database {database.name}: {hazard}" for hazard in hazards if _lasting(hazard))
    if facts["journal_mode"] == "wal" and integrity.wal_reset_bug():
        findings.warnings.append(
            f"database {database.name}: SQLite {sqlite3.sqlite_version} in WAL mode can corrupt the database when"
            " several connections write or checkpoint at once; do not add writers, update SQLite to 3.51.3"
        )
    stall_s = hot_backup.predicted_wait_s(facts["bytes"])
    facts["predicted_stall_s"] = round(stall_s, 3) if facts["journal_mode"] != "wal" else 0.0
    if facts["predicted_stall_s"] > database.busy_timeout_s:
        findings.warnings.append(
            f"database {database.name}: a backup may make writers wait {stall_s:.1f} s, the service gives up after"
            f" {database.busy_timeout_s:g} s; raise its busy timeout, or switch it to WAL mode"
        )
    return facts


def _lasting(hazard: str) -> bool:
    return not hazard.startswith("journal:")  # a transaction that happens to run is no hazard


def _schema(connection: sqlite3.Connection, database: Database, findings: Findings) -> None:
    for table, columns in database.tables.items():
        present = {row[1] for row in connection.execute(f"PRAGMA table_xinfo({fingerprint.quoted(table)})")}
        if not present:
            findings.mismatches.append(f"database {database.name}: has no table {table}")
            continue
        lacking = [column for column in columns if column not in present]
        if lacking:
            findings.mismatches.append(f"database {database.name}: table {table} lacks {', '.join(lacking)}")


def _queries(connection: sqlite3.Connection, database: Database, findings: Findings) -> None:
    """Compile each query against the live schema; EXPLAIN runs nothing of it."""
    named = {f"query {name}": sql for name, sql in database.queries.items()}
    named.update({f"invariant {invariant.name}": invariant.sql for invariant in database.invariants})
    for name, sql in named.items():
        try:
            connection.execute(f"EXPLAIN {sql}").fetchone()
        except (sqlite3.Error, sqlite3.Warning) as error:
            findings.mismatches.append(f"database {database.name}: {name} does not compile: {error}")


def _archives(config: Config, findings: Findings, clock: Clock) -> None:
    """Compile each query that chooses rows to archive, and look whether rows could be found again by their keys."""
    for table in config.archives.tables if config.archives else []:
        path = config.database(table.database).path
        try:
            with connect.reading(path, busy_timeout_s=1.0) as connection:
                compile_query(connection, table, clock.now(), subject=str(path))
        except EngineError as error:
            findings.mismatches.append(f"archive {table.name}: {error}; correct service_archives")


def _exports(config: Config, findings: Findings, clock: Clock) -> None:
    """Compile each export against the live schema, and see that it asks for a month."""
    if config.exports is None:
        return
    try:
        period = month(CURRENT, config.exports.time_zone, clock.now())
    except EngineError as error:
        findings.mismatches.append(f"exports: {error}; correct service_time_zone")
        return
    for one in config.exports.queries:
        path = config.database(one.database).path
        try:
            with connect.reading(path, busy_timeout_s=1.0) as connection:
                compiled = export.compile_query(connection, one.sql, str(path), name=one.name)
            export.require_period(compiled, period, str(path))
        except EngineError as error:
            findings.mismatches.append(f"export {one.name}: {error}; correct service_exports")


def _uncovered(config: Config, findings: Findings) -> None:
    """Databases and settings below the root that no contract entry covers: what nobody backs up."""
    covered = {os.path.realpath(path) for path in [*(item.path for item in config.databases), *config.config_files]}
    ignored = [Path(os.path.realpath(path)) for path in config.ignored_databases]
    databases, settings = [], []
    for path in _files(config.root, findings):
        is_settings, is_database = _is_settings(path.name), connect.is_sqlite(path)
        real = Path(os.path.realpath(path)) if is_settings or is_database else path
        if str(real) in covered or archive_file.table_of(config.archives, path) is not None:
            continue
        if is_settings:
            settings.append(str(path))
        elif is_database and not any(item == real or item in real.parents for item in ignored):
            databases.append(str(path))
    findings.facts["uncovered_databases"] = databases
    findings.facts["uncovered_settings"] = settings
    findings.mismatches.extend(
        f"{path}: is a SQLite database that the contract does not name; add it to service_databases,"
        " or to service_ignored_databases if its loss does not matter"
        for path in databases
    )
    findings.warnings.extend(
        f"{path}: is a settings file that no daily backup holds; add it to service_config_files" for path in settings
    )


def _is_settings(name: str) -> bool:
    """Whether a file is called as those are that hold a host's own settings, not the examples for them."""
    parts = name.split(".")
    return parts[:2] == ["", "env"] and not name.endswith("~") and not _EXAMPLES & set(parts)


def _files(root: Path, findings: Findings) -> Iterable[Path]:
    """Files below `root`; dependencies, built code and a restore's own directories are skipped."""
    looked_at = 0
    for directory, names, files in os.walk(root, onerror=lambda error: _unreadable(error, findings)):
        names[:] = sorted(n for n in names if n not in SKIPPED_DIRECTORIES and not n.startswith(".fluxmaint-"))
        for name in sorted(files):
            looked_at += 1
            if looked_at > _WALK_LIMIT:
                findings.mismatches.append(
                    f"{root}: has more than {_WALK_LIMIT} files, so not all were looked at for databases"
                )
                return
            path = Path(directory, name)
            if path.is_file():
                yield path


def _unreadable(error: OSError, findings: Findings) -> None:
    if not isinstance(error, FileNotFoundError):
        findings.mismatches.append(f"{error.filename}: cannot be searched for databases: {error.strerror}")


def _endpoints(config: Config, findings: Findings, clock: Clock) -> None:
    results = probe.check_all(config.health, clock)
    findings.facts["probes"] = [result.as_dict() for result in results]
    for result in results:
        if result.ok:
            continue
        if result.status == 429:
            findings.warnings.append(f"{result.name} {result.url}: {result.reason}; it could not be verified")
        else:
            findings.mismatches.append(f"{result.name} {result.url}: {result.reason}")
    if config.health.liveness is not None and _listens_everywhere(config.health.liveness.url):
        findings.warnings.append(
            f"{config.health.liveness.url}: the service listens on all interfaces; bind it to 127.0.0.1, or"
            " make sure that a firewall and authentication protect its order routes"
        )


def _listens_everywhere(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            address, _colon, number = columns[1].partition(":")
            if columns[3] == _LISTEN and int(number, 16) == port and address in _ANY_ADDRESS:
                return True
    return False


def _tool(need: Need, findings: Findings) -> str:
    """The version found; empty when there is none."""
    purpose = f" for {need.purpose}" if need.purpose else ""
    remedy = f"; {need.remedy}" if need.remedy else ""
    try:
        done = run([need.command, "--version"], timeout_s=_TOOL_TIMEOUT_S, check=False)
    except EngineError as error:
        findings.mismatches.append(f"command {need.command}: {error.message}, needed{purpose}{remedy}")
        return ""
    found = _VERSION.search(done.stdout or done.stderr)
    version = found.group(1).decode() if found else ""
    if need.min_version and (not version or _numbers(version) < _numbers(need.min_version)):
        findings.mismatches.append(
            f"command {need.command}: version {version or 'unknown'} is older than {need.min_version},"
            f" needed{purpose}{remedy}"
        )
    return version or "unknown"


def _numbers(version: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in version.split("."))
    except ValueError:
        raise InputError(f"{version!r} is not a version like 20.9") from None


def _space(need: Need, findings: Findings) -> None:
    directory = Path(need.path)
    while not directory.is_dir():
        directory = directory.parent
    free = free_bytes(directory)
    if free < need.free_bytes:
        findings.mismatches.append(
            f"{need.path}: {free} bytes are free, {need.free_bytes} are needed for {need.purpose or 'maintenance'}"
            + (f"; {need.remedy}" if need.remedy else "")
        )


def _targets(config: Config, findings: Findings) -> None:
    targets = config.backup.targets if config.backup else []
    elsewhere = [target for target in targets if not isinstance(target, TargetPath) or target.path.is_mount()]
    for target in targets:
        if not isinstance(target, TargetPath) or target.path.is_mount():
            continue
        if target.require_mount:
            findings.mismatches.append(f"backup target {target.name}: {target.path} is not a mount point; mount it")
        elif not elsewhere:
            findings.warnings.append(
                f"backup target {target.name}: {target.path} is a directory of this machine, and no target is"
                " elsewhere; add an S3 target or mount a remote file system there"
            )
