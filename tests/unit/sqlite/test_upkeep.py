# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is due, what it costs, and the steps of a vacuum one by one."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.core.clock import Clock
from fluxmaint.core.config import Upkeep, Window
from fluxmaint.core.errors import InputError, IntegrityError, PreconditionError, TimeoutExceeded
from fluxmaint.sqlite import upkeep
from fluxmaint.sqlite.connect import Deadline
from fluxmaint.sqlite.size import Item, Sizes, measure
from fluxmaint.sqlite.upkeep import Action, Due, Left, Memory

LIMITS = Upkeep(
    window=Window(["Sun"], "03:00", 7200),
    stop_units=False,
    wait_fraction=0.5,
    free_ratio=0.2,
    free_bytes=1 << 20,
    refill_days=30,
    fragmentation=0.6,
    fill=0.5,
    stale_ratio=0.5,
    analysis_limit=1000,
    step_pages=256,
    pause_s=0,
    timeout_s=3600,
)
MB = 1 << 20


def sizes(**changes: Any) -> Sizes:
    items = [Item("t", "t", "table", 40 * MB, 10240, 0, 1.0, 0, 1000)]
    facts: dict[str, Any] = {
        "path": "/data/a.db",
        "bytes": 50 * MB,
        "page_size": 4096,
        "page_count": 12800,
        "freelist_count": 0,
        "used_bytes": 40 * MB,
        "free_page_bytes": 0,
        "free_ratio": 0.0,
        "auto_vacuum": "none",
        "journal_mode": "delete",
        "disk_free_bytes": 1000 * MB,
        "objects": items,
        "no_objects": "",
        "fragmentation": 0.1,
        "fill": 0.9,
        "measured": "live",
        "sqlite_version": "3.40.1",
    }
    return Sizes(**{**facts, **changes})


FREE: dict[str, Any] = {"free_ratio": 0.3, "free_page_bytes": 15 * MB, "freelist_count": 3840}
KNOWN = {"t": 1000}


@pytest.mark.parametrize(
    ("facts", "memory", "growth", "due", "left"),
    [
        ({}, Memory(), None, [], []),
        (FREE, Memory(), None, ["vacuum"], []),
        ({**FREE, "free_ratio": 0.19}, Memory(), None, [], []),
        ({**FREE, "free_page_bytes": MB - 1}, Memory(), None, [], []),
        ({**FREE, "auto_vacuum": "incremental"}, Memory(), None, ["incremental_vacuum"], []),
        (FREE, Memory(), 1.0 * MB, [], ["futile"]),  # used up again in fifteen days
        (FREE, Memory(), 0.1 * MB, ["vacuum"], []),
        (FREE, Memory(), -1.0 * MB, ["vacuum"], []),
        ({"fragmentation": 0.7}, Memory(), None, ["vacuum"], []),
        ({"fragmentation": 0.7}, Memory(fragmentation=0.65), None, [], []),  # a vacuum cannot make it better
        ({"fragmentation": 0.7}, Memory(fragmentation=0.1), None, ["vacuum"], []),
        ({"fragmentation": 0.7, "used_bytes": 1000}, Memory(), None, [], []),
        ({"fragmentation": 0.7, "auto_vacuum": "incremental", **FREE}, Memory(), None, ["vacuum"], []),
        ({"fill": 0.4}, Memory(), None, ["vacuum"], []),
        ({"fill": 0.4}, Memory(fill=0.42), None, [], []),
        ({"fragmentation": None, "fill": None, "objects": None}, Memory(), None, [], []),
        ({"objects": [Item("t", "t", "table", MB, 256, 0, 1.0, 0, 1600)]}, Memory(), None, ["analyze"], []),
        ({"objects": [Item("t", "t", "table", MB, 256, 0, 1.0, 0, 1400)]}, Memory(), None, [], []),
        ({"objects": [Item("t", "t", "table", MB, 256, 0, 1.0, 0, 1600)]}, Memory(rows={"t": 1500}), None, [], []),
        ({"objects": [Item("t", "t", "table", MB, 256, 0, 1.0, 0, 400)]}, Memory(), None, ["analyze"], []),
        ({"objects": [Item("new", "new", "table", MB, 256, 0, 1.0, 0, 100)]}, Memory(), None, ["analyze"], []),
        ({"objects": [Item("new", "new", "table", MB, 256, 0, 1.0, 0, 99)]}, Memory(), None, [], []),
    ],
)
def test_facts_decide(
    facts: dict[str, Any], memory: Memory, growth: float | None, due: list[str], left: list[str]
) -> None:
    found, not_done = upkeep.decide(sizes(**facts), KNOWN, LIMITS, memory, growth)
    assert [item.kind for item in found] == due
    assert [item.state for item in not_done] == left
    assert all(item.why for item in [*found, *not_done])


