# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A damaged database beside a real, proven generation: candidates, the report, and the way into place."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.backup import salvage
from fluxmaint.backup.restore_plan import Request
from fluxmaint.cli.main import main
from fluxmaint.core.clock import Clock
from fluxmaint.core.errors import InputError, IntegrityError, PreconditionError, StoreError, TimeoutExceeded
from fluxmaint.core.fsio import sha256_file
from fluxmaint.core.journal import Journal
from fluxmaint.service import restore_job
from fluxmaint.sqlite import kept_set, recover
from fluxmaint.sqlite.connect import Deadline

from tests.support import world as backup_world

pytestmark = pytest.mark.skipif(not (shutil.which("age") and shutil.which("zstd")), reason="age and zstd are needed")
PAGE = 4096


@contextlib.contextmanager
def changing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose changes are committed at the end."""
    con = sqlite3.connect(path)
    try:
        with con:
            yield con
    finally:
        con.close()


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service with a proven generation of 400 trades, and 25 more trades since."""
    made = backup_world.build(tmp_path_factory.mktemp("proven") / "host", rows=400)
    made.document["units"] = []
    made.create()
    made.prove()
    made.rows(25)
    with changing(made.database) as con:
        con.execute("UPDATE positions SET status = 'closed' WHERE id = 3")
    return made.top


@pytest.fixture
def world(proven: Path, tmp_path: Path) -> backup_world.World:
    """The same service in a directory of its own."""
    top = tmp_path / "host"
    shutil.copytree(proven, top, symlinks=True)
    found = backup_world.World(top)
    found.document = json.loads((proven / "config.json").read_text().replace(str(proven), str(top)))
    return found


def leaves(world: backup_world.World, table: str) -> list[int]:
    """The leaf pages of a table, in order."""
    with contextlib.closing(sqlite3.connect(world.database)) as con:
        root = con.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    data = world.database.read_bytes()
    page = data[(root - 1) * PAGE : root * PAGE]
    assert page[0] == 5
    count = int.from_bytes(page[3:5], "big")
    places = [int.from_bytes(page[12 + 2 * n : 14 + 2 * n], "big") for n in range(count)]
    return [int.from_bytes(page[at : at + 4], "big") for at in places] + [int.from_bytes(page[8:12], "big")]


def destroy(world: backup_world.World, page: int) -> None:
    with open(world.database, "r+b") as stream:
        stream.seek((page - 1) * PAGE)
        stream.write(bytes(PAGE))


def run(world: backup_world.World, to: str = "salvage", **options: Any) -> dict[str, Any]:
    config = world.config()
    options.setdefault("identity_file", world.keys / "operator.key")
    request = salvage.Request(database="trades", to=world.top / to, **options)
    return salvage.run(config, request, journal=Journal(config.journal_file))


def counts(report: dict[str, Any], candidate: str, table: str) -> dict[str, int]:
    found: dict[str, int] = report["candidates"][candidate]["tables"][table]
    return found


def state_of(database: Path) -> dict[str, tuple[str, int, int]]:
    return {
        path.name: (sha256_file(path), path.stat().st_ino, path.stat().st_mtime_ns)
        for path in kept_set.members(database)
    }


def test_a_lost_leaf_is_told_row_by_row_and_the_original_is_never_touched(world: backup_world.World) -> None:
    destroy(world, leaves(world, "trades")[1])
    before = state_of(world.database)
    report = run(world)
    assert state_of(world.database) == before
    assert {path.name for path in world.database.parent.glob("trades.db*")} == {"trades.db"}
    assert report["untouched"] and report["result"] == "salvaged"
    [kept] = report["set"]
    copy = world.top / "salvage" / "corrupt" / "trades.db"
    assert kept["sha256"] == sha256_file(copy) == before["trades.db"][0]
    rows = counts(report, "rows", "trades")
    assert rows["in_generation"] == 400
    assert 50 < rows["lost"] < 200
    assert rows["saved"] == 400 - rows["lost"] and rows["doubtful"] == 0 and rows["newer"] == 25
    told = {"rows": 425, "in_generation": 400, "saved": 399, "lost": 0, "doubtful": 1, "newer": 25}
    assert counts(report, "rows", "positions") == told
    # Positions refer to trades that are lost: nothing that a service should run on.
    assert not report["candidates"]["rows"]["usable"]
    assert "foreign key" in report["candidates"]["rows"]["problems"][0]
    assert counts(report, "merged", "trades")["rows"] == 425
    assert report["candidates"]["merged"]["added"] == {"trades": 25, "positions": 25}
    assert report["recommended"] == "merged"
    text = (world.top / "salvage" / "report.txt").read_text()
    assert "recommended: merged" in text and "proven" in text
    assert json.loads((world.top / "salvage" / "report.json").read_text())["id"] == report["id"]
    [_start, end] = Journal(world.config().journal_file).read("salvage")
    assert end["result"] == "ok" and end["set"][0]["sha256"] == kept["sha256"]
    assert not (world.top / "salvage" / "work").exists()
    assert (world.top / "salvage").stat().st_mode & 0o777 == 0o700


