# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases that are not what they should be, or change while they are copied: seen from the command line.

What the SQLite layer makes of each is in `tests/integration/sqlite/test_hostile_sources.py`.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlite_lab import elsewhere, leave_hot_journal, make

from tests.faults.invariants import Invariants
from tests.faults.scene import EngineServer, Scene


@pytest.fixture
def scene(tmp_path: Path, engine_server: EngineServer) -> Scene:
    """A service with a proven generation."""
    made = Scene(tmp_path / "world", engine_server)
    assert made.backup().code == 0
    assert made.prove("local").code == 0
    return made


def truncated(database: Path) -> None:
    os.truncate(database, database.stat().st_size - 4096)


def torn_page(database: Path) -> None:
    os.truncate(database, database.stat().st_size - 100)


def zeroed(database: Path) -> None:
    with open(database, "r+b") as stream:
        stream.seek(4096)
        stream.write(bytes(4096))


def flipped(database: Path) -> None:
    """One bit of each of the structures that make up the first pages."""
    data = bytearray(database.read_bytes())
    for page in range(1, len(data) // 4096):
        data[page * 4096 + 3] ^= 0x40
    database.write_bytes(bytes(data))


def foreign_journal(database: Path) -> None:
    other = make(database.with_name("other.db"), pad=1000)
    leave_hot_journal(other)
    shutil.move(f"{other}-journal", f"{database}-journal")
    other.unlink()


def unreadable(database: Path) -> None:
    database.unlink()
    database.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": truncated,
    "torn in the last page": torn_page,
    "a zeroed page": zeroed,
    "bit-flipped": flipped,
    "zero bytes": lambda database: os.truncate(database, 0),
    "not SQLite": lambda database: database.write_bytes(b"time,symbol\n" * 900),
    "header only": lambda database: os.truncate(database, 100),
    "missing": lambda database: database.unlink(),
    "a directory": unreadable,
    "foreign hot journal": foreign_journal,
    "another service's tables": lambda database: (database.unlink(), make(database)),
    "link to nothing": lambda database: (database.unlink(), database.symlink_to("nowhere.db")),
    "lost most rows": lambda database: _sql(database, "DELETE FROM positions WHERE id > 10"),
}


def _sql(database: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_source_that_must_not_become_a_generation(scene: Scene, damage: str) -> None:
    DAMAGE[damage](scene.world.database)
    watch = Invariants(scene)
    before = list(scene.world.store.rglob("COMMIT"))
    ran = scene.backup()
    assert ran.code in (1, 2, 5), ran.out
    assert str(scene.world.database.parent) in ran.result["subject"] + ran.result["message"]
    assert list(scene.world.store.rglob("COMMIT")) == before
    watch.hold_after_next_run(ran)
    status = scene.run("status")
    assert status.code == 3, "the last backup failed"


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "chain of links"])
def test_a_database_by_another_name(scene: Scene, kind: str) -> None:
    database, real = scene.world.database, scene.world.root / "elsewhere.db"
    if kind == "hard link":
        os.link(database, real)
    else:
        database.rename(real)
        between = scene.world.root / "between.db"
        between.symlink_to(real)
        database.symlink_to(between if kind == "chain of links" else real)
    watch = Invariants(scene)
    ran = scene.backup()
    assert ran.code in (0, 3), ran.out
    watch.hold_after_next_run(ran)
    rows, _env = scene.fetched("local", ran.result["id"])
    with contextlib.closing(sqlite3.connect(f"file:{real}?mode=ro", uri=True)) as connection:
        assert rows == connection.execute("SELECT * FROM trades ORDER BY id").fetchall()


@pytest.mark.parametrize("own", [True, False], ids=["its own", "another database's"])
def test_a_stale_wal(scene: Scene, own: bool) -> None:
    """What is taken is what SQLite itself reads from these files, or nothing; the files stay as they are."""
    database = scene.world.database
    victim = database if own else database.with_name("other.db")
    if not own:
        shutil.copyfile(database, victim)
    _sql(victim, "PRAGMA journal_mode=wal")
    with elsewhere(victim, "INSERT INTO trades(symbol) VALUES ('IN-THE-LOG')"):
        shutil.copyfile(f"{victim}-wal", scene.world.top / "tmp/log")
    for name in (f"{victim}-wal", f"{victim}-shm"):
        Path(name).unlink(missing_ok=True)
    if own:
        _sql(database, "INSERT INTO trades(symbol) VALUES ('LATER')")
    else:
        victim.unlink()
    shutil.move(scene.world.top / "tmp/log", f"{database}-wal")
    copies = scene.world.top / "copies"
    copies.mkdir()
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{database}{suffix}", copies / f"copy.db{suffix}")
    watch = Invariants(scene)
    ran = scene.backup()
    shutil.copytree(copies, scene.world.top.parent / "copies")
    shutil.rmtree(copies)
    watch.hold_after_next_run(ran)
    if ran.code in (0, 3):
        rows, _env = scene.fetched("local", ran.result["id"])
        with contextlib.closing(sqlite3.connect(scene.world.top.parent / "copies/copy.db")) as connection:
            assert rows == connection.execute("SELECT * FROM trades ORDER BY id").fetchall()
    else:
        assert (ran.code, ran.result["subject"]) == (1, str(database)), ran.out


