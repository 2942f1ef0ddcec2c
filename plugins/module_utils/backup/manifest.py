# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MANIFEST.json: the signed record of what a generation holds. Format 1, specified in `docs/backup-format.md`."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, TypeVar, Union, get_args, get_origin, get_type_hints

from ..core.clock import parse_utc
from ..core.errors import InputError, IntegrityError
from ..core.fsio import json_bytes
from ..core.version import VERSION
from . import layout

FORMAT = 1
# A manifest lists files, none of them with its content: a larger one is none of ours.
MANIFEST_LIMIT = 64 << 20
KINDS = ("daily", "full")
_ARCHIVES = ("config", "logs", "system")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MODE = re.compile(r"[0-7]{4}")
_OBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Stored:
    """An object as it lies in a store: encrypted."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class FileEntry:
    """One file: absolute path, owner and group by name, mode as four octal digits, size, content.

    `link` is the target of a symbolic link, relative; its `sha256` is empty. `modified` is UTC.
    """

    path: str
    owner: str
    group: str
    mode: str
    bytes: int
    sha256: str
    modified: str
    link: str = ""

    @property
    def member(self) -> str:
        """The file's name inside an archive and below an extraction directory."""
        return self.path.lstrip("/")

    @property
    def mode_bits(self) -> int:
        """The mode as a number."""
        return int(self.mode, 8)


@dataclass(frozen=True)
class Part:
    """One object of the generation's own: a database, or an archive with its files.

    Attributes:
        name: `db-<database>`, `config`, `logs` or `system`.
        object: its name beside the manifest.
        bytes: size before compression.
        sha256: digest before compression.
        stored: the encrypted object.
        compression: always `zstd` in format 1.
        encryption: always `age` in format 1.
        recipients: fingerprints of the keys that it is encrypted to.
        files: what an archive holds, or the database file itself.
    """

    name: str
    object: str
    bytes: int
    sha256: str
    stored: Stored
    compression: str
    encryption: str
    recipients: list[str]
    files: list[FileEntry]


@dataclass(frozen=True)
class CacheFile:
    """A market-data file, stored once under its content's digest and that of its recipients.

    `stored` lists the encrypted forms under which stores hold it: one, unless a target had to be filled again.
    """

    file: FileEntry
    object: str
    stored: list[Stored]


@dataclass(frozen=True)
class InvariantResult:
    """An invariant of the operator, as it was asked and answered."""

    name: str
    sql: str
    expect: Any
    value: Any


@dataclass(frozen=True)
class Table:
    """Rows of a table, and the digest of its content where it was computed (else empty)."""

    rows: int
    sha256: str = ""


@dataclass(frozen=True)
class Snapshot:
    """How the hot copy was made, and how long the longest possible wait of a writer was, in seconds."""

    method: str
    passes: int
    duration_s: float
    writer_stall_s: float


@dataclass(frozen=True)
class DatabaseRecord:
    """What is known of a database's snapshot."""

    name: str
    path: str
    journal_mode: str
    page_size: int
    page_count: int
    application_id: int
    user_version: int
    sqlite_version: str
    schema_digest: str
    tables: dict[str, Table]
    required: dict[str, list[str]]
    newest: Optional[Union[str, int, float]]
    invariants: list[InvariantResult]
    snapshot: Snapshot


@dataclass(frozen=True)
class Release:
    """The deployed code: the link that names it, its directory, its id and the revision in its REVISION file."""

    link: str
    directory: str
    id: str
    revision: str


