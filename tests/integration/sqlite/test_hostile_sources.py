"""Sources, destinations and surroundings that a backup must refuse, survive or name."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fluxmaint.core.errors import EngineError, InputError, IntegrityError, PreconditionError, TimeoutExceeded
from fluxmaint.sqlite import hot_backup, mirror
from sqlite_lab import HERE, elsewhere, files, leave_hot_journal, make, require_prefix


def _refused(tmp_path: Path, source: Path, kind: type[EngineError], dest: str = "copy.db") -> EngineError:
    """Back up, expect an error, and expect every file to be as it was."""
    before = files(tmp_path)
    with pytest.raises(kind) as caught:
        hot_backup.backup(source, tmp_path / dest, timeout_s=5, verify="full")
    assert files(tmp_path) == before
    return caught.value


def test_d01_missing_database_is_an_error_and_is_not_created(tmp_path: Path) -> None:
    error = _refused(tmp_path, tmp_path / "missing.db", InputError)
    assert "missing.db" in str(error)


def test_d09_a_failed_backup_leaves_nothing_under_the_final_name_nor_a_partial(tmp_path: Path) -> None:
    source = make(tmp_path / "live.db")
    with open(source, "r+b") as stream:
        stream.truncate(source.stat().st_size - 8192)
    error = _refused(tmp_path, source, IntegrityError)
    assert error.subject == str(source)


def test_d09_not_enough_space_is_noticed_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "live.db")
    monkeypatch.setattr(hot_backup, "free_bytes", lambda path: source.stat().st_size)
    error = _refused(tmp_path, source, PreconditionError)
    assert "not enough space" in str(error)


def test_d09_a_partial_of_a_killed_run_is_removed_by_the_next_and_of_a_running_one_is_not(tmp_path: Path) -> None:
    source = make(tmp_path / "live.db", mode="wal")
    code = (
        "import os, signal, sys\n"
        f"sys.path.append({str(HERE.parents[1])!r})\n"
        "import conftest\n"
        "from pathlib import Path\n"
        "from fluxmaint.sqlite import hot_backup\n"
        "if sys.argv[3] == 'die':\n"
        "    hot_backup._prove = lambda *rest: os.kill(os.getpid(), signal.SIGKILL)\n"
        "else:\n"
        "    def wait(*rest):\n"
        "        print('ready', flush=True)\n"
        "        sys.stdin.read()\n"
        "    hot_backup._prove = wait\n"
        "hot_backup.backup(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    argv = [sys.executable, "-c", code, str(source), str(tmp_path / "copy.db")]
    subprocess.run([*argv, "die"], check=False, timeout=60)
    left = [p.name for p in tmp_path.iterdir() if p.name.startswith(".copy.db.partial-")]
    assert len(left) == 1
    assert not (tmp_path / "copy.db").exists()
    running = subprocess.Popen([*argv, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        theirs = {p.name for p in tmp_path.iterdir() if p.name.startswith(".copy.db.partial-")}
        assert theirs.isdisjoint(left)
        (tmp_path / ".copy.db.partial-not-ours").write_text("kept")
        hot_backup.backup(source, tmp_path / "copy.db")
        assert {p.name for p in tmp_path.iterdir() if p.name.startswith(".copy.db.partial-")} == {
            *theirs,
            ".copy.db.partial-not-ours",
        }
    finally:
        running.kill()
        running.communicate(timeout=60)


def test_d09_the_snapshot_is_private_whatever_the_umask(tmp_path: Path) -> None:
    source = make(tmp_path / "live.db")
    source.chmod(0o644)
    before = os.umask(0)
    try:
        hot_backup.backup(source, tmp_path / "copy.db")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600


def test_d29_an_empty_file_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    assert "is an empty file" in str(_refused(tmp_path, tmp_path / "empty.db", InputError))


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\x00", b"\x00" * 8192])
def test_what_is_not_sqlite_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.db").write_bytes(content)
    assert "is not a SQLite database" in str(_refused(tmp_path, tmp_path / "other.db", InputError))


def test_directories_and_pipes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="not a regular file"):
        hot_backup.backup(tmp_path / "folder", tmp_path / "copy.db")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        hot_backup.backup(tmp_path / "pipe", tmp_path / "copy.db")


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_symbolic_link_leads_to_the_database_and_its_journal(tmp_path: Path, mode: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").mkdir()
    source = make(tmp_path / "real" / "live.db", mode=mode, pad=1000)
    if mode == "delete":
        leave_hot_journal(source)
    (tmp_path / "link" / "name.db").symlink_to(source)
    taken = hot_backup.backup(tmp_path / "link" / "name.db", tmp_path / "copy.db")
    assert require_prefix(tmp_path / "copy.db") == 0
    assert bool(taken.notes) == (mode == "delete")
    assert [p.name for p in (tmp_path / "link").iterdir()] == ["name.db"]


def test_a_hard_link_is_noted(tmp_path: Path) -> None:
    source = make(tmp_path / "live.db")
    os.link(source, tmp_path / "other-name.db")
    taken = hot_backup.backup(source, tmp_path / "copy.db")
    assert any("hard link" in note for note in taken.notes)


@pytest.mark.parametrize("name", ["live.db", "live.db-wal", "live.db-journal", "live.db-shm", "again.db"])
def test_the_destination_is_never_the_source_or_one_of_its_files(tmp_path: Path, name: str) -> None:
    source = make(tmp_path / "live.db")
    os.link(source, tmp_path / "again.db")
    before = files(tmp_path)
    with pytest.raises(InputError, match="is the source"):
        hot_backup.backup(source, tmp_path / name, overwrite=True)
    assert files(tmp_path) == before


def test_an_existing_destination_is_replaced_only_on_request(tmp_path: Path) -> None:
    source = make(tmp_path / "live.db")
    (tmp_path / "copy.db").write_text("precious")
    assert "exists already" in str(_refused(tmp_path, source, PreconditionError))
    hot_backup.backup(source, tmp_path / "copy.db", overwrite=True)
    assert require_prefix(tmp_path / "copy.db") == 0


@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
def test_a_journal_beside_the_destination_is_refused(tmp_path: Path, suffix: str) -> None:
    """SQLite would roll it back into the snapshot when that is first opened."""
    source = make(tmp_path / "live.db")
    (tmp_path / f"copy.db{suffix}").write_bytes(b"stale")
    assert suffix in str(_refused(tmp_path, source, PreconditionError))


def test_a_missing_directory_a_directory_and_a_link_as_destination(tmp_path: Path) -> None:
    source = make(tmp_path / "live.db")
    with pytest.raises(InputError, match="does not exist"):
        hot_backup.backup(source, tmp_path / "missing" / "copy.db")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="not a regular file"):
        hot_backup.backup(source, tmp_path / "folder")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="not a regular file"):
        hot_backup.backup(source, tmp_path / "link", overwrite=True)


def test_a_foreign_hot_journal_is_named_and_not_rolled_back(tmp_path: Path) -> None:
    victim = make(tmp_path / "victim.db", pad=1000)
    con = sqlite3.connect(victim)
    con.executescript("UPDATE board SET k = 0; UPDATE board SET k = 0;")
    con.close()
    other = make(tmp_path / "other.db", pad=1000)
    leave_hot_journal(other)
    shutil.move(tmp_path / "other.db-journal", tmp_path / "victim.db-journal")
    other.unlink()
    error = _refused(tmp_path, victim, PreconditionError)
    assert error.subject == str(tmp_path / "victim.db-journal")
    assert "does not belong" in str(error)
    (tmp_path / "victim.db-journal").unlink()
    hot_backup.backup(victim, tmp_path / "copy.db")
    assert require_prefix(tmp_path / "copy.db") == 0


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_damaged_page_fails_the_proof_and_names_the_source(tmp_path: Path, mode: str) -> None:
    source = make(tmp_path / "live.db", mode=mode)
    with open(source, "r+b") as stream:
        stream.seek(4096 * 6)
        stream.write(b"\xff" * 64)
    error = _refused(tmp_path, source, IntegrityError)
    assert error.subject == str(source)
    assert "damaged" in str(error)


def test_a_damaged_index_passes_quick_and_fails_full(tmp_path: Path) -> None:
    """`quick_check` does not notice it, so `verify` has to be able to say more."""
    source = make(tmp_path / "live.db")
    con = sqlite3.connect(source, isolation_level=None)
    con.execute("PRAGMA writable_schema=ON")
    con.execute("UPDATE sqlite_master SET sql = 'CREATE INDEX board_k ON board(pad)' WHERE name = 'board_k'")
    con.close()
    hot_backup.backup(source, tmp_path / "quick.db", verify="quick")
    with pytest.raises(IntegrityError, match="full check"):
        hot_backup.backup(source, tmp_path / "full.db", verify="full")
    assert not (tmp_path / "full.db").exists()


def test_a_broken_foreign_key_fails_the_check(tmp_path: Path) -> None:
    source = make(tmp_path / "live.db")
    con = sqlite3.connect(source)
    con.executescript(
        "CREATE TABLE child(id INTEGER PRIMARY KEY, k REFERENCES seq(k)); INSERT INTO child VALUES (1, 99)"
    )
    con.close()
    assert "foreign key" in str(_refused(tmp_path, source, IntegrityError))


def test_a_copy_that_went_wrong_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "live.db")

    def repair(self: mirror.Mirror) -> int:
        os.ftruncate(self._copy, 8192)
        return 0

    monkeypatch.setattr(mirror.Mirror, "clone", lambda self: False)
    monkeypatch.setattr(mirror.Mirror, "repair", repair)
    _refused(tmp_path, source, IntegrityError)


def test_a_backup_of_an_empty_schema_is_not_taken_for_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup killed half-way opens as an empty database that integrity_check calls ok: compare the schema."""
    source = make(tmp_path / "live.db")
    empty = tmp_path / "empty.db"
    con = sqlite3.connect(empty)
    con.executescript("CREATE TABLE t(x); DROP TABLE t;")
    con.close()
    content = empty.read_bytes()

    def repair(self: mirror.Mirror) -> int:
        size = os.fstat(self._source).st_size
        os.pwrite(self._copy, content[:24], 0)
        os.pwrite(self._copy, b"\x0d" + b"\x00" * 4 + b"\x10" + b"\x00" * 2, 100)
        os.ftruncate(self._copy, size)
        return 0

    monkeypatch.setattr(mirror.Mirror, "clone", lambda self: False)
    monkeypatch.setattr(mirror.Mirror, "repair", repair)
    assert "schema" in str(_refused(tmp_path, source, IntegrityError))


