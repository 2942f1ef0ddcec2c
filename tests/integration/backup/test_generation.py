"""A generation is taken, stored, read back, fetched and compared with what was there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fluxmaint.backup import generation
from fluxmaint.backup.manifest import Manifest
from fluxmaint.core.errors import (
    ConfigError,
    InputError,
    IntegrityError,
    LeaseError,
    PreconditionError,
    StoreError,
    TimeoutExceeded,
)
from fluxmaint.core.journal import Journal
from fluxmaint.core.lease import Lease

from tests.support.world import CANARY, World

if TYPE_CHECKING:
    from tests.support.seaweed import ObjectStore


def contents(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}


def manifest_of(world: World, identity: str, target: str = "local") -> Manifest:
    key = f"fluxhero/production/generations/{identity}/MANIFEST.json"
    return Manifest.from_bytes(world.open(target).get_bytes(key, 1 << 24))


def test_a_full_generation_comes_back_as_it_was(world: World, tmp_path: Path, object_store: ObjectStore) -> None:
    offsite = object_store.target("full")
    result = world.create("full", targets=[offsite, world.target()])
    assert result["result"] == "ok", result
    assert result["targets"] == {"offsite": "stored", "local": "stored"}
    for target in ("offsite", "local"):
        fetched = world.fetch(tmp_path / target, result["id"], target=target)
        for file in fetched.files:
            original = Path(file.entry.path)
            if file.part.startswith("db-"):
                continue
            if file.entry.link:
                assert (original.parent / file.entry.link).resolve() == original.resolve()
                continue
            assert file.path.read_bytes() == original.read_bytes(), original
            assert file.entry.mode_bits == original.stat().st_mode & 0o7777
            assert file.path.stat().st_mode & 0o777 == 0o600
        rows = [
            sqlite3.connect(path).execute("SELECT * FROM trades ORDER BY id").fetchall()
            for path in (fetched.database("trades"), world.database)
        ]
        assert rows[0] == rows[1]
        assert len(rows[0]) == 200
    system = {file.entry.path for file in fetched.files if file.part == "system"}
    release = world.root / "releases/r1"
    assert {str(release / name) for name in ("REVISION", "requirements.txt", "fluxhero/app.py", "data")} <= system
    assert not any("venv" in path for path in system)
    assert str(world.top / "fluxhero-backend.service") in system
    manifest = fetched.manifest
    assert manifest.release is not None
    assert (manifest.release.id, manifest.release.revision) == ("r1", "0123abcd")
    assert manifest.databases[0].newest
    assert manifest.databases[0].tables["trades"].rows == 200
    assert len(manifest.databases[0].tables["trades"].sha256) == 64
    assert manifest.recipients == manifest.parts[0].recipients
    assert len(manifest.recipients) == 2


def test_either_recipient_alone_can_restore(world: World, tmp_path: Path) -> None:
    world.create()
    for name in ("operator", "escrow"):
        world.fetch(tmp_path / name, identity_file=world.keys / f"{name}.key")


def test_d01_a_missing_or_wrong_database_is_a_failure(world: World) -> None:
    world.database.rename(world.database.with_name("other.db"))
    with pytest.raises(InputError) as caught:
        world.create()
    assert str(world.database) in str(caught.value)
    assert not world.database.exists(), "looking for a database must not create one"
    world.database.write_text("not a database\n")
    with pytest.raises(InputError):
        world.create()
    assert list(world.open().list("")) == []


def test_d01_a_missing_configuration_file_is_a_failure(world: World) -> None:
    (world.root / ".env").unlink()
    with pytest.raises(InputError, match=r"\.env"):
        world.create()
    assert list(world.open().list("")) == []


def test_d04_what_the_disk_gives_back_is_compared(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that flips a byte after the file was written."""
    flush = os.posix_fadvise

    def flip(descriptor: int, *rest: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        flush(descriptor, *rest)

    monkeypatch.setattr(os, "posix_fadvise", flip)
    with pytest.raises(StoreError, match="other bytes"):
        world.create()
    assert list(world.open().list("")) == []


def test_d05_nothing_secret_leaves_in_clear_or_readable(world: World, object_store: ObjectStore) -> None:
    result = world.create("full", targets=[object_store.target("secret"), world.target()])
    for name, data in contents(world.store).items():
        assert CANARY.encode() not in data, name
        assert b"SQLite format 3" not in data, name
    for path in world.store.rglob("*"):
        if path.name != ".fluxmaint-target":
            assert path.stat().st_mode & 0o077 == 0, path
    offsite = world.open("offsite")
    for item in list(offsite.list("")):
        assert CANARY.encode() not in offsite.get_bytes(item.key, 1 << 26), item.key
    journal = (world.top / "state/journal.jsonl").read_text()
    for text in (journal, json.dumps(result)):
        assert CANARY not in text
        assert "uploader-secret" not in text
    assert (world.top / "state/staging").stat().st_mode & 0o777 == 0o700


def test_d05_fewer_than_two_recipients_are_refused(world: World) -> None:
    recipients = (world.keys / "recipients.txt").read_text().splitlines()
    for lines in ([recipients[1]], [recipients[1], recipients[1]], []):
        (world.keys / "recipients.txt").write_text("\n".join(lines) + "\n")
        with pytest.raises(PreconditionError, match="at least 2"):
            world.create()
    assert list(world.open().list("")) == []


def test_d06_a_target_that_is_not_mounted_is_never_filled(world: World) -> None:
    (world.store / ".fluxmaint-target").unlink()
    with pytest.raises(StoreError, match="marker"):
        world.create()
    assert list(world.store.iterdir()) == []
    (world.store / ".fluxmaint-target").touch()
    with pytest.raises(StoreError, match="mount"):
        world.create(targets=[world.target(require_mount=True)])
    assert [path.name for path in world.store.iterdir()] == [".fluxmaint-target"]


def test_d07_a_cache_file_that_is_being_written_is_not_torn(world: World, tmp_path: Path) -> None:
    restless = world.root / "data/cache/restless.parquet"
    restless.write_bytes(b"0")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with restless.open("ab") as stream:
                stream.write(b"x" * 4096)
            time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        result = world.create()
    finally:
        stop.set()
        writer.join()
    fetched = world.fetch(tmp_path / "out")
    stored = {Path(file.entry.path).name for file in fetched.files if file.part == "cache"}
    assert {"spy.parquet", "qqq.parquet"} <= stored
    assert "notes.txt" not in stored
    if "restless.parquet" not in stored:
        assert result["result"] == "degraded"
        assert any("restless.parquet" in problem for problem in result["problems"])


def test_d08_rotated_logs_and_same_names_in_subdirectories_are_kept(world: World, tmp_path: Path) -> None:
    old = world.root / "logs/fluxhero.log.9"
    old.write_text("too old\n")
    os.utime(old, (time.time() - 8 * 86400,) * 2)
    world.create()
    fetched = world.fetch(tmp_path / "out", parts=["logs"])
    logs = {file.entry.path: file.path.read_text() for file in fetched.files}
    base = str(world.root / "logs")
    assert logs == {
        f"{base}/fluxhero.log": "now\n",
        f"{base}/fluxhero.log.1": "rotated\n",
        f"{base}/old/fluxhero.log": "same name, other directory\n",
    }


def test_d09_a_second_backup_at_the_same_time_fails_at_once(world: World) -> None:
    with Lease(world.top / "run/backup.lock", purpose="backup daily"), pytest.raises(LeaseError, match="backup daily"):
        world.create()
    assert list(world.open().list("")) == []


def test_d09_the_deadline_ends_a_backup(world: World) -> None:
    with pytest.raises(TimeoutExceeded):
        _with_slow_clock(world)
    assert list((world.top / "state/staging").iterdir()) == []
    assert list(world.open().list("")) == []


def _with_slow_clock(world: World) -> None:
    from fluxmaint.core.clock import Clock

    class Hasty(Clock):
        """Each look at this clock takes a minute."""

        passed = 0.0

        def monotonic(self) -> float:
            self.passed += 60
            return self.passed

    config = world.config()
    generation.create(config, "daily", clock=Hasty(), journal=Journal(config.journal_file))


def test_d09_a_target_that_takes_too_long_stays_uncommitted(world: World) -> None:
    from fluxmaint.core.clock import Clock

    class Jumping(Clock):
        """A clock that is an hour later once the first object was stored."""

        late = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.late

    clock = Jumping()

    def progress(step: str, facts: dict[str, object]) -> None:
        clock.late = 3600.0 if step == "store" else clock.late

    config = world.config()
    with pytest.raises((TimeoutExceeded, StoreError)):
        generation.create(config, "daily", clock=clock, journal=Journal(config.journal_file), progress=progress)
    listed = generation.list_generations(world.open(), "fluxhero", "production")
    assert [item.state for item in listed if item.state == "committed"] == []


@pytest.mark.parametrize("lie", [{"page_count": 1}, {"schema_digest": "0" * 64}])
def test_a_snapshot_unlike_its_source_is_not_stored(
    world: World, monkeypatch: pytest.MonkeyPatch, lie: dict[str, object]
) -> None:
    backup = generation.hot_backup.backup
    monkeypatch.setattr(
        generation.hot_backup, "backup", lambda *args, **options: dataclasses.replace(backup(*args, **options), **lie)
    )
    with pytest.raises(IntegrityError, match="differs from its source"):
        world.create()
    assert list(world.open().list("")) == []


def test_d09_space_is_looked_at_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "free_bytes", lambda path: 1000)
    with pytest.raises(PreconditionError, match="1000 are free"):
        world.create()
    assert list(world.open().list("")) == []


