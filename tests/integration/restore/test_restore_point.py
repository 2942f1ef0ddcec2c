# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore has moved aside goes back as safely as a generation comes."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.backup import restore
from fluxmaint.backup.restore_plan import Request
from fluxmaint.backup.restore_point import PointSource
from fluxmaint.core.clock import Clock
from fluxmaint.core.errors import InputError, IntegrityError
from fluxmaint.service.restore_job import Job
from restore_world import World

NewWorld = Callable[..., World]


def rows(world: World, table: str = "origin") -> list[Any]:
    with sqlite3.connect(world.config.databases[0].path) as connection:
        return connection.execute(f"SELECT * FROM {table}").fetchall()


def replaced(world: World) -> tuple[dict[str, Any], Path]:
    """Restore the generation; returns the result and the restore point."""
    assert world.state() == "old"
    result = world.run(Request())
    assert world.state() == "new"
    return result, Path(result["restore_point"])


def put_back(world: World, point: Path, **options: Any) -> dict[str, Any]:
    request = Request(f"point-{point.name}", **options)
    return world.run(request, source=Job(request).source(world.config, Clock()))


def test_the_service_runs_on_its_own_data_again(new_world: NewWorld) -> None:
    world = new_world()
    _result, point = replaced(world)
    kept = [path.name for path in point.iterdir()]
    result = put_back(world, point)
    assert (result["result"], result["digests_equal"]) == ("restored", True)
    assert world.state() == "old" and world.service.active()
    assert result["generation_id"] == f"point-{point.name}"
    assert [path.name for path in point.iterdir()] == kept, "it is only read"
    assert Path(result["restore_point"]).is_dir(), "and what was restored is kept in its turn"


def test_after_a_test_nothing_of_the_other_host_stays(new_world: NewWorld) -> None:
    world = new_world()
    _result, point = replaced(world)
    result = put_back(world, point, discard_replaced=True)
    assert world.state() == "old"
    assert result["restore_point"] == ""
    points = world.config.state_dir / "restore-points"
    assert list(points.iterdir()) == []
    assert not list(world.root.rglob(".fluxmaint-*"))
    assert not list(world.config.state_dir.glob("staged/*"))


def test_what_lies_beside_the_database_is_not_lost(new_world: NewWorld) -> None:
    """A service that was killed leaves its last transactions in the -wal, or an unfinished one in the -journal."""
    world = new_world()
    _result, point = replaced(world)
    [kept] = [path for path in point.iterdir() if path.name.endswith(".db")]
    scratch = point.parent / "scratch.db"
    for path in point.glob(f"{kept.name}*"):  # the writer was ended by a signal, perhaps inside a transaction
        shutil.move(path, scratch.with_name(scratch.name + path.name[len(kept.name) :]))
    connection = sqlite3.connect(scratch)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE late(n)")
    connection.execute("INSERT INTO late VALUES (42)")
    connection.commit()
    shutil.copyfile(scratch, kept)
    shutil.copyfile(f"{scratch}-wal", f"{kept}-wal")
    connection.close()
    index = json.loads((point / "restore-point.json").read_text())
    index["files"] = [item for item in index["files"] if item["kept"] == str(kept)]
    (point / "restore-point.json").write_text(json.dumps(index))
    before = kept.read_bytes()
    put_back(world, point)
    assert rows(world, "late") == [(42,)]
    assert kept.read_bytes() == before
    assert not list(world.config.state_dir.glob("settled-*"))


def test_a_point_that_is_not_there_or_not_whole_costs_no_downtime(new_world: NewWorld) -> None:
    world = new_world()
    _result, point = replaced(world)
    for name in ("nothing", "../restore-points", ""):
        with pytest.raises(InputError, match=point.name):
            PointSource(world.config).contents(Request(f"point-{name}"))
    [kept] = [path for path in point.iterdir() if path.name.endswith(".db")]
    kept.unlink()
    with pytest.raises(IntegrityError, match=r"not in the restore point any more"):
        put_back(world, point)
    assert world.state() == "new" and world.service.active()


def test_a_preview_changes_nothing(new_world: NewWorld) -> None:
    world = new_world()
    _result, point = replaced(world)
    request = Request(f"point-{point.name}")
    plan = restore.preview(world.config, request, source=PointSource(world.config))
    assert [file["action"] for file in plan["files"]] == ["replace"]
    assert world.state() == "new"
