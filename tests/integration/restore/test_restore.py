# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore does and refuses, with a real service; D14 to D20 are defects of the maintenance guide."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.backup.restore import ConsentNeeded, RestoreFailed
from fluxmaint.backup.restore_plan import Request
from fluxmaint.core.errors import InputError, IntegrityError, LeaseError, PreconditionError
from fluxmaint.core.lease import Lease
from restore_world import GENERATION, NEW_ENV, OLD_ENV, LocalSource, World, account, make_generation

NewWorld = Callable[..., World]
BOTH = Request(include=("databases", "config"), config_consent=True)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away and mount")


def untouched(world: World) -> None:
    """The service runs on its old data as if nothing had happened, and nothing is left lying around."""
    assert world.service.active() and not world.service.hold_file.exists()
    assert world.state() == "old"
    assert world.env.read_text() == OLD_ENV
    assert not list(world.root.rglob(".fluxmaint-*"))
    assert world.plan is None or not world.plan.open


def test_the_result_tells_what_was_done(new_world: NewWorld) -> None:
    world = new_world()
    result = world.run(BOTH)
    assert (result["result"], result["changed"], result["generation_id"]) == ("restored", True, GENERATION)
    assert result["digests_equal"] is True and result["content_digests_equal"] is True
    assert result["tables"]["trades"]["rows"] == {"filler": 500, "heartbeat": 3, "origin": 1, "trades": 0}
    assert [phase["name"] for phase in result["phases"]] == [
        *("stage", "stop", "set_aside", "place", "prove", "latch", "start", "healthy", "finish")
    ]
    assert result["previous"]["units"] == ["writer.service"]
    assert world.state() == "new" and world.env.read_text() == NEW_ENV
    ends = [entry for entry in world.journal.read("restore") if entry["event"] == "end"]
    assert [entry["result"] for entry in ends] == ["ok"]
    assert ends[0]["operation_id"] == result["id"]


def test_only_what_was_asked_for_is_restored(new_world: NewWorld) -> None:
    world = new_world()
    result = world.run(Request(include=("logs", "cache")))
    assert world.state() == "old" and world.env.read_text() == OLD_ENV
    assert (world.root / "logs" / "app.log").read_text() == "restored line\n"
    assert (world.root / "data" / "cache" / "candles.parquet").read_bytes() == b"PAR1"
    assert {file["part"] for file in result["files"]} == {"logs", "cache"}
    assert result["halt_file"] == "", "positions have not changed"


def test_the_same_again_changes_nothing(new_world: NewWorld) -> None:
    world = new_world()
    world.run(Request(include=("logs", "cache")))
    result = world.run(Request(include=("logs", "cache")))
    assert (result["result"], result["changed"]) == ("unchanged", False)
    assert world.service.active()


def test_what_was_fetched_once_needs_no_source(new_world: NewWorld) -> None:
    world = new_world()
    source = LocalSource(world)
    staged = world.run(Request(include=("databases", "config", "logs"), stage_only=True), source=source)
    assert staged["result"] == "staged" and len(source.fetched) == 3
    assert world.state() == "old"
    world.run(Request(GENERATION, include=("logs",), keep_stage=True), source=None)
    assert world.state() == "old"
    result = world.run(Request(GENERATION, include=("databases", "config"), config_consent=True), source=None)
    assert world.state() == "new" and result["fetched_bytes"] == 0
    assert not (world.config.state_dir / "staged" / GENERATION).exists()


def test_a_stage_that_was_changed_is_not_believed(new_world: NewWorld) -> None:
    world = new_world()
    world.run(Request(stage_only=True))
    database = next((world.config.state_dir / "staged").rglob("fetch-*/0"))
    with open(database, "r+b") as stream:
        stream.seek(5000)
        stream.write(b"\xff")
    with pytest.raises(InputError, match="have not been fetched"):
        world.run(Request(GENERATION), source=None)
    untouched(world)


def test_the_stage_is_private(new_world: NewWorld) -> None:
    world = new_world()
    world.run(Request(include=("config",), stage_only=True))
    stage = world.config.state_dir / "staged" / GENERATION
    assert stage.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in stage.rglob("*"))


