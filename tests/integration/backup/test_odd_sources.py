"""Databases among logs, directories that cannot be read, places that are one: nothing is lost or held twice unsaid."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.backup import extract, generation
from fluxmaint.backup.fetch import open_generation
from fluxmaint.core.errors import ConfigError, EngineError, InputError
from fluxmaint.core.journal import Journal

from tests.support.world import CANARY, World


def move_database(world: World, place: str) -> sqlite3.Connection:
    """Into another directory, in WAL mode and open, so that it has side files there."""
    path = world.root / place
    shutil.move(world.database, path)
    world.document["databases"][0]["path"] = str(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("INSERT INTO trades(symbol) VALUES ('QQQ')")
    connection.commit()
    assert path.with_name(path.name + "-wal").stat().st_size > 0
    return connection


def held(world: World) -> dict[str, list[str]]:
    """The parts of the newest generation that hold each path."""
    found: dict[str, list[str]] = {}
    for item in extract.listing(opened(world)):
        found.setdefault(item["path"], []).append(item["part"])
    return found


def opened(world: World) -> Any:
    reading = {key: value for key, value in world.reading().items() if key != "identity_file"}
    return open_generation(world.open(), "fluxhero", "production", "latest", **reading)


@pytest.mark.parametrize("place", ["logs/old/trades.db", "data/cache/trades.db", "releases/r1/trades.db"])
def test_databases_and_configuration_are_left_out_of_what_they_lie_among(world: World, place: str) -> None:
    world.document["cache"]["patterns"] = ["*"]
    beside = (world.root / place).with_name("settings.conf")
    beside.write_text("a=b\n")
    # The walks and the configuration may name the same directory by different paths.
    (world.top / "alias").symlink_to(beside.parent)
    (world.top / "logs").symlink_to(world.root / "logs")
    world.document["logs"]["directory"] = str(world.top / "logs")
    world.document["config_files"].append(str(world.top / "alias/settings.conf"))
    with move_database(world, place) as connection:
        assert world.create("full")["result"] == "ok"
    connection.close()
    parts = held(world)
    assert parts[str(world.root / place)] == ["db-trades"]
    assert [path for path in parts if path.endswith("settings.conf")] == [str(world.top / "alias/settings.conf")]
    assert [path for path in parts if "trades.db" in path] == [str(world.root / place)]
    assert str(world.top / "logs/fluxhero.log") in parts
    assert all(len(names) == 1 for names in parts.values())


@pytest.mark.parametrize(("logs", "cache"), [("data/cache/logs", "data/cache"), ("logs", "logs/cache")])
def test_logs_among_cache_files_are_held_once_and_so_are_cache_files_among_logs(
    world: World, logs: str, cache: str
) -> None:
    world.document["logs"]["directory"] = str(world.root / logs)
    world.document["cache"].update(directory=str(world.root / cache), patterns=["*"])
    names = {world.root / logs / "a.log": "logs", world.root / cache / "b.parquet": "cache"}
    for path in names:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert world.create("full")["result"] == "ok"
    parts = held(world)
    assert {path: parts[str(path)] for path in names} == {path: [part] for path, part in names.items()}
    assert all(len(found) == 1 for found in parts.values())


@pytest.mark.parametrize("alias", [False, True])
def test_files_in_a_cache_among_logs_that_are_no_cache_files_are_logs(world: World, alias: bool) -> None:
    """What no pattern of the cache means and nothing else holds is in the logs' directory, so it is of the logs."""
    cache = world.root / "logs/cache"
    cache.mkdir()
    move_database(world, "logs/cache/trades.db").close()
    for name in ("bars.parquet", "sub.parquet", "fetch.log", "note.txt", "old.log", "settings.conf"):
        (cache / name).write_text("x")
    (cache / "deep").mkdir()
    (cache / "deep/other.log").write_text("x")
    os.utime(cache / "old.log", (1e9, 1e9))
    world.document["config_files"].append(str(cache / "settings.conf"))
    if alias:
        (world.top / "shelf").symlink_to(cache)
    seen = world.top / "shelf" if alias else cache
    world.document["cache"].update(directory=str(seen), patterns=["*.parquet"])
    assert world.create("full")["result"] == "ok"
    parts = held(world)
    inside = {Path(path).name: parts[path] for path in parts if path.startswith((f"{cache}/", f"{seen}/"))}
    names = {"bars.parquet": "cache", "sub.parquet": "cache", "trades.db": "db-trades", "settings.conf": "config"}
    names.update({"fetch.log": "logs", "note.txt": "logs", "other.log": "logs"})
    assert inside == {name: [part] for name, part in names.items()}


