# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables as nobody would make them, with times of every kind: what is old leaves, nothing else, and nothing is lost."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import deadly
import pytest
from archive_world import NOW, Fixed, World
from fluxmaint.core.errors import InputError
from fluxmaint.sqlite import archive_delete, archive_query
from fluxmaint.sqlite.fingerprint import quoted
from fluxmaint.sqlite.row_time import month_of, read_time

LOT = random.SystemRandom()
CUTOFF = NOW - timedelta(days=90)

# Definition, key columns, name of the time's column; the time's own kind is the column's affinity.
TABLES: dict[str, tuple[str, list[str], str]] = {
    "trädes \"of\" 'all' kinds": (
        '("ключ" TEXT COLLATE NOCASE, "part 2" BLOB, "zeit;--" , v, PRIMARY KEY("ключ", "part 2")) WITHOUT ROWID',
        ["ключ", "part 2"],
        "zeit;--",
    ),
    "composite": ("(a REAL, b TEXT, at NUMERIC, v, PRIMARY KEY(b DESC, a))", ["b", "a"], "at"),
    "chosen": ("(id INTEGER PRIMARY KEY DESC, at TEXT, v)", ["id"], "at"),
    "old": ("(id ANY PRIMARY KEY, at ANY, v ANY) STRICT", ["id"], "at"),
    "archive": (
        "(id INT PRIMARY KEY, at REAL, v, twice AS (id * 2) STORED, CHECK (v IS NOT 'x'), UNIQUE (at, id, v))",
        ["id"],
        "at",
    ),
    "main": ("(ref, part, rowid TEXT, at, v)", ["ref", "part"], "at"),
    "time": ("(time PRIMARY KEY, v) WITHOUT ROWID", ["time"], "time"),
}


def times() -> list[Any]:
    """Old and young times in every form, and what is none."""
    found: list[Any] = [None, "", "never", b"2026-06-01", "2026-02-30", 12, 0.5, float("inf"), "NULL", "2461000.5"]
    for days in (400, 200, 150, 93, 89, 30, 1):
        moment = NOW - timedelta(days=days, hours=1)
        seconds = moment.timestamp()
        found += [moment.isoformat(), moment.strftime("%Y-%m-%d %H:%M:%S"), moment.strftime("%Y-%m-%d")]
        found += [seconds + 0.25, int(seconds), int(seconds * 1000), str(int(seconds)), f" {int(seconds)}.5 "]
        found += [(moment + timedelta(hours=5)).strftime("%Y-%m-%dT%H:%M:%S+05:00")]
    return found


def filled(directory: Path, name: str, mode: str) -> World:
    definition, key, time = TABLES[name]
    indexes = (
        f"CREATE INDEX \"ïndex of {name.replace(chr(34), '')}\" ON {quoted(name)}(v COLLATE NOCASE) WHERE v > 'a';"
    )
    world = World(directory, f"CREATE TABLE {quoted(name)}{definition};{indexes}", mode=mode)
    others = [column for column in key if column != time]
    names = [*others, time, "v"] if others or time not in key else [time, "v"]
    with world.live() as con:
        for number, at in enumerate(times()):
            if at is None and time in key:
                continue
            keys = [(number, f"ключ {number}", bytes([number]), number + 0.5)[number % 4] for _column in others]
            if name in ("chosen", "archive"):
                keys = [number]
            values = [*keys, at, LOT.choice(["", "B", None, 7, b"\x00\xff", 1e300, "\x00after"])]
            marks = ", ".join("?" * len(values))
            con.execute(
                f"INSERT OR IGNORE INTO {quoted(name)}({', '.join(map(quoted, names))}) VALUES ({marks})", values
            )
    columns = ", ".join(f"q.{quoted(column)}" for column in key if column != time)
    query = f"SELECT {columns}{', ' if columns else ''}q.{quoted(time)} AS time FROM {quoted(name)} AS q"
    world.tables = [{"name": "odd", "database": "trades", "table": name, "query": query, "key": key}]
    return world


def exact(name: str) -> str:
    """Columns with their kinds, to compare without any conversion."""
    shown = ["v", *TABLES[name][1], TABLES[name][2]]
    return ", ".join(f"typeof({quoted(column)}), hex({quoted(column)}), quote({quoted(column)})" for column in shown)


def everything(world: World, name: str) -> tuple[list[Any], list[Any]]:
    table = name.replace('"', '""')
    return sorted(world.lives(table, exact(name))), sorted(world.archived(table, exact(name)))


def require(world: World, name: str, before: list[Any]) -> None:
    """Each row is somewhere, exactly as it was, and no archive has it twice."""
    live, archived = everything(world, name)
    assert len(set(archived)) == len(archived)
    assert sorted(set(live) | set(archived)) == before


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("name", TABLES)
def test_what_is_old_leaves_and_nothing_else(
    tmp_path: Path, name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_delete, "_FIRST_BATCH", 3)
    monkeypatch.setattr(archive_delete, "_LARGEST_BATCH", 5)
    monkeypatch.setattr(archive_delete, "_STEPS_BETWEEN_LOOKS", 20)
    world = filled(tmp_path, name, mode)
    before, _none = everything(world, name)
    assert len(before) > 50
    table, time = name.replace('"', '""'), quoted(TABLES[name][2])
    for _kill in range(4):
        assert deadly.run(world, delete=True, event=LOT.randrange(1, 150)) in (deadly.KILLED, 0)
        require(world, name, before)
    result = world.archive(delete=True)
    require(world, name, before)
    live, archived = everything(world, name)
    assert len(live) + len(archived) == len(before), "no row is in both"
    assert {row["month"] for row in result["tables"][0]["months"]} <= {
        path.stem[-6:] for path in world.files().values()
    }
    for (at,) in world.lives(table, time):
        moment = read_time(at)
        assert moment is None or moment >= CUTOFF, f"{at!r} is old"
    for file, path in world.files().items():
        for (at,) in world_rows(path, table, time):
            moment = read_time(at)
            assert moment is not None and moment < CUTOFF and file == f"odd_archive_{month_of(moment)}.db"
    again = world.archive(delete=True)
    assert (again["changed"], again["notes"]) == (False, [])
    answer = archive_query.query(world.config, f"SELECT {exact(name)} FROM {quoted(name)}", clock=Fixed())
    assert sorted(answer.rows) == before and (answer.reused, answer.changed) == (0, 0)
    assert world.run_sql("PRAGMA integrity_check") == [("ok",)]


def world_rows(path: Path, table: str, columns: str) -> list[tuple[Any, ...]]:
    import archive_world

    return archive_world.rows_of(path, table, columns)


def test_a_table_with_the_name_of_the_archives_own_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path, "CREATE TABLE fluxmaint_archive(id INTEGER PRIMARY KEY, at TEXT);")
    query = "SELECT id, at AS time FROM fluxmaint_archive"
    world.tables = [{"name": "odd", "database": "trades", "table": "fluxmaint_archive", "query": query}]
    world.run_sql("INSERT INTO fluxmaint_archive(at) VALUES ('2026-01-01'), ('2026-11-22')")
    with pytest.raises(InputError, match="fluxmaint_archive"):
        world.archive(delete=True)
    assert world.files() == {} and len(world.lives("fluxmaint_archive")) == 2