@pytest.mark.parametrize("stopped", [True, False], ids=["no log", "log left by a crash"])
def test_a_wal_database_whose_service_is_stopped_is_left_as_it_was(tmp_path: Path, stopped: bool) -> None:
    source = make(tmp_path / "live.db", mode="wal")
    if not stopped:
        with elsewhere(source, "UPDATE board SET k = 0"):
            pass
    before = {name: data for name, data in files(tmp_path).items() if not name.endswith("-shm")}
    assert ("live.db-wal" in before) != stopped
    changed = source.stat().st_mtime_ns
    hot_backup.backup(source, tmp_path / "copy.db")
    require_prefix(tmp_path / "copy.db")
    after = {name: data for name, data in files(tmp_path).items() if not name.endswith("-shm")}
    assert after.pop("copy.db")
    assert after == before
    assert source.stat().st_mtime_ns == changed
    if stopped:
        assert not (tmp_path / "live.db-shm").exists()


def test_the_wal_snapshot_stands_alone_and_stays_in_wal_mode(tmp_path: Path) -> None:
    source = make(tmp_path / "live.db", mode="wal")
    with elsewhere(source, "INSERT INTO move VALUES (0, 0)"):
        assert (tmp_path / "live.db-wal").stat().st_size > 0
        taken = hot_backup.backup(source, tmp_path / "copy.db")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(("copy", ".copy"))] == ["copy.db"]
    assert taken.journal_mode == "wal"
    con = sqlite3.connect(tmp_path / "copy.db")
    assert con.execute("SELECT count(*) FROM move").fetchone() == (1,)
    assert con.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    con.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_root_leaves_no_file_of_its_own_beside_a_service_database(tmp_path: Path, mode: str) -> None:
    tmp_path.chmod(0o755)
    home = tmp_path / "service"
    home.mkdir()
    source = make(home / "live.db", mode=mode, pad=1000)
    if mode == "delete":
        leave_hot_journal(source)
    else:
        with elsewhere(source, "UPDATE board SET k = 0"):
            pass
    for path in (home, *home.iterdir()):
        os.chown(path, 12345, 12345)
    (home / "live.db-shm").unlink(missing_ok=True)
    hot_backup.backup(source, tmp_path / "copy.db")
    assert {(p.stat().st_uid, p.stat().st_gid) for p in (home, *home.iterdir())} == {(12345, 12345)}


