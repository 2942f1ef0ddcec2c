"""What the tests of the SQLite engine share: writers and lock holders in other processes, and their judge.

Locks belong to processes, so whoever competes with the engine for a lock must be another process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlite_writer

HERE = Path(__file__).resolve().parent
PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]


def make(path: Path, *, mode: str = "delete", page_size: int = 4096, pad: int = 200, **pragmas: str) -> Path:
    """A new database with the writer's tables."""
    con = sqlite3.connect(path)
    con.execute(f"PRAGMA page_size={page_size}")
    for name, value in pragmas.items():
        con.execute(f"PRAGMA {name}={value}")
    con.execute(f"PRAGMA journal_mode={mode}")
    sqlite_writer.prepare(con, pad)
    con.close()
    return path


class Writer:
    """A running `sqlite_writer.py`."""

    def __init__(self, database: Path, rate: float = 0, busy_timeout_s: float = 5.0, *options: str) -> None:
        self.report: dict[str, Any] = {}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "sqlite_writer.py"), str(database), str(rate), str(busy_timeout_s), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def stop(self) -> None:
        out, _nothing = self.process.communicate(timeout=60)
        self.report = json.loads(out)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)


@contextlib.contextmanager
def writing(database: Path, rate: float = 0, busy_timeout_s: float = 5.0, *options: str) -> Iterator[Writer]:
    writer = Writer(database, rate, busy_timeout_s, *options)
    try:
        yield writer
        writer.stop()
    finally:
        if writer.process.poll() is None:
            writer.kill()


@contextlib.contextmanager
def elsewhere(database: Path, *statements: str) -> Iterator[int]:
    """Another process that runs statements on a database and keeps the connection open; yields its pid."""
    code = (
        "import sqlite3, sys\n"
        "con = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for sql in sys.argv[2:]:\n"
        "    con.execute(sql).fetchall()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(database), *statements],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)


def leave_hot_journal(database: Path) -> None:
    """Die inside a transaction that has already written to the file, as a crash does."""
    code = (
        "import os, signal, sqlite3, sys\n"
        "con = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "con.execute('PRAGMA cache_size=5')\n"
        "con.execute('BEGIN')\n"
        "con.execute('UPDATE board SET k = -1, pad = pad || pad')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(database)], check=False, timeout=60)
    assert os.path.getsize(f"{database}-journal") > 512


def require_prefix(snapshot: Path) -> int:
    """The number of the snapshot's last transaction, after proving that it holds all before it and none after it."""
    con = sqlite3.connect(f"file:{snapshot}?mode=ro&immutable=1", uri=True)
    try:

        def ask(sql: str) -> Any:
            return con.execute(sql).fetchall()

        assert ask("PRAGMA integrity_check") == [("ok",)]
        last = ask("SELECT k FROM tally")[0][0]
        assert ask("SELECT count(*), coalesce(max(k), 0) FROM seq") == [(last, last)]
        assert ask("SELECT count(*), count(DISTINCT k), coalesce(max(k), 0) FROM item") == [(3 * last, last, last)]
        assert ask("SELECT count(*), coalesce(max(k), 0) FROM move") == [(2 * last, last)]
        wrong = ask(
            "SELECT board.id FROM board LEFT JOIN (SELECT id, max(k) AS k FROM move GROUP BY id) AS m"
            " ON m.id = board.id WHERE board.k <> coalesce(m.k, 0)"
        )
        assert wrong == []
        blocks = [block for (block,) in ask("SELECT block FROM filler ORDER BY block")]
        newest = last - last % 5
        assert blocks == [block for block in range(5, newest + 1, 5) if block >= newest - 20]
        return int(last)
    finally:
        con.close()


def files(directory: Path) -> dict[str, bytes]:
    """Every file of a directory with its content."""
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}