def choose(facts: dict[str, Any], *, can_stop: bool, window_s: float = 7200.0, **options: Any) -> Action | Left:
    memory = options.get("memory", Memory())
    due = Due("vacuum", "because")
    return upkeep.choose(due, sizes(**facts), LIMITS, memory, busy_timeout_s=5.0, window_s=window_s, can_stop=can_stop)


SMALL: dict[str, Any] = {"used_bytes": 4 * MB, "bytes": 8 * MB}


@pytest.mark.parametrize(
    ("facts", "options", "outcome"),
    [
        (SMALL, {"can_stop": False}, "waiting"),
        (SMALL, {"can_stop": True}, "waiting"),  # what needs no stop gets none
        ({}, {"can_stop": True}, "stopped"),
        ({}, {"can_stop": False}, "refused"),
        ({**SMALL, "journal_mode": "wal"}, {"can_stop": True}, "stopped"),
        ({**SMALL, "journal_mode": "wal"}, {"can_stop": False}, "refused"),
        (SMALL, {"can_stop": False, "memory": Memory(seconds_per_byte={"waiting": 1e-5})}, "refused"),  # as measured
        ({}, {"can_stop": False, "memory": Memory(seconds_per_byte={"waiting": 1e-9})}, "waiting"),
        ({}, {"can_stop": True, "window_s": 0.0}, "waits"),
        (SMALL, {"can_stop": True, "window_s": 0.0}, "waits"),
        ({}, {"can_stop": True, "window_s": 1.0}, "waits"),
        ({"disk_free_bytes": 40 * MB}, {"can_stop": True}, "refused"),
        ({**SMALL, "disk_free_bytes": 16 * MB}, {"can_stop": True}, "refused"),
    ],
)
def test_the_way_follows_from_the_predicted_wait(facts: dict[str, Any], options: dict[str, Any], outcome: str) -> None:
    chosen = choose(facts, **options)
    assert (chosen.way if isinstance(chosen, Action) else chosen.state) == outcome
    if isinstance(chosen, Action):
        assert chosen.wait_s > 0 and chosen.space_bytes > 0


def test_a_refusal_says_why() -> None:
    text = str(choose({}, can_stop=False))
    assert "who wait 5 s, may wait 2.5 s and would have to for" in text
    assert "the units must not be stopped" in text
    assert "1.0 GB" not in text
    assert "needed and" in str(choose({"disk_free_bytes": 10}, can_stop=True))
    assert "Sun 03:00 for 2 h" in str(choose({}, can_stop=True, window_s=0))


@pytest.mark.parametrize(
    ("window", "now", "left"),
    [
        (Window(["Sun"], "03:00", 7200), "2026-11-22 02:59:59", 0),
        (Window(["Sun"], "03:00", 7200), "2026-11-22 03:00:00", 7200),
        (Window(["Sun"], "03:00", 7200), "2026-11-22 04:30:00", 1800),
        (Window(["Sun"], "03:00", 7200), "2026-11-22 05:00:00", 0),
        (Window(["Sun"], "03:00", 7200), "2026-11-23 03:30:00", 0),
        (Window(["Sun"], "23:30", 3600), "2026-11-23 00:15:00", 900),
        (Window(["Sun"], "23:30", 3600), "2026-11-22 00:15:00", 0),
        (Window(["Sat", "Sun"], "00:00", 86400), "2026-11-22 12:00:00", 43200),
        (Window([], "00:00", 86400), "2026-11-22 12:00:00", 0),
    ],
)
def test_the_window_is_local_time(window: Window, now: str, left: float) -> None:
    assert upkeep.window_left_s(window, datetime.fromisoformat(now)) == left


# -- the steps --------------------------------------------------------------------------------------------