def test_a_snapshot_that_breaks_an_invariant_is_not_stored(world: World) -> None:
    con = sqlite3.connect(world.database)
    with con:
        con.execute("INSERT INTO positions(trade, status) VALUES (999999, 'open')")
    con.close()
    with pytest.raises(IntegrityError, match="foreign key"):
        world.create()
    assert list(world.open().list("")) == []
    assert list((world.top / "state/staging").iterdir()) == []


def test_a_required_column_that_is_missing_is_a_failure(world: World) -> None:
    world.document["databases"][0]["tables"]["trades"].append("no_such_column")
    with pytest.raises(IntegrityError, match="no_such_column"):
        world.create()


def test_a_table_that_lost_its_rows_needs_a_person(world: World) -> None:
    first = world.create()
    con = sqlite3.connect(world.database)
    with con:
        con.execute("DELETE FROM positions WHERE id > 100")
    con.close()
    with pytest.raises(IntegrityError, match="positions had 200 rows and has 100") as caught:
        world.create()
    assert "accept_drift" in caught.value.remedy
    listed = generation.list_generations(world.open(), "fluxhero", "production")
    assert [item.id for item in listed] == [first["id"]]
    assert world.create(accept_drift=True)["result"] == "ok"
    assert world.create()["result"] == "ok", "what was accepted is the new measure"


