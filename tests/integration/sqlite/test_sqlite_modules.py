"""The modules, run for real by Ansible on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sqlite_lab import elsewhere, files, make, require_prefix, writing

from tests.support.world import build

ROOT = Path(__file__).resolve().parents[3]
ANSIBLE = Path(sys.executable).with_name("ansible")
pytestmark = pytest.mark.skipif(not ANSIBLE.exists(), reason=f"no ansible beside {sys.executable}")


class Modules:
    def __init__(self, directory: Path) -> None:
        (directory / "ansible_collections" / "fluxhero").mkdir(parents=True)
        (directory / "ansible_collections" / "fluxhero" / "maintenance").symlink_to(ROOT)
        (directory / "ansible.cfg").touch()
        self._directory = directory

    def __call__(self, module: str, *options: str, **arguments: Any) -> dict[str, Any]:
        done = subprocess.run(
            [
                str(ANSIBLE),
                "localhost",
                "-i",
                "localhost,",
                "-c",
                "local",
                "-m",
                f"fluxhero.maintenance.{module}",
                "-e",
                f"ansible_python_interpreter={sys.executable}",
                "-a",
                json.dumps(arguments),
                *options,
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=self._directory,
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(self._directory),
                "ANSIBLE_CONFIG": str(self._directory / "ansible.cfg"),
                "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
                "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.oneline",
                "ANSIBLE_NOCOLOR": "1",
            },
        )
        for line in done.stdout.splitlines():
            if line.startswith("localhost | "):
                state, _arrow, text = line.partition(" => ")
                result: dict[str, Any] = json.loads(text)
                result["state_word"] = state.split("| ")[1].rstrip("!")
                return result
        raise AssertionError(done.stdout + done.stderr)


@pytest.fixture
def modules(tmp_path_factory: pytest.TempPathFactory) -> Modules:
    """Calls a module of the collection and returns its result."""
    return Modules(tmp_path_factory.mktemp("collections"))


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite_backup_in_check_mode_and_twice_for_real(tmp_path: Path, modules: Modules, mode: str) -> None:
    source, copy = make(tmp_path / "live.db", mode=mode), tmp_path / "copy.db"
    before = files(tmp_path)
    arguments = {"src": str(source), "dest": str(copy), "timeout_s": 30, "verify": "full"}
    planned = modules("sqlite_backup", "--check", **arguments)
    assert planned["state_word"] == "CHANGED"
    assert planned["path"] == str(copy)
    assert files(tmp_path) == before

    with writing(source, 50) as writer:
        taken = modules("sqlite_backup", **arguments)
    assert writer.report["failures"] == []
    assert taken["changed"] is True
    assert taken["method"] in ("wal-copy" if mode == "wal" else "pre-copy", "reflink")
    assert taken["mode"] == "0600"
    assert {"passes", "duration_s", "lock_held_s", "bytes", "page_size", "journal_mode", "sha256"} <= set(taken)
    assert require_prefix(copy) == taken["rows"]["seq"]

    for options in (["--check"], []):
        refused = modules("sqlite_backup", *options, **arguments)
        assert refused["state_word"] == "FAILED"
        assert refused["error"] == "PreconditionError"
        assert str(copy) in refused["msg"]
    again = modules("sqlite_backup", **arguments, force=True)
    assert again["changed"] is True
    assert again["rows"]["seq"] >= taken["rows"]["seq"]


@pytest.mark.parametrize("options", [["--check"], []], ids=["check", "real"])
def test_d01_the_module_fails_on_a_missing_database_and_does_not_create_it(
    tmp_path: Path, modules: Modules, options: list[str]
) -> None:
    refused = modules("sqlite_backup", *options, src=str(tmp_path / "no.db"), dest=str(tmp_path / "copy.db"))
    assert refused["state_word"] == "FAILED"
    assert refused["error"] == "InputError"
    assert refused["subject"] == str(tmp_path / "no.db")
    assert list(tmp_path.iterdir()) == []


def test_the_module_names_the_process_that_keeps_it_from_reading(tmp_path: Path, modules: Modules) -> None:
    source = make(tmp_path / "live.db")
    with elsewhere(source, "BEGIN EXCLUSIVE") as pid:
        refused = modules("sqlite_backup", src=str(source), dest=str(tmp_path / "copy.db"), timeout_s=0.5)
    assert refused["error"] == "TimeoutExceeded"
    assert f"process {pid}" in refused["msg"]


def test_sqlite_integrity_info_changes_nothing_and_tells_everything(tmp_path: Path, modules: Modules) -> None:
    source = make(tmp_path / "live.db", mode="wal")
    os.link(source, tmp_path / "other.db")
    before = files(tmp_path)
    results = [
        modules("sqlite_integrity_info", *options, path=str(source), content_digests=True, fail_on_damage=True)
        for options in (["--check"], [])
    ]
    assert files(tmp_path) == before
    for result in results:
        assert result["changed"] is False
        assert result["ok"] is True
        assert result["tables"]["board"]["rows"] == result["content_digests"]["board"]["rows"] == 2000
        assert any(text.startswith("hard-link") for text in result["hazards"])
    shutil.copy(source, tmp_path / "copy.db")
    copied = modules("sqlite_integrity_info", path=str(tmp_path / "copy.db"), level="quick", content_digests=True)
    assert copied["content_digests"] == results[0]["content_digests"]
    assert copied["schema_digest"] == results[0]["schema_digest"]


def test_damage_is_a_result_or_on_request_a_failure(tmp_path: Path, modules: Modules) -> None:
    source = make(tmp_path / "live.db")
    with open(source, "r+b") as stream:
        stream.seek(4096 * 6)
        stream.write(b"\xff" * 64)
    found = modules("sqlite_integrity_info", path=str(source))
    assert found["state_word"] == "SUCCESS"
    assert found["ok"] is False
    assert found["messages"]
    failed = modules("sqlite_integrity_info", path=str(source), fail_on_damage=True)
    assert failed["state_word"] == "FAILED"
    assert failed["error"] == "IntegrityError"
    assert failed["report"]["messages"] == found["messages"]


def test_sqlite_export_in_check_mode_and_twice_for_real(tmp_path: Path, modules: Modules) -> None:
    source, place = make(tmp_path / "live.db"), tmp_path / "exports"
    place.mkdir()
    (tmp_path / "board.sql").write_text("SELECT id, k FROM board ORDER BY id")
    arguments = {"src": str(source), "dest": str(place / "board.csv"), "query_file": str(tmp_path / "board.sql")}
    planned = modules("sqlite_export", "--check", **arguments)
    assert (planned["changed"], planned["rows"], list(place.iterdir())) == (True, 2000, [])
    done = modules("sqlite_export", **arguments)
    assert (done["changed"], done["sha256"]) == (True, planned["sha256"])
    before = files(place)
    assert sorted(before) == ["board.csv", "board.csv.json", "board.csv.sha256"]
    assert modules("sqlite_export", **arguments)["changed"] is False
    assert files(place) == before


def test_cache_cleanup_in_check_mode_and_twice_for_real(tmp_path: Path, modules: Modules) -> None:
    world = build(tmp_path / "world", rows=3)
    world.document["cache"]["regenerable"] = ["*.parquet"]
    world.document["cache_cleanup"] = {"max_age_days": 30, "grace_s": 0}
    cache = world.root / "data/cache"
    for path in cache.rglob("*.parquet"):
        os.utime(path, (1_700_000_000,) * 2)
        path.chmod(0o600)
    time.sleep(1.01 - time.time() % 1)  # generations begin with a whole second
    world.create()
    world.prove()
    planned = modules("cache_cleanup", "--check", config_file=str(world.config_file))
    assert (planned["changed"], len(planned["removed"])) == (True, 2)
    assert len(list(cache.rglob("*.parquet"))) == 2
    done = modules("cache_cleanup", config_file=str(world.config_file))
    assert (done["changed"], done["freed_bytes"]) == (True, planned["freed_bytes"])
    assert list(cache.rglob("*.parquet")) == []
    assert (cache / "daily").is_dir()
    assert modules("cache_cleanup", config_file=str(world.config_file))["changed"] is False
