# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of a host: what the inventory's service contract says, typed and checked.

`load` reads `/etc/fluxmaint/config.json`, which the role `agent` renders. All mistakes are reported at
once, each with the path of the key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from .errors import ConfigError
from .fsio import read_json
from .priority import NICE

DEFAULT_PATH = Path("/etc/fluxmaint/config.json")
DROP_INS = "config.d"
FORMAT = 1
_MISSING = object()
_MOST_KEPT = 36500
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
# Eleven days: more milliseconds than this do not fit into SQLite's 32 bits, more seconds not into every timer.
_LONGEST_S = 1e6
_LONGEST_AGE_S = 366 * 86400
# A day and two hours for the newest generation, two days and two hours for the newest proven one.
MAX_AGE_S = 26 * 3600
MAX_PROVEN_AGE_S = 50 * 3600
# How a log can be rotated: copied and emptied below a descriptor that stays open, or renamed, because the writer opens
# its file again.
COPIED = ("own", "append")
REOPENED = ("watch", "signal", "reload")
WRITERS = (*COPIED, *REOPENED, "self", "journal")
_SIGNAL = re.compile(r"SIG[A-Z0-9]+")
_UNIT = re.compile(r"[A-Za-z0-9@_.\\:-]+\.service")
# logrotate splits and globs what it reads; a name with one of these would mean something else there.
_LOG_PATH = re.compile(r"/(?:[^\s\"'{}#\\*?\[\]/]+/)*[^\s\"'{}#\\/]+")
# Names become parts of object keys, file names and signer identities.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Invariant:
    """A SQL query with one value as result, and the value that it must have."""

    name: str
    sql: str
    expect: Any


@dataclass(frozen=True)
class Database:
    """A SQLite database of the service: required tables with columns, named read-only queries."""

    name: str
    path: Path
    tables: Mapping[str, Sequence[str]]
    queries: Mapping[str, str]
    invariants: Sequence[Invariant]
    busy_timeout_s: float


@dataclass(frozen=True)
class Logs:
    """The service's log directory, how many days of it go into a backup, and how reports read the logs.

    Attributes:
        patterns: the files that are written, below the directory; what rotation has left of them is found by its name.
        journal_units: units whose output is in systemd's journal.
        time_zone: of times that do not name theirs.
        failed_trade, api_error, restart: patterns that are searched in messages, in which numbers are `<n>`.
        keep_days: for how long totals are kept.
        hourly_days: for how long they are kept by the hour, and not by the day.
        most_messages: how many kinds of messages are kept apart.
    """

    directory: Path
    days: int
    patterns: Sequence[str] = ("*.log",)
    journal_units: Sequence[str] = ()
    time_zone: str = "UTC"
    failed_trade: str = "Trade execution failed"
    api_error: str = "API request failed"
    restart: str = "Started server process"
    keep_days: int = 400
    hourly_days: int = 35
    most_messages: int = 5000


@dataclass(frozen=True)
class Cache:
    """A directory of files that can be made again, and the names of those worth keeping.

    `regenerable` are patterns of those among them that may be removed, because the service makes them again.
    """

    directory: Path
    patterns: Sequence[str]
    regenerable: Sequence[str] = ()


@dataclass(frozen=True)
class ArchivedTable:
    """A table whose old rows go into archives.

    Attributes:
        name: begins the archives' file names; the table's name, where that fits.
        database: name of the database that has it.
        query: gives the key columns by their names and the row's time as `time`, of rows that are closed and older than
            `:cutoff` (text in UTC with Z) or `:cutoff_epoch` (seconds since 1970).
        key: columns that identify a row; its primary key when there are none.
    """

    name: str
    database: str
    table: str
    query: str
    key: Sequence[str]


@dataclass(frozen=True)
class Archives:
    """Tables whose old rows are archived, and the directory of the archives, one file for each month."""

    directory: Path
    tables: Sequence[ArchivedTable]


@dataclass(frozen=True)
class System:
    """What a `full` generation adds: the deployed release and files that run it."""

    release_link: Path
    exclude: Sequence[str]
    paths: Sequence[Path]


@dataclass(frozen=True)
class Probe:
    """One condition of health. `json` is a subset that the answer's JSON body must hold."""

    url: str
    status: int
    json: Mapping[str, Any]
    headers: Mapping[str, str]
    timeout_s: float


@dataclass(frozen=True)
class Health:
    """When the service counts as healthy; a probe that is None is not asked for."""

    liveness: Probe | None
    websocket: Probe | None
    frontend: Probe | None
    wait_s: float


@dataclass(frozen=True)
class TargetPath:
    """A backup target that is a directory, perhaps on a mounted file system."""

    name: str
    path: Path
    require_mount: bool
    marker: str
    bandwidth_limit_bytes_s: int = 0