def test_merged_comes_into_place_and_what_was_damaged_is_the_restore_point(world: backup_world.World) -> None:
    destroy(world, leaves(world, "trades")[1])
    damaged = sha256_file(world.database)
    report = run(world)
    config = world.config()
    job = restore_job.Job(Request(generation=f"salvage-{report['id']}.merged", databases=["trades"]))
    assert restore_job.preview(config, job)["files"][0]["action"] == "replace"
    placed = restore_job.execute(config, job)
    assert placed["result"] == "restored" and placed["digests_equal"]
    assert sha256_file(world.database) == report["candidates"]["merged"]["sha256"]
    [kept] = list(Path(placed["restore_point"]).glob("0-trades.db"))
    assert sha256_file(kept) == damaged
    assert Path(placed["halt_file"]).exists()
    with contextlib.closing(sqlite3.connect(world.database)) as con:
        assert con.execute("SELECT count(*), max(id) FROM trades").fetchone() == (425, 425)
        assert con.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    # And back again, as after any restore.
    back = restore_job.execute(
        config, restore_job.Job(Request(generation=f"point-{placed['id']}", databases=["trades"]))
    )
    assert back["result"] == "restored" and sha256_file(world.database) == damaged


def test_what_was_written_after_the_salvage_is_not_thrown_away_unnoticed(world: backup_world.World) -> None:
    report = run(world)
    assert report["recommended"] == "rows"  # nothing of its rows is damaged
    world.rows(1)
    config = world.config()
    refused = restore_job.Job(Request(generation=f"salvage-{report['id']}.rows", databases=["trades"]))
    with pytest.raises(PreconditionError, match="was written after salvage"):
        restore_job.execute(config, refused)
    allowed = restore_job.Job(Request(generation=f"salvage-{report['id']}.generation", databases=["trades"]))
    assert restore_job.execute(config, allowed)["result"] == "restored"


def test_only_what_was_shown_and_is_usable_comes_into_place(world: backup_world.World) -> None:
    destroy(world, leaves(world, "trades")[1])
    report = run(world)
    config = world.config()

    def place(name: str) -> None:
        restore_job.execute(config, restore_job.Job(Request(generation=name, databases=["trades"])))

    before = state_of(world.database)
    with pytest.raises(InputError, match="not usable: foreign key"):
        place(f"salvage-{report['id']}.rows")
    with pytest.raises(InputError, match="there is no salvage"):
        place("salvage-20200101T000000Z-000000.rows")
    with pytest.raises(InputError, match="there is no salvage"):
        place("salvage-../../report.rows")
    with changing(report["candidates"]["merged"]["file"]) as con:
        con.execute("DELETE FROM positions")
    with pytest.raises(IntegrityError, match="is not the file that the salvage has made"):
        place(f"salvage-{report['id']}.merged")
    assert state_of(world.database) == before


def test_a_finished_salvage_comes_back_and_any_other_directory_is_refused(world: backup_world.World) -> None:
    [first, second, *_more] = leaves(world, "trades")
    destroy(world, first)
    report = run(world)
    made = {path: path.stat().st_mtime_ns for path in (world.top / "salvage").rglob("*")}
    again = run(world)
    assert (again["id"], again["changed"], again["result"]) == (report["id"], False, "unchanged")
    assert {path: path.stat().st_mtime_ns for path in (world.top / "salvage").rglob("*")} == made
    destroy(world, second)
    with pytest.raises(PreconditionError, match="is not a new or empty directory"):
        run(world)
    assert {path: path.stat().st_mtime_ns for path in (world.top / "salvage").rglob("*")} == made


def test_without_an_identity_rows_are_compared_with_the_manifest(world: backup_world.World) -> None:
    destroy(world, leaves(world, "trades")[0])
    report = run(world, identity_file=None)
    assert report["generation"]["id"] and "no identity" in report["generation"]["reason"]
    for name in ("generation", "merged"):
        assert not report["candidates"][name]["available"] and "no identity" in report["candidates"][name]["reason"]
    found = counts(report, "rows", "trades")
    assert found["in_generation"] == 400 and found["newer"] is None
    # The index on trades is whole, and tells how many rows there were: more than the manifest knows.
    assert found["rows"] + found["lost"] == 425