def test_the_deadline_holds_while_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "live.db", pad=2000)
    original = os.copy_file_range

    def slow(*arguments: int) -> int:
        time.sleep(0.2)
        return original(*arguments)

    monkeypatch.setattr(os, "copy_file_range", slow)
    monkeypatch.setattr(mirror, "_PIECE", 1 << 16)
    monkeypatch.setattr(mirror.Mirror, "clone", lambda self: False)
    started = time.monotonic()
    with pytest.raises(TimeoutExceeded, match="while copying"):
        hot_backup.backup(source, tmp_path / "copy.db", timeout_s=0.5)
    assert time.monotonic() - started < 2
    assert [p.name for p in tmp_path.iterdir()] == ["live.db"]


def test_a_deadline_that_passes_under_the_lock_releases_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "live.db")

    def repair(self: mirror.Mirror) -> int:
        time.sleep(0.3)
        self._deadline.check("comparing")
        return 0

    monkeypatch.setattr(mirror.Mirror, "clone", lambda self: False)
    monkeypatch.setattr(mirror.Mirror, "repair", repair)
    with pytest.raises(TimeoutExceeded):
        hot_backup.backup(source, tmp_path / "copy.db", timeout_s=0.2)
    with elsewhere(source, "PRAGMA busy_timeout=0", "BEGIN EXCLUSIVE"):
        pass