@dataclass(frozen=True)
class TargetS3:
    """A backup target in an S3-compatible store. `lock_days` 0 leaves retention to the bucket's default.

    A request that gets no byte of an answer for `answer_timeout_s` seconds has failed; `retries` more are tried.
    """

    name: str
    endpoint: str
    region: str
    bucket: str
    prefix: str
    credentials_file: Path
    lock_days: int
    bandwidth_limit_bytes_s: int = 0
    answer_timeout_s: float = 60
    retries: int = 3


Target = Union[TargetPath, TargetS3]


@dataclass(frozen=True)
class Retention:
    """Which generations are kept: all of the last days, then one a week, then one a month.

    Attributes:
        keep_days: all that are younger are kept.
        keep_weekly: of how many older weeks one is kept.
        keep_monthly: of how many months before those one is kept.
        orphan_grace_days: how long what was never completed is left alone, by the store's own clock.
        cache_grace_days: how long a cache file that no generation lists any more is left alone.
    """

    keep_days: int = 30
    keep_weekly: int = 8
    keep_monthly: int = 12
    orphan_grace_days: int = 2
    cache_grace_days: int = 2


@dataclass(frozen=True)
class Backup:
    """How generations are made, signed, encrypted and stored."""

    staging_dir: Path
    timeout_s: float
    compression_level: int
    nice: int
    drift_limit: float
    recipients_file: Path
    signing_key_file: Path
    signer: str
    allowed_signers_file: Path
    content_digests: str
    max_age_s: float
    max_proven_age_s: float
    retention: Retention
    targets: Sequence[Target]

    def target(self, name: str) -> Target:
        """The target of that name. Raises ConfigError listing the names that exist."""
        for target in self.targets:
            if target.name == name:
                return target
        known = ", ".join(target.name for target in self.targets)
        raise ConfigError(f"there is no backup target named {name!r}; configured: {known or 'none'}", subject=name)


@dataclass(frozen=True)
class Origin:
    """A host whose generations a verifier proves, and who signs their manifests."""

    service: str
    host: str
    signer: str


@dataclass(frozen=True)
class Verify:
    """How this host proves the generations of others.

    Attributes:
        verifier: the name in its proofs, which it signs as `<service>@<verifier>`.
        target: where it fetches from, with credentials that need no more than reading.
        proof_credentials_file: credentials for writing proofs alone; None means those of the target.
        identity_file: this verifier's own age identity.
        older: how many generations to prove in each run beside the newest one.
        budget_s: what has not begun after this time waits for the next run.
        evidence_days: for how long this host keeps its own copies of the proofs.
    """

    verifier: str
    target: Target
    proof_credentials_file: Path | None
    identity_file: Path
    signing_key_file: Path
    allowed_signers_file: Path
    work_dir: Path
    older: int
    budget_s: float
    evidence_days: int
    origins: Sequence[Origin]


@dataclass(frozen=True)
class Notify:
    """How people hear of trouble: executables that are told, and addresses to ping after each success.

    `ping_file` is a private JSON object of addresses by name, such as `{"backup": "https://..."}`; it need not exist.
    """

    hooks_dir: Path
    hook_timeout_s: float
    ping_file: Path
    ping_timeout_s: float


@dataclass(frozen=True)
class Window:
    """When a service may be stopped: on some days (`Sun`), from a time on (`03:00`), in the host's local time."""

    days: Sequence[str]
    start: str
    duration_s: float


@dataclass(frozen=True)
class Upkeep:
    """When upkeep of a database is due, and what may be done for it.

    Attributes:
        window: when a whole database may be written anew.
        stop_units: whether the units may be stopped for that.
        wait_fraction: the longest predicted wait of a writer, as a fraction of the service's busy timeout.
        free_ratio: fraction of free pages from which their room is given back, when it is `free_bytes` at the least.
        refill_days: free pages that growth uses up again within so many days are left alone.
        fragmentation: fraction of pages that do not follow the one before, from which a database is written anew.
        fill: fraction of used bytes in the pages, below which a database is written anew.
        stale_ratio: by what fraction the rows of a table may have changed since its statistics were made.
        analysis_limit: how many rows of each index statistics are made from.
        step_pages: how many free pages are given back in one transaction.
        pause_s: between two such transactions.
        timeout_s: how long the upkeep of one database may take.
    """

    window: Window
    stop_units: bool
    wait_fraction: float
    free_ratio: float
    free_bytes: int
    refill_days: float
    fragmentation: float
    fill: float
    stale_ratio: float
    analysis_limit: int
    step_pages: int
    pause_s: float
    timeout_s: float


@dataclass(frozen=True)
class LogFile:
    """One of the service's logs, and how it is written, from which follows how it can be rotated.

    Attributes:
        path: the file, or a pattern in its last part; empty for the journal of systemd.
        writer: one of `WRITERS`. `own` and `append` keep one descriptor (the service's own, or that of systemd's
            `append:`), `watch` notices a renamed file by itself, `signal` and `reload` open it again when they are
            told, `self` rotates by itself, `journal` writes no file.
        unit: the systemd unit that writes it; may be empty where nobody is told.
        signal: for `signal`.
        user: who owns the file; empty for the service's user.
        group: the same for its group.
    """

    name: str
    path: str
    writer: str
    unit: str = ""
    signal: str = ""
    user: str = ""
    group: str = ""


