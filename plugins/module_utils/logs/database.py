# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has been read and counted so far: one SQLite database, in which cursors and totals change together.

A log is told again by its content, whatever its name and inode have become: by the digest of its beginning and by
that of the last bytes that were read of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..core.errors import IntegrityError
from ..sqlite.connect import sqlite_errors
from .counting import SAMPLES, Message, Tally
from .fingerprint import OTHER

VERSION = 1
MOST_MESSAGES = 5000
MOST_ROUTES = 1000
_MOST_RESTARTS = 10_000
_DAY = 24

_SCHEMA = """
CREATE TABLE sources(id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, UNIQUE(kind, name));
CREATE TABLE streams(
    id INTEGER PRIMARY KEY, source INTEGER NOT NULL, path TEXT NOT NULL, device INTEGER NOT NULL,
    inode INTEGER NOT NULL, size INTEGER NOT NULL, modified_ns INTEGER NOT NULL, offset INTEGER NOT NULL,
    head_bytes INTEGER NOT NULL, head TEXT NOT NULL, tail TEXT NOT NULL, cursor TEXT NOT NULL, last_hour TEXT NOT NULL,
    first_time INTEGER, last_time INTEGER, skipping INTEGER NOT NULL, complete INTEGER NOT NULL, gone INTEGER NOT NULL);
CREATE TABLE facts(source INTEGER, hour INTEGER, name TEXT, count INTEGER NOT NULL, PRIMARY KEY(source, hour, name))
    WITHOUT ROWID;
CREATE TABLE messages(
    id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, level TEXT NOT NULL, type TEXT NOT NULL,
    text TEXT NOT NULL, first_time INTEGER NOT NULL, last_time INTEGER NOT NULL, samples TEXT NOT NULL);
CREATE TABLE counts(message INTEGER, hour INTEGER, count INTEGER NOT NULL, PRIMARY KEY(message, hour)) WITHOUT ROWID;
CREATE TABLE requests(
    hour INTEGER, method TEXT, route TEXT, status TEXT, count INTEGER NOT NULL,
    PRIMARY KEY(hour, method, route, status)) WITHOUT ROWID;
CREATE TABLE latencies(
    hour INTEGER, method TEXT, route TEXT, bucket INTEGER, count INTEGER NOT NULL,
    PRIMARY KEY(hour, method, route, bucket)) WITHOUT ROWID;
CREATE TABLE restarts(source INTEGER NOT NULL, time INTEGER NOT NULL, what TEXT NOT NULL);
CREATE TABLE unparsed(source INTEGER NOT NULL, text TEXT NOT NULL);
CREATE TABLE gaps(
    source INTEGER NOT NULL, file TEXT NOT NULL, reason TEXT NOT NULL, after INTEGER, before INTEGER,
    noticed INTEGER NOT NULL);
CREATE TABLE releases(name TEXT NOT NULL, deployed INTEGER NOT NULL);
"""
# Tables with an hour: their other columns that name a row.
_HOURLY = {
    "facts": "source, name",
    "counts": "message",
    "requests": "method, route, status",
    "latencies": "method, route, bucket",
}


@dataclass(frozen=True)
class Stream:
    """One content that is or was in a file, or the journal of a unit, and how far it has been read.

    Attributes:
        id: 0 until it is stored.
        device, inode, size, modified_ns: of the file where it was found last.
        offset: bytes read, after decompression.
        head, head_bytes: digest of its first bytes, and how many those are.
        tail: digest of the last bytes before `offset`.
        cursor: of a journal.
        last_hour: as `Counting.last_hour`.
        first_time, last_time: of its lines that were read, in seconds since 1970.
        skipping: `offset` is inside a line that is too long.
        complete: it has been read to its end, and nobody writes to it any more.
        gone: it was not found any more.
    """

    source: int
    path: str
    id: int = 0
    device: int = 0
    inode: int = 0
    size: int = 0
    modified_ns: int = 0
    offset: int = 0
    head_bytes: int = 0
    head: str = ""
    tail: str = ""
    cursor: str = ""
    last_hour: str = ""
    first_time: int | None = None
    last_time: int | None = None
    skipping: bool = False
    complete: bool = False
    gone: bool = False


@dataclass(frozen=True)
class GapFound:
    """What cannot be read any more, between two times where they are known, in seconds since 1970."""

    file: str
    reason: str
    after: int | None
    before: int | None


_COLUMNS = [column.name for column in fields(Stream)]
_FLAGS = ("skipping", "complete", "gone")


