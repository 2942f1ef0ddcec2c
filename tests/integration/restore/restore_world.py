# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in a directory: a running service with its files, a generation to restore, and questions about both."""

from __future__ import annotations

import contextlib
import dataclasses
import grp
import json
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fluxmaint.backup import restore, restore_plan
from fluxmaint.backup.restore_plan import Contents, DatabaseFacts, File, Request
from fluxmaint.core import config as core_config
from fluxmaint.core.clock import Clock
from fluxmaint.core.errors import PreconditionError, TimeoutExceeded
from fluxmaint.core.fsio import sha256_file
from fluxmaint.core.journal import Journal
from fluxmaint.sqlite import fingerprint

HERE = Path(__file__).parent
GENERATION = "20261123T020000Z-7f3a2c"
OLD_ROWS, NEW_ROWS = 20, 3
OLD_ENV = "API_TOKEN=rotated-secret\nMODE=live\nADDED_SINCE=1\n"
NEW_ENV = "API_TOKEN=previous-secret\nMODE=live\nREMOVED_SINCE=1\n"
SECRETS = ("rotated-secret", "previous-secret")


class ProcessService:
    """A real process as the service, held by a marker file as units are held by a drop-in.

    Args:
        directory: for its own files.
        command: what it runs.
        progressed: a number that grows while it is healthy.
    """

    def __init__(self, directory: Path, command: Sequence[str], progressed: Callable[[], int], wait_s: float) -> None:
        self._directory = directory
        self._command = command
        self._progressed = progressed
        self._wait_s = wait_s
        self._pid_file = directory / "service.pid"
        self.hold_file = directory / "service.held"

    def active(self) -> list[str]:
        return ["writer.service"] if self._pid() else []

    def hold(self) -> None:
        self.hold_file.touch()

    def release(self) -> None:
        self.hold_file.unlink(missing_ok=True)

    def stop(self) -> None:
        pid = self._pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while self._pid() is not None:
            if time.monotonic() > deadline:
                raise TimeoutExceeded("the writer does not stop", subject="writer.service")
            time.sleep(0.005)

    def start(self, units: Sequence[str]) -> None:
        if not units or self._pid():
            return
        if self.hold_file.exists():
            raise PreconditionError("the writer is held", subject="writer.service")
        with open(self._directory / "service.log", "ab") as log:
            process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._pid_file.write_text(str(process.pid))

    def wait_healthy(self) -> dict[str, Any]:
        """Healthy: it runs and gets further."""
        before = self._progressed()
        deadline = time.monotonic() + self._wait_s
        while time.monotonic() < deadline:
            if self._pid() and self._progressed() > before:
                return {"progressed": self._progressed()}
            time.sleep(0.01)
        raise TimeoutExceeded("the service is not healthy: the writer does not write", subject="writer.service")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The writer stands still, so that its files can be copied as one set."""
        pid = self._pid()
        if pid is None:
            yield
            return
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def _pid(self) -> int | None:
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if state == "Z" else pid


class LocalSource:
    """A generation that lies in a directory, already verified."""

    def __init__(self, world: World) -> None:
        self._directory = world.generation
        self.fetched: list[str] = []

    def contents(self, request: Request) -> Contents:
        return Contents.from_dict(json.loads((self._directory / "contents.json").read_text()))

    def fetch(self, contents: Contents, files: Sequence[File], directory: Path) -> list[File]:
        result = []
        for number, file in enumerate(files):
            self.fetched.append(file.path)
            staged = directory / str(number)
            shutil.copyfile(self._directory / Path(file.path).name, staged)
            result.append(dataclasses.replace(file, staged=str(staged)))
        return result


@dataclasses.dataclass
class World:
    """Everything in one directory, so that another process can open the same world by its path."""

    directory: Path
    journal_mode: str = "delete"

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def database(self) -> Path:
        return self.root / "data" / "trades.db"

    @property
    def env(self) -> Path:
        return self.root / ".env"

    @property
    def generation(self) -> Path:
        return self.directory / "generation"

    @property
    def ledger(self) -> Path:
        return self.directory / "acknowledged.txt"

    @property
    def service(self) -> ProcessService:
        script = [sys.executable, "-S", "-E", str(HERE / "restore_writer.py")]
        arguments = [str(self.database), self.journal_mode, str(self.ledger), str(self.config.halt_file)]
        wait_s = self.config.health.wait_s
        return ProcessService(self.directory, [*script, *arguments], lambda: len(self.acknowledged()), wait_s)

    @property
    def config(self) -> core_config.Config:
        return core_config.load(self.directory / "config.json")

    @property
    def journal(self) -> Journal:
        return Journal(self.config.journal_file)

    def require_no_secret(self, *said: str) -> None:
        """Neither in what a restore has said nor in what it has noted is a value of the service's settings."""
        files = (self.config.journal_file, restore_plan.plan_file(self.config))
        for text in (*said, *(file.read_text() for file in files if file.exists())):
            assert not any(secret in text for secret in SECRETS), text

    @property
    def plan(self) -> restore_plan.Plan | None:
        return restore_plan.load(self.config)

    def run(self, request: Request, **options: Any) -> dict[str, Any]:
        options.setdefault("source", LocalSource(self))
        options.setdefault("service", self.service)
        return restore.run(self.config, request, clock=Clock(), journal=self.journal, **options)

    def resume(self, **options: Any) -> dict[str, Any] | None:
        options.setdefault("service", self.service)
        return restore.resume(self.config, clock=Clock(), journal=self.journal, **options)

    def acknowledged(self) -> list[tuple[str, int]]:
        """What the writer was promised: origin of the database and number."""
        lines = self.ledger.read_text().splitlines(keepends=True) if self.ledger.exists() else []
        return [(line.split()[0], int(line.split()[1])) for line in lines if line.endswith("\n")]

    def state(self) -> str:
        """`old`: all that was promised before; `new`: the generation; `away`: no file, and the old set is kept.

        Anything else is an AssertionError.
        """
        with self.service.frozen():
            if not self.database.exists():
                assert self.service.hold_file.exists(), "the database is away and the service may be started"
                assert not self.service.active()
                return self._kept_set()
            with tempfile.TemporaryDirectory() as scratch:
                copy = Path(scratch) / "copy.db"
                for suffix in ("", "-wal", "-shm", "-journal"):
                    if Path(f"{self.database}{suffix}").exists():
                        shutil.copyfile(f"{self.database}{suffix}", f"{copy}{suffix}")
                return self._classify(copy)

    def _kept_set(self) -> str:
        plan = self.plan
        assert plan is not None and plan.open
        with tempfile.TemporaryDirectory() as scratch:
            for item in plan.items:
                if not item.database:
                    continue
                for old in item.old:
                    source = old.keep if Path(old.keep).exists() else old.path
                    shutil.copyfile(source, Path(scratch) / Path(old.path).name)
            assert self._classify(Path(scratch) / "trades.db") == "old"
        return "away"

    def _classify(self, database: Path) -> str:
        connection = sqlite3.connect(database)
        try:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            origin = connection.execute("SELECT value FROM origin").fetchone()[0]
            numbers = {n for (n,) in connection.execute("SELECT n FROM heartbeat")}
            fillers = connection.execute("SELECT count(*), sum(body = 'filled') FROM filler").fetchone()
        finally:
            connection.close()
        assert fillers == (500, 500), "a transaction that was never committed is there"
        promised = {number for marker, number in self.acknowledged() if marker == origin}
        promised |= set(range(1, 1 + (OLD_ROWS if origin == "old" else NEW_ROWS)))
        assert promised <= numbers, f"lost: {sorted(promised - numbers)[:5]}"
        assert len(numbers - promised) <= 1, "rows of two databases are mixed"
        return "old" if origin == "old" else "new"