@dataclass(frozen=True)
class Rotation:
    """How logs are rotated: logrotate's entries, one file each, its state, and how long a writer may take to follow."""

    config_dir: Path
    state_file: Path
    reopen_wait_s: float
    logs: Sequence[LogFile]


@dataclass(frozen=True)
class LogReport:
    """Where the reports on the logs are written, and how many of them stay."""

    directory: Path
    keep: int


@dataclass(frozen=True)
class ExportQuery:
    """A query whose result for a calendar month is exported.

    Attributes:
        name: first part of the file's name.
        database: name of the database.
        sql: one SELECT that uses `:begin` and `:end`; see `sqlite.export.Export`.
        format: `csv` or `parquet`.
        spreadsheet: CSV that a spreadsheet takes for no formula.
        blobs: `hex` or `base64`.
        local_times: columns whose times are written in the time zone of the exchange.
        require_rows: a month without a row is a failure.
    """

    name: str
    database: str
    sql: str
    format: str
    spreadsheet: bool
    blobs: str
    local_times: Sequence[str]
    require_rows: bool


@dataclass(frozen=True)
class Exports:
    """Calendar months for external archival: what is exported, where to, and in whose time zone months begin."""

    directory: Path
    time_zone: str
    timeout_s: float
    queries: Sequence[ExportQuery]

    def query(self, name: str) -> ExportQuery:
        """The export of that name. Raises ConfigError listing the names that exist."""
        for query in self.queries:
            if query.name == name:
                return query
        known = ", ".join(query.name for query in self.queries)
        raise ConfigError(f"there is no export named {name!r}; configured: {known or 'none'}", subject=name)


@dataclass(frozen=True)
class CacheCleanup:
    """When a regenerable cache file may go: by its age, by the size of all. None, in the file also 0, is no limit.

    `grace_s`: how long a file that was used is left alone.
    """

    max_age_days: float | None = None
    max_bytes: int | None = None
    grace_s: float = 3600


@dataclass(frozen=True)
class Config:
    """Everything the engine knows about the service of this host."""

    service: str
    host: str
    root: Path
    user: str
    group: str
    units: Sequence[str]
    halt_file: Path | None
    databases: Sequence[Database]
    ignored_databases: Sequence[Path]
    config_files: Sequence[Path]
    logs: Logs | None
    cache: Cache | None
    archives: Archives | None
    system: System | None
    exports: Exports | None
    health: Health
    backup: Backup | None
    verify: Verify | None
    rotation: Rotation | None
    cache_cleanup: CacheCleanup | None
    notify: Notify
    log_report: LogReport
    upkeep: Upkeep | None
    state_dir: Path
    run_dir: Path

    def database(self, name: str) -> Database:
        """The database of that name. Raises ConfigError listing the names that exist."""
        for database in self.databases:
            if database.name == name:
                return database
        known = ", ".join(database.name for database in self.databases)
        raise ConfigError(f"there is no database named {name!r}; configured: {known}", subject=name)

    @property
    def journal_file(self) -> Path:
        """The maintenance journal of this host."""
        return self.state_dir / "journal.jsonl"

    @property
    def lease_file(self) -> Path:
        """The lease of this host."""
        return self.run_dir / "lease"

    def require_backup(self) -> Backup:
        """The backup settings. Raises ConfigError when this host has none."""
        if self.backup is None:
            raise ConfigError("the configuration has no section backup", remedy="apply the role backup to this host")
        return self.backup

    def require_exports(self) -> Exports:
        """What is exported. Raises ConfigError when that is nothing."""
        if self.exports is None or not self.exports.queries:
            raise ConfigError("the configuration names no export", remedy="set service_exports")
        return self.exports

    def require_verify(self) -> Verify:
        """The settings of a verifier. Raises ConfigError when this host is none."""
        if self.verify is None:
            raise ConfigError(
                "the configuration has no section verify", remedy="apply the role backup_verify to this host"
            )
        return self.verify

    def require_rotation(self) -> Rotation:
        """How logs are rotated. Raises ConfigError when this host rotates none."""
        if self.rotation is None:
            raise ConfigError(
                "the configuration has no section rotation", remedy="apply the role logrotate to this host"
            )
        return self.rotation