def make(path: Path, *, mode: str = "delete", auto_vacuum: str = "none", page_size: int = 4096) -> Path:
    """Tables of each kind, in a file that is mostly free pages."""
    con = sqlite3.connect(path, isolation_level=None)
    con.execute(f"PRAGMA page_size={page_size}")
    con.execute(f"PRAGMA auto_vacuum={auto_vacuum}")
    con.execute(f"PRAGMA journal_mode={mode}")
    con.executescript(
        """
        CREATE TABLE keyed(id INTEGER PRIMARY KEY, note TEXT, half AS (id / 2));
        CREATE TABLE "no key; "(note TEXT, "ü" REAL);
        CREATE TABLE owned(id INTEGER PRIMARY KEY AUTOINCREMENT, keyed REFERENCES keyed(id));
        CREATE TABLE words(word TEXT PRIMARY KEY, n INT) WITHOUT ROWID;
        CREATE INDEX by_note ON keyed(note);
        CREATE VIEW seen AS SELECT * FROM keyed;
        CREATE TRIGGER t AFTER INSERT ON words BEGIN UPDATE keyed SET note = note WHERE id = 1; END;
        CREATE TABLE bloat(data BLOB);
        PRAGMA user_version = 7;
        PRAGMA application_id = 77;
        """
    )
    con.execute("BEGIN")
    con.executemany("INSERT INTO keyed VALUES (?, ?)", ((n, f"note {n * 7919 % 3001}") for n in range(3000)))
    con.executemany('INSERT INTO "no key; " VALUES (?, ?)', ((f"x{n % 10}", n / 3) for n in range(3000)))
    con.executemany("INSERT INTO owned(keyed) VALUES (?)", ((n % 3000,) for n in range(300)))
    con.executemany("INSERT INTO words VALUES (?, ?)", ((f"word {n}", n) for n in range(300)))
    con.executemany("INSERT INTO bloat VALUES (zeroblob(?))", ((20_000,) for n in range(100)))
    con.execute('DELETE FROM "no key; " WHERE rowid % 2')
    con.execute("DELETE FROM bloat")
    con.execute("COMMIT")
    con.close()
    return path


def content(path: Path) -> upkeep.Content:
    con = sqlite3.connect(path)
    try:
        return upkeep.content(con)
    finally:
        con.close()


def deadline(path: Path, seconds: float = 60) -> Deadline:
    return Deadline(Clock(), seconds, str(path))


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("auto_vacuum", ["none", "full", "incremental"])
@pytest.mark.parametrize("page_size", [512, 65536])
def test_a_new_file_holds_the_same(tmp_path: Path, mode: str, auto_vacuum: str, page_size: int) -> None:
    path, new = make(tmp_path / "a.db", mode=mode, auto_vacuum=auto_vacuum, page_size=page_size), tmp_path / "new"
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    before, bytes_before = content(path), path.read_bytes()
    found = upkeep.rebuild(path, new, deadline(path))
    assert found == before == content(new)
    assert path.read_bytes() == bytes_before
    assert (new.stat().st_mode, new.stat().st_uid) == (path.stat().st_mode, path.stat().st_uid)
    sizes_of = measure(new)
    assert (sizes_of.journal_mode, sizes_of.auto_vacuum, sizes_of.page_size) == (mode, auto_vacuum, page_size)
    assert sizes_of.freelist_count == 0
    assert not [entry for entry in os.listdir(tmp_path) if entry not in ("a.db", "new")]


def damage(path: Path) -> None:
    """Swap two entries of an index: only the full check notices."""
    data = bytearray(path.read_bytes())
    at = data.rfind(b"note 2999")
    data[at : at + 9] = b"note 0000"
    path.write_bytes(data)


def test_d47_a_damaged_database_is_never_written_anew(tmp_path: Path) -> None:
    path, new = make(tmp_path / "a.db"), tmp_path / "new"
    damage(path)
    before = path.read_bytes()
    with pytest.raises(IntegrityError, match=r"a\.db: is damaged, and is not written anew"):
        upkeep.rebuild(path, new, deadline(path))
    with pytest.raises(IntegrityError, match="is damaged"):  # though its rows are what they were
        upkeep.prove(path, content(path), deadline(path))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.db"]


