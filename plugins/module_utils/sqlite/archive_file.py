# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One archive: a SQLite file with the rows of one month of one table, and a table that says what it is.

An archive is never changed in place. Whoever adds rows makes the whole file anew elsewhere and renames it over the
old one, so that readers and backups see a complete file at any time, and a crash leaves nothing to roll back. Its table
`fluxmaint_archive` holds the digest of its rows: damage that SQLite does not notice is found before the file is used.

What a person has replaced by newer content is kept beside the rows, in `fluxmaint_replaced`, with the time of that.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.config import ArchivedTable, Archives
from ..core.errors import InputError, IntegrityError, PreconditionError
from ..core.fsio import complete_file
from .connect import SIDE_FILES, Deadline, reading, require_database, sqlite_errors
from .fingerprint import quoted, rows_digest
from .table_shape import Shape, listed, read_shape

METADATA = "fluxmaint_archive"
REPLACED = "fluxmaint_replaced"
REPLACED_AT = "fluxmaint_replaced_at"
# With replaced rows a file has the second format, so that no program which would drop them writes it anew.
FORMAT, FORMAT_REPLACED = "1", "2"
_COMPLAINTS = 5
_MONTH = re.compile(r"[1-9][0-9]{3}(?:0[1-9]|1[0-2])")


@dataclass(frozen=True)
class ArchiveFile:
    """An archive that has been looked at.

    Attributes:
        month: such as `202611`, in UTC.
        rows: how many it holds.
        sha256: digest of the rows, whatever their order.
        shape: its table.
        cutoff: the time before which rows were taken, of the run that wrote it.
        replaced: how many rows it keeps beside them, which newer content has replaced.
    """

    path: Path
    month: str
    rows: int
    sha256: str
    bytes: int
    shape: Shape
    cutoff: str
    replaced: int


@contextlib.contextmanager
def usable(path: Path, how: str = "written") -> Iterator[None]:
    """Turn what the system refuses inside, for a file or directory of archives, into an error that names it."""
    try:
        yield
    except OSError as error:
        raise PreconditionError(
            f"cannot be {how}: {error.strerror or error}",
            subject=str(path),
            untouched="the rows in the database, and the archives that are there",
            remedy="look at the space, the mount and the rights there; the next run goes on",
            errno=error.errno,
        ) from None


def path_of(directory: Path, name: str, month: str) -> Path:
    """Where the archive of a month is."""
    return directory / f"{name}_archive_{month}.db"


def existing(directory: Path, name: str) -> dict[str, Path]:
    """The archives of a table by month, by their names alone. Raises PreconditionError when nobody may look."""
    found = {}
    with usable(directory, "read"), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted(directory.iterdir()):
            month = _month(path.name, name)
            if month:
                found[month] = path
    return found


def remove_partial(directory: Path, name: str) -> None:
    """Remove what a killed run was about to give a name."""
    with usable(directory), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in list(directory.iterdir()):
            if path.suffix == ".partial" and _month(path.stem, name):
                path.unlink()


def every_file(archives: Archives | None) -> list[Path]:
    """The archives of all tables that are there."""
    if archives is None:
        return []
    return [path for table in archives.tables for path in existing(archives.directory, table.name).values()]


def table_of(archives: Archives | None, path: Path) -> ArchivedTable | None:
    """The table of which a path holds archived rows, or is about to; None for any other path."""
    if archives is None:
        return None
    name = path.stem if path.suffix == ".partial" else path.name
    for table in archives.tables:
        if _month(name, table.name) and os.path.realpath(path.parent) == os.path.realpath(archives.directory):
            return table
    return None


def _month(file_name: str, name: str) -> str:
    month = file_name.removeprefix(f"{name}_archive_").removesuffix(".db")
    return month if f"{name}_archive_{month}.db" == file_name and _MONTH.fullmatch(month) else ""


def read(path: Path, table: ArchivedTable, month: str, deadline: Deadline, *, content: bool = True) -> ArchiveFile:
    """Look at an archive, and prove that it is sound.

    Args:
        content: read all of it: SQLite's check, and the digest of its rows.

    Raises:
        IntegrityError: it is damaged, or its rows are not those that were written.
        InputError: it is not an archive of this table and month.
    """
    if path.is_symlink():
        raise InputError("is a symbolic link, not an archive", subject=str(path))
    with _named(path):
        _real, header = require_database(path)
    written = [suffix for suffix in SIDE_FILES if _size(Path(f"{path}{suffix}"))]
    if written or header.wal:
        raise IntegrityError(
            f"another program has written to it: {path.name}{written[0]} lies beside it"
            if written
            else "another program has written to it: it is in WAL mode",
            subject=str(path),
            remedy="fetch the archive from a backup, and copy archives before you change anything in them",
        )
    with _named(path), reading(path, immutable=True) as con:
        deadline.bind(con)
        if content:
            complaints = [text for (text,) in con.execute(f"PRAGMA integrity_check({_COMPLAINTS})")]
            if complaints != ["ok"]:
                raise IntegrityError(f"is damaged: {'; '.join(complaints)}", subject=str(path))
        facts = _metadata(con, path)
        counts = [facts.get("rows", ""), facts.get("replaced_rows", "0")]
        if not all(re.fullmatch("[0-9]{1,18}", count) for count in counts) or "sha256" not in facts:
            raise IntegrityError(f"what its table {METADATA} says is damaged", subject=str(path))
        rows, replaced = map(int, counts)
        form = FORMAT_REPLACED if replaced else FORMAT
        meant = {"format": form, "name": table.name, "table": table.table, "month": month}
        wrong = [
            f"{key} is {facts.get(key)!r}, not {value!r}" for key, value in meant.items() if facts.get(key) != value
        ]
        if wrong:
            raise InputError(f"is another archive than its name says: {', '.join(wrong)}", subject=str(path))
        shape = read_shape(con, table.table, table.key, subject=str(path))
        if content:
            found = digest(con, shape, "main")
            if {key: str(value) for key, value in found.items()} != {key: facts.get(key) for key in found}:
                raise IntegrityError(
                    f"its {found['rows']} rows are not the {facts.get('rows')} that were written", subject=str(path)
                )
            if replaced and replaced_digest(con, shape, "main")["replaced_sha256"] != facts.get("replaced_sha256"):
                raise IntegrityError(
                    f"the {replaced} replaced rows that it keeps are not those that were written", subject=str(path)
                )
    return ArchiveFile(
        path, month, rows, facts["sha256"], path.stat().st_size, shape, facts.get("cutoff", ""), replaced
    )