def test_units_may_stay_stopped(new_world: NewWorld) -> None:
    world = new_world()
    result = world.run(Request(start_units=False))
    assert world.state() == "new" and not world.service.active()
    assert not world.service.hold_file.exists(), "the operator can start it"
    assert result["health"] is None and result["units"] == []


def test_identity_goes_when_it_is_not_needed(new_world: NewWorld) -> None:
    world = new_world()
    events: list[str] = []

    def progress(event: str, name: str) -> None:
        events.append(f"{event}:{name}")

    world.run(Request(), after_stage=lambda: events.append("identity removed"), progress=progress)
    assert events.index("identity removed") == events.index("recorded:stage") + 1
    assert events.count("identity removed") == 1


def test_identity_goes_when_the_restore_fails(new_world: NewWorld) -> None:
    world = new_world()
    removed: list[bool] = []
    with pytest.raises(InputError):
        world.run(Request(databases=("unknown",)), after_stage=lambda: removed.append(True))
    assert removed == [True]


def test_d14_a_failure_is_never_reported_as_complete(new_world: NewWorld) -> None:
    """The service does not come up with the new data: it gets its old data back, and the restore fails."""
    world = new_world(origin="bad")
    with pytest.raises(RestoreFailed) as caught:
        world.run(BOTH)
    untouched(world)
    facts = caught.value.facts
    assert facts["rolled_back"] is True and facts["old_healthy"] is True
    assert "not healthy" in facts["cause"]["message"] and "as it was before" in str(caught.value)
    assert world.journal.read("restore")[-1]["result"] == "failed"
    rejected = Path(facts["restore_point"]) / "rejected"
    assert {path.name for path in rejected.iterdir()} >= {"0-trades.db", "1-.env"}, "it may hold new transactions"


def test_d15_what_is_replaced_is_kept(new_world: NewWorld) -> None:
    world = new_world(journal_mode="wal")
    result = world.run(BOTH)
    point = Path(result["restore_point"])
    index = json.loads((point / "restore-point.json").read_text())
    assert index["replaced_by"] == GENERATION
    names = {Path(file["path"]).name for file in index["files"]}
    assert names == {"trades.db", "trades.db-wal", "trades.db-shm", ".env"}
    back = point / "set"
    back.mkdir()
    for file in index["files"]:
        shutil.copyfile(file["kept"], back / Path(file["path"]).name)
    assert world._classify(back / "trades.db") == "old"
    assert (back / ".env").read_text() == OLD_ENV
    assert point.stat().st_mode & 0o077 == 0


def test_d15_only_old_restore_points_go(new_world: NewWorld) -> None:
    world = new_world()
    points = world.config.state_dir / "restore-points"
    made = [world.run(Request(restore_points=2))["id"] for _unused in range(3)]
    assert {path.name for path in points.iterdir()} == set(made[-2:])
    make_generation(world, "bad")
    with pytest.raises(RestoreFailed):
        world.run(Request(restore_points=1))
    assert set(made[-2:]) <= {path.name for path in points.iterdir()}, "pruned after a failure"


def test_d16_stale_wal_cannot_undo_the_restore(new_world: NewWorld) -> None:
    world = new_world(journal_mode="wal", start=False)
    connection = sqlite3.connect(world.database)
    connection.execute("INSERT INTO heartbeat VALUES (1000)")
    connection.commit()
    held = {suffix: Path(f"{world.database}{suffix}").read_bytes() for suffix in ("-wal", "-shm")}
    connection.close()
    for suffix, data in held.items():
        Path(f"{world.database}{suffix}").write_bytes(data)
    world.run(Request(start_units=False))
    assert [path.name for path in world.database.parent.glob("trades.db*")] == ["trades.db"]
    with sqlite3.connect(world.database) as restored:
        assert restored.execute("SELECT max(n) FROM heartbeat").fetchone() == (3,)
    restored.close()


@as_root
def test_d17_files_belong_to_their_owners(new_world: NewWorld) -> None:
    world = new_world()
    world.run(BOTH)
    for path, mode in ((world.database, 0o600), (world.env, 0o640)):
        assert (path.owner(), path.group()) == account()
        assert path.stat().st_mode & 0o7777 == mode