def test_a_path_that_older_generations_hold_twice_is_not_extracted_over_itself(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "elsewhere", lambda config: frozenset())  # as older versions made them
    move_database(world, "logs/trades.db").close()
    config = world.config()
    world.create()
    path = str(world.root / "logs/trades.db")
    assert held(world)[path] == ["db-trades", "logs"]
    options: dict[str, Any] = {
        "identity_file": world.keys / "operator.key",
        "journal": Journal(config.journal_file),
    }
    for pattern in (path, "*"):
        with pytest.raises(InputError, match="several parts hold this file: db-trades, logs") as caught:
            extract.extract(opened(world), pattern, tmp_path / "out", **options)
        assert "--part" in caught.value.remedy
    assert not (tmp_path / "out").exists()
    [item] = extract.extract(opened(world), path, tmp_path / "out", part="db-trades", **options)
    assert sqlite3.connect(item["file"]).execute("SELECT count(*) FROM trades").fetchone() == (201,)


def test_what_lies_behind_a_directory_that_cannot_be_read_is_backed_up_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not by permissions, which bind everybody but root, and tests may be run by root.
    refused = [str(world.root / "logs/old"), str(world.root / "data/cache/closed")]
    (world.root / "data/cache/closed").mkdir()
    for file in ("logs/zz/last.log", "data/cache/zz/last.parquet"):
        (world.root / file).parent.mkdir()
        (world.root / file).write_text("last\n")
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if str(path) in refused:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    result = world.create()
    assert result["result"] == "degraded"
    assert result["problems"] == [f"{path}: cannot be read: Permission denied" for path in refused]
    parts = held(world)
    for file in ("logs/zz/last.log", "data/cache/zz/last.parquet", "logs/fluxhero.log", "data/cache/spy.parquet"):
        assert str(world.root / file) in parts
    assert opened(world).manifest.problems == result["problems"]
    # The release is not made again: it is taken whole, or not at all.
    refused.append(str(world.root / "releases/r1/fluxhero"))
    with pytest.raises(InputError, match="releases/r1/fluxhero: cannot be read"):
        world.create("full")


def test_places_that_are_one_are_refused_before_anything_is_done(world: World) -> None:
    data = world.root / "data"
    data.chmod(0o755)
    for change, said in (
        ({"staging_dir": str(data)}, "contains database trades"),
        ({"targets": [world.target(), world.target("again")]}, "target again"),
    ):
        config = world.config(**change)
        with pytest.raises(ConfigError, match=said):
            generation.plan(config, "daily")
        with pytest.raises(ConfigError, match=said):
            world.create(**change)
    assert data.stat().st_mode & 0o777 == 0o755
    assert not list(world.store.glob("fluxhero"))


@pytest.mark.parametrize("seconds", [3.2e11, -7e10])
def test_a_file_from_a_year_that_no_calendar_has_is_backed_up(world: World, seconds: float) -> None:
    # Where the file system cannot hold such a time, its nearest is taken: then this shows less.
    for file in (world.root / "logs/fluxhero.log", world.root / ".env", world.root / "data/cache/spy.parquet"):
        os.utime(file, (seconds, seconds))
    assert world.create()["result"] == "ok"
    assert held(world)[str(world.root / ".env")] == ["config"]


def undecodable(world: World) -> None:
    with sqlite3.connect(world.database) as connection:
        connection.execute("CREATE TABLE keys(k)")
        connection.execute("INSERT INTO keys VALUES (CAST(? AS TEXT))", (CANARY.encode() + b"\xff",))
    world.document["databases"][0]["queries"] = {"newest": "SELECT k FROM keys"}


def needy(world: World) -> None:
    with sqlite3.connect(world.database) as connection:
        connection.create_collation("mycoll", lambda one, other: (one > other) - (one < other))
        connection.executescript(
            "CREATE TABLE t(a TEXT COLLATE mycoll); CREATE INDEX i ON t(a); INSERT INTO t VALUES(1)"
        )


@pytest.mark.parametrize(("change", "said"), [(undecodable, "column 'k' holds text that is not"), (needy, "mycoll")])
def test_an_error_of_sqlite_names_the_database_and_nothing_that_stands_in_it(
    world: World, change: Callable[[World], None], said: str
) -> None:
    change(world)
    with pytest.raises(EngineError, match=said) as caught:
        world.create()
    assert caught.value.subject == str(world.database)
    assert CANARY not in str(caught.value) + (world.top / "state/journal.jsonl").read_text()
    assert not list((world.top / "state/staging").iterdir())