def test_a_new_file_that_is_not_the_same_is_noticed(tmp_path: Path) -> None:
    path, new = make(tmp_path / "a.db"), tmp_path / "new"
    before = upkeep.rebuild(path, new, deadline(path))
    con = sqlite3.connect(new)
    con.execute("UPDATE words SET n = n + 1 WHERE n = 17")
    con.commit()
    con.close()
    with pytest.raises(IntegrityError, match="is not the same: table words"):
        upkeep.prove(new, before, deadline(new))
    con = sqlite3.connect(new)
    con.execute("UPDATE words SET n = n - 1 WHERE n = 18 AND word = 'word 17'")
    con.execute("PRAGMA user_version = 8")
    con.commit()
    con.close()
    with pytest.raises(IntegrityError, match="is not the same: user_version"):
        upkeep.prove(new, before, deadline(new))


def test_a_database_with_two_names_is_not_replaced(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db")
    os.link(path, tmp_path / "b.db")
    with pytest.raises(PreconditionError, match="2 names"):
        upkeep.rebuild(path, tmp_path / "new", deadline(path))
    assert sorted(os.listdir(tmp_path)) == ["a.db", "b.db"]


def test_a_new_file_takes_the_place_and_the_old_one_can_come_back(tmp_path: Path) -> None:
    path, new, before = make(tmp_path / "a.db"), tmp_path / "new", tmp_path / "before"
    old, old_bytes = content(path), path.read_bytes()
    upkeep.rebuild(path, new, deadline(path))
    states: list[bool] = []
    upkeep.put_in_place(path, new, before, lambda _step: states.append(path.samefile(before)))
    assert states == [True] and before.read_bytes() == old_bytes and not new.exists()
    assert path.stat().st_size < before.stat().st_size and content(path) == old
    Path(f"{path}-journal").write_bytes(b"left by something")
    upkeep.put_back(path, before)
    assert path.read_bytes() == old_bytes and os.listdir(tmp_path) == ["a.db"]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_what_a_crash_left_beside_it_becomes_part_of_it(tmp_path: Path, mode: str) -> None:
    path = make(tmp_path / "a.db", mode=mode)
    code = (
        "import os, sqlite3, sys\n"
        "con = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "con.execute('PRAGMA wal_autocheckpoint=0')\n"
        "con.execute('INSERT INTO words VALUES (?, 1)', ('committed',))\n"
        "con.execute('PRAGMA cache_size=1')\n"
        "con.execute('BEGIN')\n"
        "con.execute('UPDATE keyed SET note = hex(randomblob(200))')\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)
    assert len(os.listdir(tmp_path)) > 1
    upkeep.settle(path)
    assert os.listdir(tmp_path) == ["a.db"]
    con = sqlite3.connect(path)
    assert con.execute("SELECT count(*) FROM words WHERE word = 'committed'").fetchone() == (1,)
    assert con.execute("SELECT count(*) FROM keyed WHERE length(note) > 100").fetchone() == (0,)
    con.close()


def test_a_foreign_journal_is_not_rolled_back(tmp_path: Path) -> None:
    path, other = make(tmp_path / "a.db"), make(tmp_path / "b.db", page_size=512)
    code = (
        "import os, sqlite3, sys\n"
        "con = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "con.execute('PRAGMA cache_size=1')\n"
        "con.execute('BEGIN')\n"
        "con.execute('UPDATE keyed SET note = hex(randomblob(200))')\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(other)], check=True, timeout=60)
    Path(f"{other}-journal").rename(f"{path}-journal")
    before = path.read_bytes()
    with pytest.raises(PreconditionError, match="does not belong to it"):
        upkeep.settle(path)
    assert path.read_bytes() == before


def never() -> None:
    raise AssertionError("it was proven")


def test_in_place_under_one_lock(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db")
    before, inode = content(path), path.stat().st_ino
    steps: list[str] = []
    done = upkeep.vacuum_waiting(
        path, tmp_path / "pre", limit_s=30, busy_timeout_s=1, not_proven=never, tell=steps.append
    )
    assert steps == ["locked", "preimage", "vacuumed", "proven", "dropped"] and done["held_s"] > 0
    assert content(path) == before and path.stat().st_ino == inode
    assert measure(path).freelist_count == 0 and os.listdir(tmp_path) == ["a.db"]


def others_can(path: Path, sql: str) -> bool:
    code = (
        "import sqlite3, sys\n"
        "sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute(sys.argv[2]).fetchall()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), sql], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0 or b"database is locked" in done.stderr
    return done.returncode == 0


def test_nobody_writes_between_the_preimage_and_the_proof(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db")
    could: dict[str, bool] = {}
    upkeep.vacuum_waiting(
        path,
        tmp_path / "pre",
        limit_s=30,
        busy_timeout_s=1,
        not_proven=never,
        tell=lambda step: could.update({step: others_can(path, "DELETE FROM bloat")}),
    )
    assert could == {"locked": False, "preimage": False, "vacuumed": False, "proven": False, "dropped": True}


def test_d46_what_is_not_the_same_is_put_back_while_nobody_has_it_open(tmp_path: Path) -> None:
    path, pre = make(tmp_path / "a.db"), tmp_path / "pre"
    before = content(path)
    asked: list[bool] = []
    # The disk changes a byte of a row. In another process, because closing a descriptor here would drop the locks.
    code = (
        "import sys\n"
        "with open(sys.argv[1], 'r+b') as stream:\n"
        "    data = stream.read()\n"
        "    stream.seek(data.find(b'word 17'))\n"
        "    stream.write(b'lord')\n"
    )

    def tell(step: str) -> None:
        if step == "vacuumed":
            subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)

    with pytest.raises(IntegrityError, match="was not the same after VACUUM: table words"):
        upkeep.vacuum_waiting(
            path,
            pre,
            limit_s=30,
            busy_timeout_s=1,
            not_proven=lambda: asked.append(others_can(path, "DELETE FROM bloat")),
            tell=tell,
        )
    assert asked == [False]  # whoever would have written has waited until the service was stopped
    assert content(path) == before and os.listdir(tmp_path) == ["a.db"]


def test_d45_a_vacuum_that_takes_too_long_is_undone(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db")
    before = path.read_bytes()
    with pytest.raises(TimeoutExceeded, match="would keep writers waiting for more than"):
        upkeep.vacuum_waiting(path, tmp_path / "pre", limit_s=0.0001, busy_timeout_s=1, not_proven=never)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.db"]


def test_in_wal_mode_it_is_not_written_anew_in_place(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", mode="wal")
    with pytest.raises(PreconditionError, match="WAL mode"):
        upkeep.vacuum_waiting(path, tmp_path / "pre", limit_s=30, busy_timeout_s=0.1, not_proven=never)
    assert not (tmp_path / "pre").exists()


@pytest.mark.parametrize("step_pages", [9, 100_000])
def test_free_pages_are_given_back_in_steps(tmp_path: Path, step_pages: int) -> None:
    path = make(tmp_path / "a.db", auto_vacuum="incremental")
    before, free = content(path), measure(path).freelist_count
    limits = dataclasses.replace(LIMITS, step_pages=step_pages)
    done = upkeep.give_back(path, limits, deadline(path), busy_timeout_s=1)
    assert done["pages"] == free > 100 and done["steps"] >= free / step_pages
    assert measure(path).freelist_count == 0 and content(path) == before


def test_giving_back_ends_with_its_time(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", auto_vacuum="incremental")
    limits = dataclasses.replace(LIMITS, step_pages=1, pause_s=0.05)
    done = upkeep.give_back(path, limits, deadline(path, 0.12), busy_timeout_s=1)
    assert 0 < done["pages"] < measure(path).freelist_count + done["pages"]


def test_statistics_are_made_once(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db")
    assert upkeep.statistics(path) is None
    due, _left = upkeep.decide(measure(path), None, LIMITS, Memory(), None)
    [found] = [item for item in due if item.kind == "analyze"]
    assert set(found.tables) == {"keyed", "no key; ", "owned", "words"}
    before = content(path)
    upkeep.analyze(path, (*found.tables, "gone meanwhile"), LIMITS, busy_timeout_s=1)
    assert content(path).digests == before.digests
    due, _left = upkeep.decide(measure(path), upkeep.statistics(path), LIMITS, Memory(), None)
    assert [item for item in due if item.kind == "analyze"] == []


def test_a_view_no_table_and_no_database(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("empty", "missing"):
        with pytest.raises(InputError, match=name):
            upkeep.rebuild(tmp_path / name, tmp_path / "new", deadline(tmp_path))
    path = tmp_path / "a.db"
    con = sqlite3.connect(path)
    con.execute("CREATE VIEW v AS SELECT 1")
    con.close()
    with pytest.raises(IntegrityError, match="there is no table in it"):
        upkeep.rebuild(path, tmp_path / "new", deadline(path))
    assert not (tmp_path / "new").exists()