def test_d17_unknown_owner_is_found_before_anything_is_touched(new_world: NewWorld) -> None:
    world = new_world()
    contents = json.loads((world.generation / "contents.json").read_text())
    for file in contents["files"]:
        file["owner"], file["group"] = "no-such-user", "no-such-group"
    (world.generation / "contents.json").write_text(json.dumps(contents))
    with pytest.raises(PreconditionError, match="user no-such-user, group no-such-group"):
        world.run(BOTH)
    untouched(world)


def test_d18_env_is_not_replaced_without_consent(new_world: NewWorld) -> None:
    world = new_world()
    with pytest.raises(ConsentNeeded) as caught:
        world.run(Request(include=("databases", "config")))
    untouched(world)
    assert caught.value.facts["config_diff"] == [
        {
            "path": str(world.env),
            "added": ["REMOVED_SINCE"],
            "removed": ["ADDED_SINCE"],
            "changed": ["API_TOKEN"],
        }
    ]
    everything = json.dumps(caught.value.as_dict()) + world.config.journal_file.read_text()
    everything += (world.config.state_dir / "restore.json").read_text()
    assert "secret" not in everything
    result = world.run(Request(GENERATION, include=("databases", "config"), config_consent=True), source=None)
    assert world.env.read_text() == NEW_ENV and "secret" not in json.dumps(result)


def test_d18_env_needs_no_consent_where_there_is_none(new_world: NewWorld) -> None:
    world = new_world(start=False)
    world.env.unlink()
    world.run(Request(include=("config",), start_units=False))
    assert world.env.read_text() == NEW_ENV


def test_d19_a_manifest_cannot_choose_where_root_writes(new_world: NewWorld, tmp_path: Path) -> None:
    world = new_world()
    contents = json.loads((world.generation / "contents.json").read_text())
    for part in ("config", "logs", "cache", "system"):
        contents["files"].append({**contents["files"][1], "part": part, "path": str(tmp_path / f"stolen-{part}")})
        escape = f"{world.root}/logs/../../stolen-{part}"
        contents["files"].append({**contents["files"][1], "part": part, "path": escape})
    (world.generation / "contents.json").write_text(json.dumps(contents))
    result = world.run(Request(include=("databases", "config", "logs", "cache"), config_consent=True))
    assert not list(tmp_path.rglob("stolen-*"))
    assert len(result["left_out"]) == 6 and all("does not name this place" in line for line in result["left_out"])


def test_d19_what_is_fetched_is_compared_with_the_manifest(new_world: NewWorld) -> None:
    world = new_world()
    with open(world.generation / ".env", "a") as stream:
        stream.write("INJECTED=1\n")
    with pytest.raises(IntegrityError, match="not what the manifest describes"):
        world.run(BOTH)
    untouched(world)
    assert not (world.config.state_dir / "staged" / GENERATION).exists()


def test_d20_no_trade_on_stale_positions(new_world: NewWorld) -> None:
    """The halt file is there before the first process starts, and belongs to the service."""
    world = new_world()
    result = world.run(Request())
    world.service.wait_healthy()
    with sqlite3.connect(f"file:{world.database}?mode=ro", uri=True) as connection:
        beats = connection.execute("SELECT count(*) FROM heartbeat WHERE n > 3").fetchone()[0]
        trades = connection.execute("SELECT count(*) FROM trades").fetchone()[0]
    connection.close()
    assert beats > 0 and trades == 0
    halt = Path(result["halt_file"])
    assert halt == world.config.halt_file and str(halt) in result["resume_trading"]
    if os.geteuid() == 0:
        assert (halt.owner(), halt.group()) == account()


def test_d20_without_a_way_to_halt_trading_nothing_is_restored(new_world: NewWorld) -> None:
    world = new_world()
    config_file = world.directory / "config.json"
    config_file.write_text(json.dumps({**json.loads(config_file.read_text()), "halt_file": None}))
    before = world.database.stat()
    with pytest.raises(PreconditionError, match="names no halt file"):
        world.run(Request())
    after = world.database.stat()
    assert (after.st_ino, world.service.active() != []) == (before.st_ino, True)
    assert world.run(Request(start_units=False))["result"] == "restored"


def test_d20_trading_can_be_left_alone(new_world: NewWorld) -> None:
    world = new_world()
    assert world.run(Request(halt_trading=False))["halt_file"] == ""
    assert not world.config.halt_file.exists()  # type: ignore[union-attr]