def test_cache_files_are_stored_once(world: World) -> None:
    first = world.create()
    (world.root / "data/cache/new.parquet").write_bytes(b"PAR1new")
    second = world.create()
    assert (first["cache"], second["cache"]) == ({"files": 2, "new": 2}, {"files": 3, "new": 1})
    cache = [item.key for item in world.open().list("fluxhero/production/cache/")]
    assert len(cache) == 3
    digest = hashlib.sha256(b"PAR1new").hexdigest()
    assert any(key.startswith(f"fluxhero/production/cache/{digest}-") for key in cache)


def test_a_lost_cache_index_is_made_again(world: World, tmp_path: Path) -> None:
    world.create()
    (world.top / "state/cache-index.json").unlink()
    result = world.create()
    assert result["cache"] == {"files": 2, "new": 0}
    world.fetch(tmp_path / "out", result["id"])


def test_empty_optional_parts_are_reported(world: World) -> None:
    for path in (world.root / "logs").rglob("*.log*"):
        path.unlink()
    result = world.create()
    assert result["result"] == "degraded"
    assert any("logs" in problem for problem in result["problems"])
    assert manifest_of(world, result["id"]).problems == result["problems"]


def test_a_full_generation_needs_the_section_system(world: World) -> None:
    world.document["system"] = None
    with pytest.raises(ConfigError, match="system"):
        world.create("full")


def test_secrets_are_not_in_the_arguments_of_any_process(world: World, tmp_path: Path) -> None:
    seen: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.append(process.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        world.create("full")
        world.fetch(tmp_path / "out")
    finally:
        stop.set()
        watcher.join()
    identity = (world.keys / "operator.key").read_text().splitlines()[-1]
    assert not any(CANARY in line or identity in line for line in seen)


def test_every_step_is_in_the_journal(world: World) -> None:
    result = world.create()
    journal = Journal(world.top / "state/journal.jsonl")
    entries = journal.read("backup")
    journal.verify()
    steps = [entry["step"] for entry in entries if entry["event"] == "step"]
    assert entries[0]["event"] == "start"
    assert (entries[-1]["event"], entries[-1]["result"], entries[-1]["id"]) == ("end", "ok", result["id"])
    for step in ("begin", "snapshot", "prove", "encrypt", "cache", "ready", "store", "commit", "committed"):
        assert step in steps
    assert steps.index("prove") < steps.index("encrypt") < steps.index("ready") < steps.index("commit")


def test_a_lock_that_the_service_does_not_wait_for_is_a_problem(world: World) -> None:
    world.document["databases"][0]["busy_timeout_s"] = 0
    result = world.create()
    assert result["result"] == "degraded"
    assert "could not commit" in result["problems"][0]
    assert str(world.database) in result["problems"][0]


def test_check_mode_plan_writes_nothing(world: World) -> None:
    before = contents(world.top)
    plan = generation.plan(world.config(), "full")
    before.pop("config.json", None)
    after = contents(world.top)
    after.pop("config.json")
    assert after == before
    assert [part["name"] for part in plan["parts"]] == ["db-trades", "config", "logs", "system", "cache"]
    assert plan["targets"] == {"local": "reachable"}


def test_proof_and_encryption_step_back_and_the_locked_comparison_of_the_next_database_does_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    proving: list[int] = []
    examine = generation.checks.examine

    def watched(*arguments: object, **options: object) -> object:
        proving.append(os.getpriority(os.PRIO_PROCESS, 0))
        return examine(*arguments, **options)

    monkeypatch.setattr(generation.checks, "examine", watched)
    seen: dict[str, set[int]] = {}

    def progress(step: str, _facts: dict[str, object]) -> None:
        seen.setdefault(step, set()).add(os.getpriority(os.PRIO_PROCESS, 0))

    config = world.config(nice=mine + 6)
    generation.create(config, "daily", journal=Journal(config.journal_file), progress=progress)
    assert proving == [mine + 6]
    assert {"snapshot", "encrypt", "bytes"} <= set(seen)
    assert {step: where for step, where in seen.items() if where != {mine}} == {}