def digest(con: sqlite3.Connection, shape: Shape, schema: str) -> dict[str, Any]:
    """Number and digest of all rows of a table."""
    names = shape.names
    return rows_digest(con, names, f"SELECT {listed(names)} FROM {schema}.{quoted(shape.table)}")  # noqa: S608 - quoted


def replaced_digest(con: sqlite3.Connection, shape: Shape, schema: str) -> dict[str, Any]:
    """Number and digest of the rows that were replaced, named as an archive's facts name them."""
    names = [REPLACED_AT, *shape.names]
    found = rows_digest(con, names, f"SELECT {listed(names)} FROM {schema}.{REPLACED}")  # noqa: S608 - quoted
    return {f"replaced_{key}": value for key, value in found.items()}


@contextlib.contextmanager
def _named(path: Path) -> Any:
    """Say for each kind of damage what to do."""
    try:
        yield
    except IntegrityError as error:
        error.untouched = error.untouched or "everything"
        error.remedy = error.remedy or "fetch this file from a backup: fluxmaint extract --part cache --path " + str(
            path
        )
        raise


def _metadata(con: sqlite3.Connection, path: Path) -> dict[str, str]:
    try:
        return {str(key): str(value) for key, value in con.execute(f"SELECT key, value FROM {METADATA}")}  # noqa: S608 - quoted
    except sqlite3.OperationalError as error:
        if "no such" not in str(error):
            raise
        raise InputError(
            "has the name of an archive, and was not made by fluxmaint",
            subject=str(path),
            untouched="everything",
            remedy="move it to another directory",
        ) from None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def create(path: Path, shape: Shape, *, page_size: int, encoding: str, replaced: bool = False) -> None:
    """Make an empty archive with the table and the indexes of the live schema.

    It is private work that nobody has read yet: nothing of it is synchronised, `publish` does that.

    Args:
        replaced: with a table for rows that were replaced. Its columns have no type, so values stay what they are.

    Raises InputError when this SQLite cannot make that schema, for example an index over a function of the service.
    """
    path.unlink(missing_ok=True)
    con = sqlite3.connect(path, isolation_level=None)
    try:
        with sqlite_errors(path):
            con.execute(f"PRAGMA page_size = {page_size}")
            con.execute(f"PRAGMA encoding = '{encoding}'")
            con.execute("PRAGMA synchronous = OFF")
            con.execute("BEGIN")
            for statement in shape.statements:
                con.execute(statement)
            con.execute(f"CREATE TABLE {METADATA}(key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            if replaced:
                con.execute(f"CREATE TABLE {REPLACED}({listed([REPLACED_AT, *shape.names])})")
            con.execute("COMMIT")
    finally:
        con.close()


def describe(con: sqlite3.Connection, schema: str, facts: Mapping[str, Any]) -> None:
    """Write into an attached archive what it is."""
    form = FORMAT_REPLACED if facts.get("replaced_rows") else FORMAT
    con.executemany(
        f"INSERT OR REPLACE INTO {schema}.{METADATA}(key, value) VALUES (?, ?)",  # noqa: S608 - quoted
        [(key, str(value)) for key, value in {"format": form, **facts}.items()],
    )


def publish(
    made: Path, path: Path, table: ArchivedTable, month: str, owner: tuple[int, int], deadline: Deadline
) -> ArchiveFile:
    """Give a finished archive its name: copied beside it, on the disk, read back and proven, then renamed.

    Args:
        owner: user and group id.
    """
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with complete_file(path) as stream:
        with open(made, "rb") as source:
            shutil.copyfileobj(source, stream, 1 << 20)
        if owner != (os.geteuid(), os.getegid()):
            os.fchown(stream.fileno(), *owner)
        stream.flush()
        os.fsync(stream.fileno())
        proven = read(partial, table, month, deadline)
    return ArchiveFile(**{**vars(proven), "path": path})