def test_a_halt_file_of_the_operator_survives_the_way_back(new_world: NewWorld) -> None:
    world = new_world(origin="bad")
    halt = world.config.halt_file
    assert halt is not None
    halt.write_text("halted by hand\n")
    with pytest.raises(RestoreFailed):
        world.run(BOTH)
    assert halt.read_text() == "halted by hand\n"


def test_held_open_database_is_refused(new_world: NewWorld) -> None:
    world = new_world()
    # Open by another name of the same file: only device and inode tell.
    other = world.directory / "other-name.db"
    os.link(world.database, other)
    script = "import sys; f = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(other)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        holder.stdout.readline()
        with pytest.raises(RestoreFailed) as caught:
            world.run(BOTH)
        holder.stdin.close()
    cause = caught.value.facts["cause"]
    assert cause["holders"][0]["pid"] == holder.pid and str(holder.pid) in cause["message"]
    assert "python" in cause["holders"][0]["command"]
    assert caught.value.facts["rolled_back"] is True
    untouched(world)


def test_symlinked_database_is_restored_where_it_is(new_world: NewWorld) -> None:
    world = new_world(start=False)
    elsewhere = world.directory / "disk" / "real.db"
    elsewhere.parent.mkdir()
    world.database.rename(elsewhere)
    world.database.symlink_to(elsewhere)
    elsewhere.with_name("real.db-wal").write_bytes(b"stale")
    result = world.run(Request(start_units=False))
    assert world.database.is_symlink() and not elsewhere.is_symlink()
    assert world._classify(elsewhere) == "new"
    assert not elsewhere.with_name("real.db-wal").exists()
    assert str(elsewhere) in result["previous"]["files"]


def test_directories_are_made_and_removed_again(new_world: NewWorld) -> None:
    world = new_world(start=False, origin="bad")
    shutil.rmtree(world.root)
    with pytest.raises(RestoreFailed):
        world.run(BOTH)
    assert not world.root.exists()
    make_generation(world, "generation")
    world.run(BOTH)
    assert world.state() == "new" and world.env.read_text() == NEW_ENV
    if os.geteuid() == 0:
        assert (world.database.parent.owner(), world.database.parent.group()) == account()


def test_what_a_place_must_not_be(new_world: NewWorld) -> None:
    world = new_world()
    world.env.unlink()
    world.env.mkdir()
    with pytest.raises(PreconditionError, match="is a directory"):
        world.run(BOTH)
    assert world.state() == "old" and world.service.active()


def test_lease_of_another_operation_is_respected(new_world: NewWorld) -> None:
    world = new_world()
    with Lease(world.config.lease_file, purpose="vacuum"), pytest.raises(LeaseError, match="vacuum"):
        world.run(BOTH)
    untouched(world)
    assert world.run(BOTH)["result"] == "restored"


def test_running_backup_is_not_cut_off(new_world: NewWorld) -> None:
    world = new_world()
    with Lease(world.config.run_dir / "backup.lock", purpose="backup daily"), pytest.raises(LeaseError, match="backup"):
        world.run(BOTH)
    untouched(world)


def test_two_restores_at_once_are_one_too_many(new_world: NewWorld) -> None:
    world = new_world()
    with Lease(world.config.run_dir / "restore.lease", purpose="restore"), pytest.raises(LeaseError):
        world.run(BOTH)
    untouched(world)


def test_generation_lacks_what_is_asked_for(new_world: NewWorld) -> None:
    world = new_world()
    with pytest.raises(InputError, match="does not hold system"):
        world.run(Request(include=("databases", "system")))
    untouched(world)


def test_new_request_finishes_the_old_one_first(new_world: NewWorld) -> None:
    world = new_world()

    class Died(BaseException):
        pass

    def die(event: str, name: str) -> None:
        if (event, name) == ("recorded", "set_aside"):
            raise Died

    with pytest.raises(Died):
        world.run(Request(), progress=die)
    assert world.state() == "away"
    result = world.run(Request(include=("logs",)))
    assert result["resumed"]["result"] == "restored" and result["resumed"]["generation_id"] == GENERATION
    assert world.state() == "new" and (world.root / "logs" / "app.log").exists()