@pytest.mark.parametrize("timeout_s", [0, -1])
def test_a_time_limit_that_cannot_be_kept_is_refused(tmp_path: Path, timeout_s: float) -> None:
    with pytest.raises(InputError, match="time limit"):
        hot_backup.backup(make(tmp_path / "live.db"), tmp_path / "copy.db", timeout_s=timeout_s)


def test_a_full_disk_while_copying_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "live.db")

    def full(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    monkeypatch.setattr(mirror.Mirror, "clone", lambda self: False)
    assert "No space left" in str(_refused(tmp_path, source, PreconditionError))


def test_two_runs_for_the_same_destination_do_not_disturb_each_other(tmp_path: Path) -> None:
    source = make(tmp_path / "live.db", pad=2000)
    code = (
        "import sys\n"
        f"sys.path.append({str(HERE.parents[1])!r})\n"
        "import conftest\n"
        "from pathlib import Path\n"
        "from fluxmaint.sqlite import hot_backup\n"
        "for _ in range(20):\n"
        "    hot_backup.backup(Path(sys.argv[1]), Path(sys.argv[2]), overwrite=True)\n"
    )
    argv = [sys.executable, "-c", code, str(source), str(tmp_path / "copy.db")]
    runs = [subprocess.Popen(argv, stderr=subprocess.PIPE) for _unused in range(3)]
    errors = []
    threads = [threading.Thread(target=lambda run=run: errors.append(run.communicate(timeout=120)[1])) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [b"", b"", b""]
    assert require_prefix(tmp_path / "copy.db") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.db", "live.db"]