@dataclass(frozen=True)
class Instructions:
    """The object with the commands to restore by hand."""

    object: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything about one generation. Times are UTC."""

    format: int
    id: str
    kind: str
    service: str
    host: str
    contract_sha256: str
    release: Optional[Release]
    started_at: str
    finished_at: str
    tools: dict[str, str]
    recipients: list[str]
    signer: str
    parts: list[Part]
    databases: list[DatabaseRecord]
    cache: list[CacheFile]
    instructions: Instructions
    problems: list[str] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """The file's content."""
        return json_bytes(dataclasses.asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes, subject: str = "MANIFEST.json") -> Manifest:
        """Parse and check a manifest.

        Raises:
            IntegrityError: naming `subject` and the field that is missing, unknown or wrong.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise IntegrityError(f"is not JSON: {error}", subject=subject) from None
        found = document.get("format") if isinstance(document, dict) else None
        if found != FORMAT:
            raise IntegrityError(
                f"has format {found!r}; fluxhero.maintenance {VERSION} reads format {FORMAT}",
                subject=subject,
                remedy="update fluxhero.maintenance, or restore it by hand: RESTORE.txt beside it says how",
            )
        try:
            manifest = decode(cls, document)
            manifest._check()
        except InputError as error:
            raise IntegrityError(error.message, subject=subject) from None
        return manifest

    def part(self, name: str) -> Part:
        """The part of that name. Raises InputError listing those that exist."""
        for part in self.parts:
            if part.name == name:
                return part
        raise InputError(
            f"generation {self.id} has no part {name!r}; it has {', '.join(self.part_names())}", subject=self.id
        )

    def part_names(self) -> list[str]:
        """Names of all parts, `cache` included when there are cache files."""
        return [part.name for part in self.parts] + (["cache"] if self.cache else [])

    def stored_bytes(self) -> int:
        """Size of the encrypted objects, cache files included."""
        return sum(part.stored.bytes for part in self.parts) + sum(item.stored[0].bytes for item in self.cache)

    def _check(self) -> None:
        for name in ("started_at", "finished_at"):
            parse_utc(getattr(self, name))
        _one_of("kind", self.kind, KINDS)
        _unique("parts", [part.name for part in self.parts] + [part.object for part in self.parts])
        _unique("databases", [database.name for database in self.databases])
        for database in self.databases:
            _matches("databases.name", database.name, _OBJECT)  # becomes the name of a file
        databases = {f"db-{database.name}" for database in self.databases}
        if databases != {part.name for part in self.parts if part.name.startswith("db-")} or not databases:
            raise InputError("databases do not match the parts that start with db-")
        for part in self.parts:
            where = f"parts.{part.name}"
            if part.name not in databases:
                _one_of("parts.name", part.name, _ARCHIVES)  # becomes the name of a directory
            _matches(f"{where}.object", part.object, _OBJECT)
            _matches(f"{where}.sha256", part.sha256, _SHA256)
            _matches(f"{where}.stored.sha256", part.stored.sha256, _SHA256)
            _one_of(f"{where}.compression", part.compression, ("zstd",))
            _one_of(f"{where}.encryption", part.encryption, ("age",))
            _unique(f"{where}.files", [entry.path for entry in part.files])
            if part.name in databases and len(part.files) != 1:
                raise InputError(f"{where}.files must hold the database file")
            for entry in part.files:
                _check_file(f"{where}.files", entry)
        _unique("cache", [item.file.path for item in self.cache])
        for item in self.cache:
            _check_file("cache", item.file)
            if not layout.is_cache_object(item.object, item.file.sha256):  # becomes the name of an object
                raise InputError(f"cache.object must be cache/{item.file.sha256}-<recipients>.zst.age")
            if not item.stored:
                raise InputError(f"cache: {item.file.path} lists no stored object")
            for stored in item.stored:
                _matches("cache.stored.sha256", stored.sha256, _SHA256)


def decode(kind: type[_T], value: Any, where: str = "") -> _T:
    """Build a dataclass from parsed JSON. Raises InputError naming the field that does not fit."""
    if not isinstance(value, dict):
        raise InputError(f"{where or 'the document'} must be an object")
    hints = get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise InputError(f"{where or 'the document'} has the unknown field {unknown[0]}")
    arguments = {}
    for name, item in fields.items():
        path = f"{where}.{name}".lstrip(".")
        if name in value:
            arguments[name] = _value(hints[name], value[name], path)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise InputError(f"{path} is missing")
    return kind(**arguments)


def _value(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Union:
        return _choice(inner, value, where)
    if origin is list:
        _is(list, value, where)
        return [_value(inner[0], item, f"{where}[{index}]") for index, item in enumerate(value)]
    if origin is dict:
        _is(dict, value, where)
        return {key: _value(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return decode(kind, value, where)  # type: ignore[arg-type]
    _is(kind, value, where)
    if kind is int and value < 0 and not where.endswith(("_id", "_version")):
        raise InputError(f"{where} must not be negative")
    return value


def _choice(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    choices = [kind for kind in kinds if kind is not type(None)]
    if value is None and len(choices) < len(kinds):
        return None
    if len(choices) == 1:
        return _value(choices[0], value, where)
    if isinstance(value, bool) or not isinstance(value, tuple(choices)):
        raise InputError(f"{where} has the wrong type")
    return value


def _is(kind: type, value: Any, where: str) -> None:
    """JSON does not tell 1.0 from 1, and in Python true is a number."""
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{where} must be of type {kind.__name__}")
    if isinstance(value, str) and any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
        raise InputError(f"{where} holds a character that no name can hold")


def _check_file(where: str, entry: FileEntry) -> None:
    parts = entry.path.split("/")
    if not entry.path.startswith("/") or any(part in ("", ".", "..") for part in parts[1:]) or "\0" in entry.path:
        raise InputError(f"{where}: {entry.path!r} is not a plain absolute path")
    _matches(f"{where}.mode", entry.mode, _MODE)
    parse_utc(entry.modified)
    if not entry.link:
        _matches(f"{where}.sha256", entry.sha256, _SHA256)


def _matches(where: str, value: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(value):
        raise InputError(f"{where} has the unexpected value {value!r:.80}")


def _one_of(where: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"{where} must be {' or '.join(choices)}, not {value!r:.80}")


def _unique(where: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        raise InputError(f"{where} names something twice")