def test_a_hot_journal_of_its_own_is_rolled_back_as_the_service_would(scene: Scene) -> None:
    """The one case in which a backup lets SQLite write to a database: what it takes is what was committed."""
    code = (
        "import os, signal, sqlite3, sys\n"
        "con = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "con.execute('PRAGMA cache_size=2')\n"
        "con.execute('BEGIN')\n"
        "con.execute(\"UPDATE trades SET symbol = symbol || hex(randomblob(900))\")\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with contextlib.closing(sqlite3.connect(scene.world.database)) as connection:
        committed = connection.execute("SELECT * FROM trades ORDER BY id").fetchall()
    subprocess.run([sys.executable, "-c", code, scene.world.database], check=False, timeout=60)
    assert Path(f"{scene.world.database}-journal").stat().st_size > 512
    ran = scene.backup()
    assert ran.code in (0, 3), ran.out
    Invariants(scene).hold_after_next_run(ran)
    assert scene.fetched("local", ran.result["id"])[0] == committed


# Each transaction leaves as many rows in `a` as in `b`; pages come and go.
RESTLESS = """
import random, sqlite3, sys, time
con = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
con.execute(f"PRAGMA journal_mode={sys.argv[2]}")
con.execute("CREATE TABLE IF NOT EXISTS a(id INTEGER PRIMARY KEY, pad)")
con.execute("CREATE TABLE IF NOT EXISTS b(id INTEGER PRIMARY KEY, pad)")
print("ready", flush=True)
while True:
    con.execute("BEGIN IMMEDIATE")
    count = random.randrange(1, 400)
    for table in "ab":
        con.execute(f"DELETE FROM {table}")
        con.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
            f" INSERT INTO {table}(pad) SELECT randomblob(2000) FROM n"
        )
    con.execute("COMMIT")
    if sys.argv[3] == "vacuum":
        con.execute("VACUUM")
    time.sleep(random.random() / 50)
"""


@contextlib.contextmanager
def restless(database: Path, mode: str, how: str) -> Iterator[None]:
    """A process that makes the database grow and shrink all the time."""
    command = [sys.executable, "-c", RESTLESS, str(database), mode, how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
        assert process.poll() is None, "a backup has made the service fail"
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("how", ["grows and shrinks", "vacuum"])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_source_that_changes_its_size_while_it_is_copied(scene: Scene, mode: str, how: str) -> None:
    invariant = {"name": "as many", "sql": "SELECT (SELECT count(*) FROM a) - (SELECT count(*) FROM b)", "expect": 0}
    scene.world.document["databases"][0]["invariants"] = [invariant]
    scene.configure(drift_limit=1)
    kept = Invariants(scene)
    taken = 0
    with restless(scene.world.database, mode, how):
        for _unused in range(6):
            ran = scene.backup()
            assert ran.code in (0, 1, 7), ran.out
            taken += ran.code == 0
            kept.nothing_is_falsely_a_success(ran)
            kept.newest_proven_restores()
            kept.no_secret_is_seen()
    assert taken >= 3, "hardly any backup came through"
    after = scene.backup()
    assert after.code == 0, after.out
    Invariants(scene).hold_after_next_run(after)


def test_a_vacuum_in_the_middle_of_each_step(scene: Scene) -> None:
    """The source is rebuilt from outside at moments drawn by lot."""
    steps = scene.backup().steps(scene.journal, longest=8)
    for step in random.SystemRandom().sample(steps[:12], 6):
        watch = Invariants(scene)
        command = f"sqlite3 {scene.world.database} 'PRAGMA busy_timeout=100' VACUUM > /dev/null 2>&1"
        ran = scene.backup(at=random.SystemRandom().choice(step), fault=command)
        assert ran.code == 0, ran.out
        watch.newest_proven_restores()
        watch.nothing_is_falsely_a_success(ran)
        watch.no_secret_is_seen()
        watch.nothing_lies_around_in_plain()