def test_resume_alone_finishes(new_world: NewWorld) -> None:
    world = new_world()
    assert world.resume() is None

    class Died(BaseException):
        pass

    def die(event: str, name: str) -> None:
        if (event, name) == ("recorded", "place"):
            raise Died

    with pytest.raises(Died):
        world.run(Request(), progress=die)
    result = world.resume()
    assert result is not None and result["result"] == "restored"
    assert world.state() == "new" and world.resume() is None


def test_way_back_that_fails_says_where_everything_is(new_world: NewWorld) -> None:
    """The worst case: the units stay held, the error names each file's present place, and resuming goes on."""
    world = new_world(origin="bad")
    blocker = world.root / "data"

    def sabotage(event: str, name: str) -> None:
        if (event, name) == ("recorded", "withdraw"):
            blocker.rename(world.root / "data.gone")

    with pytest.raises(RestoreFailed) as caught:
        world.run(BOTH, progress=sabotage)
    error = caught.value
    assert error.facts["rolled_back"] is False and "rollback_error" in error.facts
    where = {entry["path"]: entry["now_at"] for entry in error.facts["where"]}
    assert Path(where[str(world.database)]).exists() and where[str(world.database)] in str(error)
    assert world.service.hold_file.exists() and not world.service.active()
    (world.root / "data.gone").rename(blocker)
    with pytest.raises(RestoreFailed) as caught:
        world.resume()
    assert caught.value.facts["rolled_back"] is True
    untouched(world)


def test_a_file_made_in_between_is_not_overwritten(new_world: NewWorld) -> None:
    world = new_world()

    def intrude(event: str, name: str) -> None:
        if (event, name) == ("recorded", "set_aside"):
            world.database.write_bytes(b"somebody made this")

    with pytest.raises(RestoreFailed, match="something has made this file"):
        world.run(BOTH, progress=intrude)
    untouched(world)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def move_database(world: World, directory: Path) -> None:
    document = json.loads((world.directory / "config.json").read_text())
    document["databases"][0]["path"] = str(directory / "trades.db")
    (world.directory / "config.json").write_text(json.dumps(document))


@as_root
def test_full_disk_is_found_before_anything_is_touched(new_world: NewWorld, small_disk: Path) -> None:
    world = new_world()
    move_database(world, small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(900 << 10))
    with pytest.raises(PreconditionError, match="bytes are needed") as caught:
        world.run(Request())
    assert caught.value.subject == str(small_disk)
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
    assert world.service.active() and world.state() == "old"


@as_root
def test_database_on_another_file_system(new_world: NewWorld, tmp_path: Path) -> None:
    """Nothing is renamed across file systems: staged copy and restore point lie beside the database."""
    world = new_world(start=False)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        move_database(world, disk)
        shutil.copyfile(world.database, disk / "trades.db")
        result = world.run(Request(start_units=False))
        assert world._classify(disk / "trades.db") == "new"
        kept = disk / f".fluxmaint-restore-point-{result['id']}" / "0-trades.db"
        assert world._classify(kept) == "old"
        assert {path.name for path in disk.iterdir()} == {"trades.db", kept.parent.name}
        for _unused in range(2):
            world.run(Request(start_units=False, restore_points=1))
            (disk / "trades.db").touch()
            with sqlite3.connect(disk / "trades.db") as connection:
                connection.execute("INSERT INTO heartbeat VALUES (99)")
            connection.close()
        assert not kept.parent.exists(), "a pruned restore point goes everywhere"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_where_nobody_can_tell_what_runs_the_service_is_not_touched(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()

    def unknown(_service: object) -> list[str]:
        raise PreconditionError("systemd does not answer", subject="writer.service")

    with monkeypatch.context() as patched:
        patched.setattr(type(world.service), "active", unknown)
        with pytest.raises(PreconditionError, match="does not answer"):
            world.run(BOTH)
    untouched(world)
    assert not list((world.config.state_dir / "staged").glob("*"))


def test_stopped_while_it_fetches_it_leaves_no_plain_data(new_world: NewWorld) -> None:
    class Interrupted(LocalSource):
        def fetch(self, *arguments: Any, **options: Any) -> Any:
            super().fetch(*arguments, **options)
            raise KeyboardInterrupt

    world = new_world()
    with pytest.raises(KeyboardInterrupt):
        world.run(BOTH, source=Interrupted(world))
    untouched(world)
    assert not list((world.config.state_dir / "staged").glob("*"))