def test_without_any_generation_what_the_pages_hold_is_told(world: backup_world.World) -> None:
    shutil.rmtree(world.store)
    world.store.mkdir()
    destroy(world, leaves(world, "positions")[0])
    report = run(world)
    assert report["generation"]["id"] == "" and report["generation"]["reason"]
    found = counts(report, "rows", "positions")
    assert 0 < found["rows"] < 425 and found["lost"] is None and found["in_generation"] is None
    assert report["candidates"]["rows"]["usable"] and report["recommended"] == "rows"
    with pytest.raises(StoreError):
        run(world, to="other", generation="20200101T000000Z-000000")


def test_a_generation_that_was_never_proven_says_so(world: backup_world.World) -> None:
    for proofs in world.store.rglob("proofs"):
        shutil.rmtree(proofs)
    report = run(world)
    assert report["generation"]["proven_by"] == []
    assert "NEVER proven" in salvage.table(report)


def test_a_wrong_identity_leaves_the_salvage_without_that_candidate(world: backup_world.World) -> None:
    report = run(world, identity_file=world.keys / "stranger.key")
    assert not report["candidates"]["generation"]["available"]
    assert "cannot be decrypted" in report["candidates"]["generation"]["reason"]
    assert counts(report, "rows", "trades")["rows"] == 425


def test_d49_recover_that_cannot_is_refused_and_never_an_empty_database(world: backup_world.World) -> None:
    """The guide's `.recover | sqlite3 trades.db` gives an empty database on Debian 12, with status 0."""
    destroy(world, leaves(world, "trades")[1])
    report = run(world)
    candidate = report["candidates"]["recover"]
    if not recover.refusal():
        assert candidate["usable"] or candidate["problems"]
        assert counts(report, "recover", "positions")["rows"] == 425
        return
    guide = world.top / "guide.db"
    piped = f"sqlite3 {world.top}/salvage/corrupt/trades.db .recover | sqlite3 {guide}"
    assert subprocess.run(["sh", "-c", piped], check=False, capture_output=True).returncode == 0
    with contextlib.closing(sqlite3.connect(guide)) as con:
        assert con.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    assert not candidate["available"]
    assert "lacks sqlite_dbpage" in candidate["reason"]
    assert not (world.top / "salvage" / "recover.db").exists()
    with pytest.raises(PreconditionError, match="would make an empty database and report success"):
        recover.recover(world.database, guide, deadline=Deadline(Clock(), 9, ""))


def test_there_must_be_room_and_time(world: backup_world.World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(salvage, "free_bytes", lambda _path: 1 << 20)
    with pytest.raises(PreconditionError, match="bytes are needed, 1048576 are free"):
        run(world)
    assert not (world.top / "salvage").exists()
    monkeypatch.undo()
    with pytest.raises(TimeoutExceeded):
        run(world, timeout_s=0.001)


@pytest.mark.parametrize("step", ["keep", "fetch", "settle", "rows", "recover", "merge"])
def test_sigkill_at_any_step_leaves_the_original_and_the_kept_set(world: backup_world.World, step: str) -> None:
    """The directory is refused afterwards; another one works."""
    destroy(world, leaves(world, "trades")[1])
    before = state_of(world.database)
    config = world.config()
    request = salvage.Request("trades", world.top / "salvage", world.keys / "operator.key")

    def kill_at(said: str, _facts: dict[str, Any]) -> None:
        if said == step:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            salvage.run(config, request, journal=Journal(config.journal_file), progress=kill_at)
        finally:
            os._exit(1)
    _pid, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert state_of(world.database) == before
    if step != "keep":
        assert sha256_file(world.top / "salvage" / "corrupt" / "trades.db") == before["trades.db"][0]
        with pytest.raises(PreconditionError, match="interrupted"):
            salvage.plan(config, request)
    assert run(world, to="second")["recommended"] == "merged"


def test_the_command_line_plans_salvages_and_says_how_to_go_on(
    world: backup_world.World, capsys: pytest.CaptureFixture[str]
) -> None:
    destroy(world, leaves(world, "trades")[1])
    world.config()
    common = ["salvage", "--config", str(world.config_file), "--database", "trades", "--to", str(world.top / "salvage")]
    identity = ["--identity", str(world.keys / "operator.key")]
    assert main([*common, *identity, "--dry-run"]) == 0
    assert "candidate merged: yes" in capsys.readouterr().out
    assert not (world.top / "salvage").exists()
    assert main([*common, *identity]) == 0
    said = capsys.readouterr().out
    assert "merged     usable" in said and "rows       NOT usable: foreign key" in said
    command = said.rpartition("into place: fluxmaint ")[2].split()
    assert main([*command, "--config", str(world.config_file)]) == 0
    assert "result: restored" in capsys.readouterr().out
    assert main(["salvage", "--config", str(world.config_file), "--database", "nothing", "--to", "/nonexistent"]) == 2