class _Section:
    """One JSON object being read; notes every mistake with the path of its key."""

    def __init__(self, value: Any, path: str, mistakes: list[str]) -> None:
        self.path = path
        self.mistakes = mistakes
        self._open: dict[str, Any] = {}
        if isinstance(value, dict):
            self._open = dict(value)
        else:
            self.wrong(path, "an object", value)

    def wrong(self, path: str, wanted: str, value: Any) -> None:
        self.mistakes.append(f"{path or 'the document'} must be {wanted}, not {type(value).__name__} {value!r:.60}")

    def _take(self, key: str, wanted: str, fits: Callable[[Any], bool], default: Any) -> Any:
        path = f"{self.path}.{key}".lstrip(".")
        value = self._open.pop(key, default)
        if value is _MISSING:
            self.mistakes.append(f"{path} is missing")
            return None
        if value is not default and not fits(value):
            self.wrong(path, wanted, value)
            return None
        return value

    def text(self, key: str, default: Any = _MISSING) -> str:
        return str(self._take(key, "a non-empty text", lambda v: isinstance(v, str) and v.strip() != "", default))

    def pattern(self, key: str, default: Any = _MISSING) -> str:
        """A regular expression."""
        return str(self._take(key, "a regular expression", _is_pattern, default))

    def optional_text(self, key: str) -> str:
        return str(self._take(key, "a text", _is_text, "") or "")

    def choice(self, key: str, choices: Sequence[str], default: Any = _MISSING) -> str:
        return str(self._take(key, f"one of {', '.join(choices)}", lambda v: v in choices, default))

    def number(self, key: str, default: Any = _MISSING, *, least: float = 0, most: float = _LONGEST_S) -> float:
        wanted = f"a number from {least:g} to {most:g}"

        def fits(value: Any) -> bool:
            return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most

        return float(self._take(key, wanted, fits, default) or 0)

    def integer(self, key: str, default: Any = _MISSING, *, least: int = 0, most: int = 2**31) -> int:
        def fits(value: Any) -> bool:
            return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

        return int(self._take(key, f"a whole number from {least}", fits, default) or 0)

    def flag(self, key: str, default: Any = _MISSING) -> bool:
        return bool(self._take(key, "true or false", lambda v: isinstance(v, bool), default))

    def file(self, key: str, default: Any = _MISSING) -> Path:
        return Path(str(self._take(key, "an absolute path", _absolute, default)))

    def file_name(self, key: str, default: Any = _MISSING) -> str:
        return str(self._take(key, "the name of a file, without a directory", _plain_name, default))

    def files(self, key: str) -> list[Path]:
        value = self._take(key, "a list of absolute paths", lambda v: _all(v, _absolute), [])
        return [Path(item) for item in value or []]

    def texts(self, key: str, default: Any = _MISSING) -> list[str]:
        return list(self._take(key, "a list of texts", lambda v: _all(v, lambda i: isinstance(i, str)), default) or [])

    def mapping(self, key: str, wanted: str, fits: Callable[[Any], bool]) -> dict[str, Any]:
        def holds_only(value: Any) -> bool:
            return isinstance(value, dict) and _all([*value.values()], fits)

        return dict(self._take(key, f"an object of {wanted}", holds_only, {}) or {})

    def any(self, key: str) -> Any:
        return self._take(key, "present", lambda v: True, _MISSING)

    def section(self, key: str) -> _Section:
        return _Section(self._open.pop(key, {}), f"{self.path}.{key}".lstrip("."), self.mistakes)

    def optional(self, key: str) -> _Section | None:
        return self.section(key) if self._open.get(key) is not None else self._open.pop(key, None)

    def sections(self, key: str) -> list[_Section]:
        path = f"{self.path}.{key}".lstrip(".")
        value = self._open.pop(key, [])
        if not isinstance(value, list):
            self.wrong(path, "a list", value)
            return []
        return [_Section(item, f"{path}[{index}]", self.mistakes) for index, item in enumerate(value)]

    def close(self) -> None:
        self.mistakes.extend(f"{self.path}.{key}".lstrip(".") + " is not a known key" for key in self._open)