class LogDatabase:
    """The database of one host. Use `open_database`."""

    def __init__(self, path: Path, con: sqlite3.Connection, most_messages: int) -> None:
        self.path = path
        self.con = con
        self._most_messages = most_messages

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is done inside, durably."""
        with sqlite_errors(self.path):
            self.con.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.con.execute("ROLLBACK")
                raise
            self.con.execute("COMMIT")

    def source(self, kind: str, name: str) -> int:
        """The number of a source, which is made when it is new."""
        with self.transaction():
            self.con.execute("INSERT OR IGNORE INTO sources(kind, name) VALUES (?, ?)", (kind, name))
            found = self.con.execute("SELECT id FROM sources WHERE kind = ? AND name = ?", (kind, name)).fetchone()
        return int(found[0])

    def names(self, kind: str) -> list[str]:
        """The sources of one kind that were ever read."""
        with sqlite_errors(self.path):
            rows = self.con.execute("SELECT name FROM sources WHERE kind = ? ORDER BY name", (kind,)).fetchall()
        return [row[0] for row in rows]

    def streams(self, source: int) -> list[Stream]:
        """What is known of a source, in the order in which it was found."""
        return self._streams("source = ?", source)

    def streams_of(self, kind: str, name: str) -> list[Stream]:
        """The same for a source that may not be known."""
        return self._streams("source = (SELECT id FROM sources WHERE kind = ? AND name = ?)", kind, name)

    def _streams(self, condition: str, *values: Any) -> list[Stream]:
        statement = f"SELECT {', '.join(_COLUMNS)} FROM streams WHERE {condition} ORDER BY id"  # noqa: S608 - own names
        with sqlite_errors(self.path):
            rows = self.con.execute(statement, values).fetchall()
        found = []
        for row in rows:
            known = dict(zip(_COLUMNS, row))
            known.update({name: bool(known[name]) for name in _FLAGS})
            found.append(Stream(**known))
        return found

    def save(self, stream: Stream) -> Stream:
        """Store how far a stream has been read; inside a transaction."""
        names = [name for name in _COLUMNS if name != "id" or stream.id]
        cursor = self.con.execute(
            f"INSERT OR REPLACE INTO streams({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",  # noqa: S608
            [getattr(stream, name) for name in names],
        )
        return stream if stream.id else replace(stream, id=int(cursor.lastrowid or 0))

    def add(self, source: int, tally: Tally) -> None:
        """Add what has been counted to the totals; inside a transaction."""
        con = self.con
        con.executemany(
            "INSERT INTO facts VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
            [(source, hour, name, count) for (hour, name), count in tally.facts.items()],
        )
        numbers = self._messages(tally)
        con.executemany(
            "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
            [(numbers[name], hour, count) for (hour, name), count in tally.counts.items()],
        )
        known = {(row[0], row[1]) for row in con.execute("SELECT DISTINCT method, route FROM requests")}

        def bounded(method: str, route: str) -> tuple[str, str]:
            if (method, route) not in known and len(known) >= MOST_ROUTES:
                return "", OTHER
            known.add((method, route))
            return method, route

        con.executemany(
            "INSERT INTO requests VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
            [(hour, *bounded(method, path), status, n) for (hour, method, path, status), n in tally.requests.items()],
        )
        con.executemany(
            "INSERT INTO latencies VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
            [(hour, *bounded(method, path), bucket, n) for (hour, method, path, bucket), n in tally.latencies.items()],
        )
        room = _MOST_RESTARTS - con.execute("SELECT count(*) FROM restarts").fetchone()[0]
        con.executemany(
            "INSERT INTO restarts VALUES (?, ?, ?)", [(source, *found) for found in tally.restarts[: max(room, 0)]]
        )
        con.executemany("INSERT INTO unparsed VALUES (?, ?)", [(source, text) for text in tally.unparsed])
        con.execute(
            "DELETE FROM unparsed WHERE source = ?1 AND rowid NOT IN"
            " (SELECT rowid FROM unparsed WHERE source = ?1 ORDER BY rowid DESC LIMIT ?2)",
            (source, SAMPLES),
        )

    def _messages(self, tally: Tally) -> dict[str, int]:
        """The numbers of the messages of a tally; those beyond the number that is kept apart are one."""
        con = self.con
        count = con.execute("SELECT count(*) FROM messages").fetchone()[0]
        numbers: dict[str, int] = {}
        others: list[tuple[str, Message]] = []
        for name, message in tally.messages.items():
            row = con.execute(
                "SELECT id, first_time, last_time, samples FROM messages WHERE fingerprint = ?", (name,)
            ).fetchone()
            if row is None and count >= self._most_messages:
                others.append((name, message))
            elif row is None:
                count += 1
                numbers[name] = self._insert(
                    name, message.level, message.type, message.text, message.first, message.last, message.samples
                )
            else:
                number, first, last, text = row
                samples = json.loads(text)
                samples += [sample for sample in message.samples if sample not in samples]
                con.execute(
                    "UPDATE messages SET first_time = ?, last_time = ?, samples = ? WHERE id = ?",
                    (min(first, message.first), max(last, message.last), json.dumps(samples[:SAMPLES]), number),
                )
                numbers[name] = number
        if others:
            first = min(message.first for _name, message in others)
            number = self._other(first, max(message.last for _name, message in others))
            numbers.update((name, number) for name, _message in others)
        return numbers

    def _other(self, first: int, last: int) -> int:
        row = self.con.execute("SELECT id FROM messages WHERE fingerprint = ?", (OTHER,)).fetchone()
        if row is None:
            text = f"other messages, beyond the {self._most_messages} that are kept apart"
            return self._insert(OTHER, "UNKNOWN", "", text, first, last, [])
        self.con.execute(
            "UPDATE messages SET first_time = min(first_time, ?), last_time = max(last_time, ?) WHERE id = ?",
            (first, last, row[0]),
        )
        return int(row[0])

    def _insert(
        self, name: str, level: str, kind: str, text: str, first: int, last: int, samples: Iterable[str]
    ) -> int:
        cursor = self.con.execute(
            "INSERT INTO messages(fingerprint, level, type, text, first_time, last_time, samples)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (name, level, kind, text, first, last, json.dumps(list(samples))),
        )
        return int(cursor.lastrowid or 0)

    def add_gap(self, source: int, gap: GapFound, noticed: int) -> None:
        """Note what is missing of a source; inside a transaction."""
        row = (source, gap.file, gap.reason, gap.after, gap.before, noticed)
        self.con.execute("INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?)", row)

    def note_release(self, name: str, deployed: int) -> None:
        """Note which release runs since when, unless that is known."""
        with self.transaction():
            newest = self.con.execute("SELECT name, deployed FROM releases ORDER BY rowid DESC LIMIT 1").fetchone()
            if newest is None or tuple(newest) != (name, deployed):
                self.con.execute("INSERT INTO releases VALUES (?, ?)", (name, deployed))

    def forget(self, now: int, keep_days: int, hourly_days: int) -> None:
        """Keep hours as days after `hourly_days`, and nothing after `keep_days`. `now` in seconds since 1970."""
        hour = now // 3600
        whole = (hour - hourly_days * _DAY) // _DAY * _DAY
        oldest = hour - keep_days * _DAY
        with self.transaction():
            for table, names in _HOURLY.items():
                old = f"{table} WHERE hour < {whole} AND hour % {_DAY} <> 0"
                self.con.execute(
                    f"INSERT INTO {table}(hour, {names}, count)"  # noqa: S608 - own names and numbers
                    f" SELECT hour - hour % {_DAY} AS day, {names}, sum(count) FROM {old} GROUP BY day, {names}"
                    " ON CONFLICT DO UPDATE SET count = count + excluded.count"
                )
                self.con.execute(f"DELETE FROM {old}")  # noqa: S608
                self.con.execute(f"DELETE FROM {table} WHERE hour < ?", (oldest,))  # noqa: S608
            self.con.execute("DELETE FROM messages WHERE id NOT IN (SELECT message FROM counts)")
            self.con.execute("DELETE FROM restarts WHERE time < ?", (oldest * 3600,))
            self.con.execute("DELETE FROM gaps WHERE noticed < ?", (oldest * 3600,))
            self.con.execute("DELETE FROM streams WHERE gone AND modified_ns < ?", (oldest * 3600 * 10**9,))


@contextlib.contextmanager
def open_database(path: Path, *, most_messages: int = MOST_MESSAGES) -> Iterator[LogDatabase]:
    """Open the database, and make it when it does not exist; its mode is 0640.

    Raises IntegrityError when it is damaged, or from another version of this program.
    """
    remedy = "move it away: the logs that are still there are then read again"
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640))
    with sqlite_errors(path):
        con = sqlite3.connect(path, timeout=30, isolation_level=None)
        try:
            try:
                version = con.execute("PRAGMA user_version").fetchone()[0]
                con.execute("PRAGMA synchronous=FULL")
                if version == 0 and not con.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    con.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")
                    version = VERSION
            except sqlite3.DatabaseError as error:
                raise IntegrityError(f"is damaged: {error}", subject=str(path), remedy=remedy) from None
            if version != VERSION:
                raise IntegrityError(f"has version {version}, not {VERSION}", subject=str(path), remedy=remedy)
            yield LogDatabase(path, con, most_messages)
        finally:
            con.close()