def make_database(path: Path, origin: str, rows: int, journal_mode: str = "delete") -> None:
    """The service's schema with `rows` heartbeats."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode={journal_mode}")
    connection.executescript(
        "CREATE TABLE origin(value TEXT); CREATE TABLE heartbeat(n INTEGER PRIMARY KEY);"
        "CREATE TABLE trades(id INTEGER PRIMARY KEY, n INTEGER); CREATE TABLE filler(id INTEGER PRIMARY KEY, body);"
    )
    connection.execute("INSERT INTO origin VALUES (?)", (origin,))
    connection.executemany("INSERT INTO heartbeat VALUES (?)", [(n,) for n in range(1, rows + 1)])
    connection.executemany("INSERT INTO filler(body) VALUES (?)", [("filled",)] * 500)
    connection.commit()
    connection.close()


def account() -> tuple[str, str]:
    """Who owns restored files: another account where this process may give files away."""
    if os.geteuid() == 0:
        return "nobody", grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name
    return pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name


def make_world(
    directory: Path, *, journal_mode: str = "delete", origin: str = "generation", start: bool = True
) -> World:
    """A running service on `old` data, and a generation with other data.

    Args:
        origin: mark of the generation's database; on `bad` the service does not start.
    """
    world = World(directory, journal_mode)
    user, group = account()
    (world.root / "data" / "cache").mkdir(parents=True)
    (world.root / "logs").mkdir()
    world.generation.mkdir()
    document = {
        "format": 1,
        "service": "sample",
        "host": "here",
        "root": str(world.root),
        "user": user,
        "group": group,
        "units": ["writer.service"],
        "halt_file": str(world.root / "data" / "HALT"),
        "databases": [
            {
                "name": "trades",
                "path": str(world.database),
                "tables": {"heartbeat": ["n"]},
                "queries": {},
                "invariants": [{"name": "one_origin", "sql": "SELECT count(*) FROM origin", "expect": 1}],
            }
        ],
        "config_files": [str(world.env)],
        "logs": {"directory": str(world.root / "logs"), "days": 7},
        "cache": {"directory": str(world.root / "data" / "cache"), "patterns": ["*.parquet"]},
        "health": {"wait_s": 1},
        "state_dir": str(directory / "state"),
        "run_dir": str(directory / "run"),
    }
    (directory / "config.json").write_text(json.dumps(document))
    make_database(world.database, "old", OLD_ROWS, journal_mode)
    world.database.chmod(0o600)
    world.env.write_text(OLD_ENV)
    world.env.chmod(0o640)
    make_generation(world, origin)
    if start:
        world.service.start(["writer.service"])
        deadline = time.monotonic() + 10
        while len(world.acknowledged()) < 3:
            assert time.monotonic() < deadline, (directory / "service.log").read_text()
            time.sleep(0.005)
    return world


def make_generation(world: World, origin: str, **changes: Any) -> None:
    """Lay the generation out in its directory, as a source finds it."""
    user, group = account()
    (world.generation / "trades.db").unlink(missing_ok=True)
    make_database(world.generation / "trades.db", origin, NEW_ROWS)
    (world.generation / ".env").write_text(NEW_ENV)
    (world.generation / "app.log").write_text("restored line\n")
    (world.generation / "candles.parquet").write_bytes(b"PAR1")
    places = [
        ("databases", "trades", world.database, 0o600),
        ("config", "", world.env, 0o640),
        ("logs", "", world.root / "logs" / "app.log", 0o640),
        ("cache", "", world.root / "data" / "cache" / "candles.parquet", 0o640),
    ]
    files = []
    for part, name, path, mode in places:
        source = world.generation / path.name
        files.append(File(part, name, str(path), sha256_file(source), source.stat().st_size, user, group, mode))
    database = world.generation / "trades.db"
    digests = fingerprint.content_digests(database)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        facts = DatabaseFacts(
            "trades",
            {name: value["rows"] for name, value in digests.items()},
            fingerprint.schema_digest(connection),
            {name: value["sha256"] for name, value in digests.items()},
            [["one_origin", "SELECT count(*) FROM origin", 1]],
        )
    contents = Contents(GENERATION, "daily", "here", "2026-11-23T02:00:00Z", "", "", files, {"trades": facts})
    (world.generation / "contents.json").write_text(json.dumps({**contents.as_dict(), **changes}))