def _absolute(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/") and "\0" not in value and ".." not in Path(value).parts


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and value != "" and re.compile(value) is not None
    except re.error:
        return False


def _is_time(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value) is not None


def _plain_name(value: Any) -> bool:
    return isinstance(value, str) and value.strip() not in ("", ".", "..") and "/" not in value


def _all(values: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and all(fits(value) for value in values)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _unfit_texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Texts that no file name, command or SQL statement can hold, with the paths of their keys."""
    if isinstance(value, dict):
        for key, inner in value.items():
            where = f"{path}.{key}".lstrip(".")
            yield from _unfit_texts(key, path)
            yield from _unfit_texts(inner, where)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unfit_texts(inner, f"{path}[{index}]")
    elif isinstance(value, str) and "\0" in value:
        yield path, "a NUL character"
    elif isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        yield path, "half of a surrogate pair, which is no character"


def _database(section: _Section) -> Database:
    invariants = []
    for item in section.sections("invariants"):
        invariants.append(Invariant(item.text("name"), item.text("sql"), item.any("expect")))
        item.close()
    database = Database(
        name=section.text("name"),
        path=section.file("path"),
        tables=section.mapping("tables", "column lists", lambda v: _all(v, _is_text)),
        queries=section.mapping("queries", "SQL texts", _is_text),
        invariants=invariants,
        busy_timeout_s=section.number("busy_timeout_s", 5.0),
    )
    section.close()
    return database


def _probe(section: _Section | None, status: int) -> Probe | None:
    if section is None:
        return None
    probe = Probe(
        url=section.text("url"),
        status=section.integer("status", status, least=100, most=599),
        json=section.mapping("json", "values", lambda v: True),
        headers=section.mapping("headers", "texts", _is_text),
        timeout_s=section.number("timeout_s", 5, least=0.1),
    )
    section.close()
    return probe


def _health(section: _Section) -> Health:
    health = Health(
        liveness=_probe(section.optional("liveness"), 200),
        websocket=_probe(section.optional("websocket"), 101),
        frontend=_probe(section.optional("frontend"), 200),
        wait_s=section.number("wait_s", 60, least=1),
    )
    section.close()
    return health


def _target(section: _Section) -> Target:
    name = section.text("name")
    target: Target
    if section.choice("type", ("path", "s3")) == "s3":
        target = TargetS3(
            name=name,
            endpoint=section.text("endpoint"),
            region=section.text("region", "us-east-1"),
            bucket=section.text("bucket"),
            prefix=str(section._take("prefix", "a text", _is_text, "") or "").strip("/"),
            credentials_file=section.file("credentials_file"),
            lock_days=section.integer("lock_days", 0),
            bandwidth_limit_bytes_s=section.integer("bandwidth_limit_bytes_s", 0, most=2**40),
            answer_timeout_s=section.number("answer_timeout_s", 60, least=0.1, most=3600),
            retries=section.integer("retries", 3, most=20),
        )
    else:
        target = TargetPath(
            name=name,
            path=section.file("path"),
            require_mount=section.flag("require_mount", False),
            marker=section.file_name("marker", ".fluxmaint-target"),
            bandwidth_limit_bytes_s=section.integer("bandwidth_limit_bytes_s", 0, most=2**40),
        )
    section.close()
    return target


def parse_retention(obj: Any) -> Retention:
    """Check a retention policy that stands alone. Raises ConfigError with every mistake, by the name of its key."""
    mistakes: list[str] = []
    retention = _retention(_Section(obj, "retention", mistakes))
    if mistakes:
        raise ConfigError("; ".join(mistakes), subject="retention", untouched="everything", mistakes=mistakes)
    return retention


def _retention(section: _Section) -> Retention:
    default = Retention()
    # A day's grace at least: longer than any run takes.
    retention = Retention(
        keep_days=section.integer("keep_days", default.keep_days, least=1, most=_MOST_KEPT),
        keep_weekly=section.integer("keep_weekly", default.keep_weekly, most=_MOST_KEPT),
        keep_monthly=section.integer("keep_monthly", default.keep_monthly, most=_MOST_KEPT),
        orphan_grace_days=section.integer("orphan_grace_days", default.orphan_grace_days, least=1, most=_MOST_KEPT),
        cache_grace_days=section.integer("cache_grace_days", default.cache_grace_days, least=1, most=_MOST_KEPT),
    )
    section.close()
    return retention


def _backup(section: _Section) -> Backup:
    targets = [_target(item) for item in section.sections("targets")]
    backup = Backup(
        staging_dir=section.file("staging_dir", "/var/lib/fluxmaint/staging"),
        timeout_s=section.number("timeout_s", 3600, least=1),
        compression_level=section.integer("compression_level", 1, least=1, most=19),
        nice=section.integer("nice", NICE, least=0, most=19),
        drift_limit=section.number("drift_limit", 0.2, most=1),
        recipients_file=section.file("recipients_file", "/etc/fluxmaint/keys/recipients.txt"),
        signing_key_file=section.file("signing_key_file", "/etc/fluxmaint/keys/signing_ed25519"),
        signer=section.text("signer"),
        allowed_signers_file=section.file("allowed_signers_file", "/etc/fluxmaint/keys/allowed_signers"),
        content_digests=section.choice("content_digests", ("never", "full", "always"), "full"),
        max_age_s=section.number("max_age_s", MAX_AGE_S, least=60, most=_LONGEST_AGE_S),
        max_proven_age_s=section.number("max_proven_age_s", MAX_PROVEN_AGE_S, least=60, most=_LONGEST_AGE_S),
        retention=_retention(section.section("retention")),
        targets=targets,
    )
    if not targets:
        section.mistakes.append(f"{section.path}.targets must name at least one target")
    _unique(section, "targets", [target.name for target in targets])
    section.close()
    return backup


def _verify(section: _Section) -> Verify:
    keys = "/etc/fluxmaint/keys"
    target, proofs = section.optional("target"), section._open.get("proof_credentials_file")
    if target is None:
        section.mistakes.append(f"{section.path}.target is missing")
    origins = []
    for item in section.sections("origins"):
        origins.append(Origin(item.text("service"), item.text("host"), item.text("signer")))
        item.close()
    verify = Verify(
        verifier=section.text("verifier"),
        target=_target(target if target is not None else _Section({}, f"{section.path}.target", [])),
        proof_credentials_file=section.file("proof_credentials_file", None) if proofs else None,
        identity_file=section.file("identity_file", f"{keys}/verifier.key"),
        signing_key_file=section.file("signing_key_file", f"{keys}/verifier_ed25519"),
        allowed_signers_file=section.file("allowed_signers_file", f"{keys}/allowed_signers"),
        work_dir=section.file("work_dir", "/var/lib/fluxmaint/verify"),
        older=section.integer("older", 1),
        budget_s=section.number("budget_s", 7200, least=1),
        evidence_days=section.integer("evidence_days", 400, least=1, most=_MOST_KEPT),
        origins=origins,
    )
    if not proofs:
        section._open.pop("proof_credentials_file", None)
    if not origins:
        section.mistakes.append(f"{section.path}.origins must name at least one host")
    _unique(section, "origins", [f"{origin.service}/{origin.host}" for origin in origins])
    section.mistakes.extend(
        f"{section.path}.origins names {origin.host}: a host cannot prove its own generations"
        for origin in origins
        if origin.host == verify.verifier
    )
    section.mistakes.extend(
        f"{section.path}: the name {name!r} may hold only letters, digits, '-', '_' and '.'"
        for name in (verify.verifier, *(part for origin in origins for part in (origin.service, origin.host)))
        if not NAME.fullmatch(name)
    )
    section.close()
    return verify


def _upkeep(section: _Section) -> Upkeep:
    window = section.section("window")
    days = window._take("days", f"a list of {', '.join(_DAYS)}", lambda v: _all(v, lambda day: day in _DAYS), ["Sun"])
    start = window._take("start", "a time of day such as 03:00", _is_time, "03:00")
    upkeep = Upkeep(
        window=Window(list(days or []), str(start), window.number("duration_s", 7200, least=60, most=7 * 86400)),
        stop_units=section.flag("stop_units", False),
        wait_fraction=section.number("wait_fraction", 0.5, least=0.01, most=0.75),
        free_ratio=section.number("free_ratio", 0.2, least=0.01, most=1),
        free_bytes=section.integer("free_bytes", 16 << 20, most=2**50),
        refill_days=section.number("refill_days", 30, most=_MOST_KEPT),
        fragmentation=section.number("fragmentation", 0.6, least=0.05, most=1),
        fill=section.number("fill", 0.5, most=0.95),
        stale_ratio=section.number("stale_ratio", 0.5, least=0.01, most=100),
        analysis_limit=section.integer("analysis_limit", 1000, least=10),
        step_pages=section.integer("step_pages", 256, least=1, most=65536),
        pause_s=section.number("pause_s", 0.1, most=60),
        timeout_s=section.number("timeout_s", 3600, least=1),
    )
    window.close()
    section.close()
    return upkeep


def parse_log_files(obj: Any) -> list[LogFile]:
    """Check a list of logs that stands alone. Raises ConfigError with every mistake, by the path of its key."""
    mistakes: list[str] = [f"{where} holds {what}" for where, what in _unfit_texts(obj, "logs")]
    logs = _log_files(_Section({"logs": obj}, "", mistakes))
    if mistakes:
        raise ConfigError("; ".join(mistakes), subject="logs", untouched="everything", mistakes=mistakes)
    return logs


def _log_files(section: _Section) -> list[LogFile]:
    logs = []
    for item in section.sections("logs"):
        log = LogFile(
            name=item.text("name"),
            path=item.optional_text("path"),
            writer=item.choice("writer", WRITERS),
            unit=item.optional_text("unit"),
            signal=item.optional_text("signal"),
            user=item.optional_text("user"),
            group=item.optional_text("group"),
        )
        item.mistakes.extend(f"{item.path}.{mistake}" for mistake in _log_mistakes(log))
        item.close()
        logs.append(log)
    _unique(section, "logs", [log.name for log in logs])
    return logs


def _log_mistakes(log: LogFile) -> Iterator[str]:
    if not NAME.fullmatch(log.name):
        yield f"name {log.name!r} may hold only letters, digits, '-', '_' and '.'"
    if log.writer == "journal" and log.path:
        yield "path must be empty for the writer journal, which writes no file"
    elif log.writer != "journal" and not (_absolute(log.path) and _LOG_PATH.fullmatch(log.path)):
        yield (
            f"path {log.path!r} must be an absolute path without spaces, quotes, braces, '#' and backslashes, with"
            " wildcards in its last part only"
        )
    if log.writer in ("signal", "reload") and not log.unit:
        yield f"unit is missing: the writer {log.writer} is told through it"
    if log.unit and not _UNIT.fullmatch(log.unit):
        yield f"unit {log.unit!r} is not the name of a service such as a.service"
    if (log.writer == "signal") != bool(log.signal) or (log.signal and not _SIGNAL.fullmatch(log.signal)):
        yield f"signal {log.signal!r} must be one such as SIGUSR1 for the writer signal, and empty for others"
    for key, name in (("user", log.user), ("group", log.group)):
        if name and not NAME.fullmatch(name):
            yield f"{key} {name!r} is not the name of an account"


def _rotation(section: _Section) -> Rotation:
    rotation = Rotation(
        config_dir=section.file("config_dir", "/etc/fluxmaint/logrotate.d"),
        state_file=section.file("state_file", "/var/lib/fluxmaint/logrotate.state"),
        reopen_wait_s=section.number("reopen_wait_s", 10, least=0.1, most=600),
        logs=_log_files(section),
    )
    section.close()
    return rotation


def _log_report(section: _Section) -> LogReport:
    report = LogReport(
        directory=section.file("directory", "/var/lib/fluxmaint/reports"),
        keep=section.integer("keep", 53, least=1, most=_MOST_KEPT),
    )
    section.close()
    return report


def _notify(section: _Section) -> Notify:
    notify = Notify(
        hooks_dir=section.file("hooks_dir", "/etc/fluxmaint/hooks.d"),
        hook_timeout_s=section.number("hook_timeout_s", 30, least=0.1, most=600),
        ping_file=section.file("ping_file", "/etc/fluxmaint/keys/ping.json"),
        ping_timeout_s=section.number("ping_timeout_s", 10, least=0.1, most=120),
    )
    section.close()
    return notify


def _unique(section: _Section, key: str, names: list[str]) -> None:
    for name in sorted({name for name in names if names.count(name) > 1}):
        section.mistakes.append(f"{section.path}.{key}".lstrip(".") + f" has the name {name!r} more than once")


def _logs(section: _Section | None) -> Logs | None:
    if section is None:
        return None
    default = Logs(Path(), 7)
    logs = Logs(
        directory=section.file("directory"),
        days=section.integer("days", default.days, least=1),
        patterns=section.texts("patterns", list(default.patterns)),
        journal_units=section.texts("journal_units", []),
        time_zone=section.text("time_zone", default.time_zone),
        failed_trade=section.pattern("failed_trade", default.failed_trade),
        api_error=section.pattern("api_error", default.api_error),
        restart=section.pattern("restart", default.restart),
        keep_days=section.integer("keep_days", default.keep_days, least=1, most=_MOST_KEPT),
        hourly_days=section.integer("hourly_days", default.hourly_days, least=1, most=_MOST_KEPT),
        most_messages=section.integer("most_messages", default.most_messages, least=1, most=100_000),
    )
    section.mistakes.extend(
        f"{section.path}.patterns: {pattern!r} must lead to a file below the directory"
        for pattern in logs.patterns
        if pattern.startswith("/") or ".." in Path(pattern).parts or not Path(pattern).parts
    )
    section.close()
    return logs


def _cache(section: _Section | None) -> Cache | None:
    if section is None:
        return None
    cache = Cache(section.file("directory"), section.texts("patterns"), section.texts("regenerable", []))
    section.close()
    return cache


def _archives(section: _Section | None, databases: Sequence[Database]) -> Archives | None:
    if section is None:
        return None
    tables = []
    known = [database.name for database in databases]
    for item in section.sections("tables"):
        name = item.text("name")
        table = item.text("table", name)
        database, query = item.choice("database", known), item.text("query")
        tables.append(ArchivedTable(name, database, table, query, item.texts("key", [])))
        if not NAME.fullmatch(name):
            item.wrong(f"{item.path}.name", "letters, digits, '-', '_' and '.'", name)
        item.close()
    archives = Archives(section.file("directory"), tables)
    _unique(section, "tables", [table.name for table in tables])
    # Else a row could be in the archives of both, and count twice.
    _unique(section, "tables", [f"{table.database}.{table.table.lower()}" for table in tables])
    section.close()
    return archives


def _exports(section: _Section | None, databases: Sequence[Database]) -> Exports | None:
    if section is None:
        return None
    queries = []
    for item in section.sections("queries"):
        query = ExportQuery(
            name=item.text("name"),
            database=item.text("database"),
            sql=item.text("query"),
            format=item.choice("format", ("csv", "parquet"), "csv"),
            spreadsheet=item.flag("spreadsheet", False),
            blobs=item.choice("blobs", ("hex", "base64"), "hex"),
            local_times=item.texts("local_times", []),
            require_rows=item.flag("require_rows", False),
        )
        item.close()
        if not NAME.fullmatch(query.name):
            item.mistakes.append(f"{item.path}.name {query.name!r} becomes the name of a file")
        if query.database not in [database.name for database in databases]:
            item.mistakes.append(f"{item.path}.database {query.database!r} is not one of databases")
        if query.spreadsheet and query.format != "csv":
            item.mistakes.append(f"{item.path}.spreadsheet needs the format csv")
        queries.append(query)
    exports = Exports(
        directory=section.file("directory"),
        time_zone=section.text("time_zone", "UTC"),
        timeout_s=section.number("timeout_s", 600, least=1),
        queries=queries,
    )
    _unique(section, "queries", [query.name for query in queries])
    section.close()
    return exports


def _cache_cleanup(section: _Section | None) -> CacheCleanup | None:
    if section is None:
        return None
    default = CacheCleanup()
    days = section.number("max_age_days", None, most=_MOST_KEPT)
    size = section.integer("max_bytes", None, most=2**60)
    cleanup = CacheCleanup(
        max_age_days=days or None,
        max_bytes=size or None,
        grace_s=section.number("grace_s", default.grace_s),
    )
    section.close()
    return cleanup


def _system(section: _Section | None) -> System | None:
    if section is None:
        return None
    system = System(section.file("release_link"), section.texts("exclude", []), section.files("paths"))
    section.close()
    return system


def parse(obj: Any, *, subject: str = "") -> Config:
    """Check a parsed JSON document and make a Config of it.

    Raises ConfigError with every mistake, each named by the path of its key; `mistakes` in its facts.
    """
    mistakes: list[str] = [f"{where or 'the document'} holds {what}" for where, what in _unfit_texts(obj, "")]
    top = _Section(obj, "", mistakes)
    if top.integer("format") != FORMAT:
        mistakes.append(f"format must be {FORMAT}")
    databases = [_database(item) for item in top.sections("databases")]
    if not databases:
        mistakes.append("databases must name at least one database")
    _unique(top, "databases", [database.name for database in databases])
    backup, verify = top.optional("backup"), top.optional("verify")
    rotation = top.optional("rotation")
    upkeep = top.optional("upkeep")
    halt_file = top._take("halt_file", "an absolute path or null", lambda v: v is None or _absolute(v), None)
    config = Config(
        service=top.text("service"),
        host=top.text("host"),
        root=top.file("root"),
        user=top.text("user"),
        group=top.text("group"),
        units=top.texts("units"),
        halt_file=Path(halt_file) if halt_file else None,
        databases=databases,
        ignored_databases=top.files("ignored_databases"),
        config_files=top.files("config_files"),
        logs=_logs(top.optional("logs")),
        cache=_cache(top.optional("cache")),
        archives=_archives(top.optional("archives"), databases),
        system=_system(top.optional("system")),
        exports=_exports(top.optional("exports"), databases),
        health=_health(top.section("health")),
        backup=_backup(backup) if backup else None,
        verify=_verify(verify) if verify else None,
        rotation=_rotation(rotation) if rotation else None,
        cache_cleanup=_cache_cleanup(top.optional("cache_cleanup")),
        notify=_notify(top.section("notify")),
        log_report=_log_report(top.section("log_report")),
        upkeep=_upkeep(upkeep) if upkeep else None,
        state_dir=top.file("state_dir", "/var/lib/fluxmaint"),
        run_dir=top.file("run_dir", "/run/fluxmaint"),
    )
    mistakes.extend(
        f"the name {name!r} may hold only letters, digits, '-', '_' and '.', and begins with one of the first two"
        for name in (config.service, config.host, *(database.name for database in databases))
        if not NAME.fullmatch(name)
    )
    top.close()
    if mistakes:
        raise ConfigError("; ".join(mistakes), subject=subject, mistakes=mistakes)
    return config


def load(path: Path = DEFAULT_PATH, candidates: Mapping[str, Path] | None = None) -> Config:
    """Read and check a host's configuration: the file, and its drop-ins `config.d/*.json` beside it.

    Each drop-in adds whole top-level keys, so that each role owns its file.

    Args:
        candidates: drop-in names with the files to read in their place, to check one before it lands.

    Raises ConfigError, or InputError when a file cannot be read.
    """
    path = Path(path)
    merged = read_json(path)
    if not isinstance(merged, dict):
        raise ConfigError("must be an object", subject=str(path))
    origin = dict.fromkeys(merged, path)
    drop_ins = {drop_in.name: drop_in for drop_in in (path.parent / DROP_INS).glob("*.json")}
    drop_ins.update(candidates or {})
    for drop_in in drop_ins.values():
        addition = read_json(drop_in)
        if not isinstance(addition, dict):
            raise ConfigError("must be an object", subject=str(drop_in))
        for key, value in addition.items():
            if key in origin:
                raise ConfigError(f"the key {key} is in {origin[key]} already", subject=str(drop_in))
            origin[key] = drop_in
            merged[key] = value
    return parse(merged, subject=str(path))
