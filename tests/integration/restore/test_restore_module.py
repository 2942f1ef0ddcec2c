# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules restore_generation, sqlite_salvage and service_preflight_info, run by Ansible."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.backup import generation
from fluxmaint.core.fsio import sha256_file
from fluxmaint.core.journal import Journal

from tests.support import world as backup_world

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ansible") is None, reason="ansible-core is needed"),
    pytest.mark.skipif(not (shutil.which("age") and shutil.which("zstd")), reason="age and zstd are needed"),
]
CHECKOUT = Path(__file__).resolve().parents[3]


class Controller:
    """Runs modules of this checkout on this machine."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        namespace = directory / "collections" / "ansible_collections" / "fluxhero"
        namespace.mkdir(parents=True)
        (namespace / "maintenance").symlink_to(CHECKOUT)
        self.output = ""

    def module(self, name: str, options: dict[str, Any], *flags: str) -> dict[str, Any]:
        words = ["-m", "ansible", "adhoc", "localhost", "-vvv", *flags, "-m", f"fluxhero.maintenance.{name}"]
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(self._directory / "collections"),
            "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_LOCAL_TEMP": str(self._directory / "tmp"),
            "ANSIBLE_REMOTE_TEMP": str(self._directory / "tmp"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_NOCOLOR": "1",
        }
        done = subprocess.run(
            [sys.executable, *words, "-a", json.dumps(options)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=self._directory,
            timeout=120,
        )
        self.output = done.stdout + done.stderr
        start = done.stdout.find("=> {")
        assert start >= 0, self.output
        result, _unused = json.JSONDecoder().raw_decode(done.stdout[start + 3 :])
        assert isinstance(result, dict)
        return {**result, "failed": "FAILED! =>" in done.stdout}


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


@pytest.fixture
def world(tmp_path: Path) -> backup_world.World:
    """A host with one full generation; its service has no units, so that no systemd is needed."""
    made = backup_world.build(tmp_path / "host")
    made.document["units"] = []
    config = made.config()
    generation.create(config, "full", journal=Journal(config.journal_file))
    made.rows(10)
    (made.root / ".env").write_text("API_TOKEN=rotated\nADDED=1\n")
    return made


@pytest.fixture(autouse=True)
def _directories(tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()


def rows(world: backup_world.World) -> int:
    connection = sqlite3.connect(world.database)
    try:
        return int(connection.execute("SELECT count(*) FROM trades").fetchone()[0])
    finally:
        connection.close()


def test_check_mode_plans_and_changes_nothing(controller: Controller, world: backup_world.World) -> None:
    options = {"include": ["databases", "config"], "config_file": str(world.config_file)}
    result = controller.module("restore_generation", options, "--check", "--diff")
    assert result["changed"] is True and result["result"] == "planned"
    assert f"{world.database}: from generation {result['generation_id']}" in result["diff"]["after"]
    assert rows(world) == 210 and not (world.top / "state" / "restore.json").exists()


def test_restore_then_nothing_to_do(controller: Controller, world: backup_world.World) -> None:
    identity = (world.keys / "operator.key").read_text()
    options = {
        "include": ["databases", "config"],
        "config_consent": True,
        "identity": identity,
        "config_file": str(world.config_file),
        "launcher": "inline",
    }
    result = controller.module("restore_generation", options, "--diff")
    assert result["changed"] is True and result["result"] == "restored", controller.output
    assert result["digests_equal"] is True and rows(world) == 200
    secret = next(line for line in identity.splitlines() if line.startswith("AGE-SECRET-KEY-"))
    assert secret not in controller.output
    assert backup_world.CANARY not in controller.output and "rotated" not in controller.output
    assert "API_TOKEN is changed" in result["diff"]["after"] and "ADDED is removed" in result["diff"]["after"]
    assert not list((world.top / "run").glob("identity-*")), "the identity is left on the host"
    assert controller.module("restore_generation", options, "--check")["changed"] is False
    assert controller.module("restore_generation", options)["changed"] is False


def test_failure_names_the_object_and_what_was_left(controller: Controller, world: backup_world.World) -> None:
    commit = next(world.store.rglob("COMMIT"))
    commit.chmod(0o600)
    generation_id = commit.parent.name
    commit.unlink()
    identity = (world.keys / "operator.key").read_text()
    options = {"generation": generation_id, "identity": identity, "config_file": str(world.config_file)}
    result = controller.module("restore_generation", {**options, "launcher": "inline"})
    assert result["failed"] is True and result["error"] == "IntegrityError"
    assert result["subject"].endswith(f"{generation_id}/COMMIT")
    assert rows(world) == 210
    assert not list((world.top / "run").glob("identity-*"))


def test_consent_is_asked_for_by_key_names(controller: Controller, world: backup_world.World) -> None:
    options = {
        "include": ["config"],
        "identity_file": str(world.keys / "operator.key"),
        "config_file": str(world.config_file),
        "launcher": "inline",
    }
    result = controller.module("restore_generation", options)
    assert result["failed"] is True and result["error"] == "ConsentNeeded"
    assert result["config_diff"][0]["changed"] == ["API_TOKEN"] and "rotated" not in controller.output
    assert (world.keys / "operator.key").exists(), "an identity that is the operator's own file stays"


def test_preflight_lists_every_mismatch(controller: Controller, world: backup_world.World) -> None:
    with sqlite3.connect(world.root / "data" / "forgotten.db") as connection:
        connection.execute("CREATE TABLE t(x)")
    connection.close()
    needs = [{"command": "python3", "min_version": "99.1", "for": "front end", "remedy": "install it"}]
    options = {"config_file": str(world.config_file), "units": False, "needs": needs}
    result = controller.module("service_preflight_info", options)
    assert result["failed"] is True and len(result["mismatches"]) == 2
    assert "forgotten.db" in result["msg"] and "older than 99.1, needed for front end; install it" in result["msg"]
    result = controller.module("service_preflight_info", {**options, "fail_on_mismatch": False}, "--check")
    assert result["ok"] is False and result["changed"] is False
    (world.root / "data" / "forgotten.db").unlink()
    result = controller.module("service_preflight_info", {"contract": world.document, "units": False})
    assert result["ok"] is True and result["facts"]["databases"]["trades"]["journal_mode"] == "delete"


def damage(database: Path) -> None:
    """Zero the first page of the table with the trades."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        [(root,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'trades'")
        [(size,)] = connection.execute("PRAGMA page_size")
    with open(database, "r+b") as stream:
        stream.seek((root - 1) * size)
        stream.write(bytes(size))


def test_salvage_plans_makes_and_then_has_nothing_to_do(controller: Controller, world: backup_world.World) -> None:
    damage(world.database)
    digest = sha256_file(world.database)
    identity = (world.keys / "operator.key").read_text()
    dest = world.top / "salvage"
    options = {"database": "trades", "dest": str(dest), "config_file": str(world.config_file)}
    planned = controller.module("sqlite_salvage", {**options, "identity": identity}, "--check")
    assert planned["changed"] is True and planned["result"] == "planned", controller.output
    assert planned["candidates"]["generation"]["available"] is True and planned["needed_bytes"] > 0
    assert not dest.exists()
    made = controller.module("sqlite_salvage", {**options, "identity": identity})
    assert made["changed"] is True and made["result"] == "salvaged", controller.output
    assert made["candidates"]["merged"]["usable"] is True and "in generation" in made["table"]
    assert made["candidates"]["merged"]["left_out"] == {"positions": 10}  # the trades they refer to are in doubt
    secret = next(line for line in identity.splitlines() if line.startswith("AGE-SECRET-KEY-"))
    assert secret not in controller.output
    assert not list((world.top / "run").glob("identity-*")), "the identity is left on the host"
    again = controller.module("sqlite_salvage", {**options, "identity": identity})
    assert again["changed"] is False and again["id"] == made["id"]
    assert sha256_file(world.database) == digest
    place = {"generation": f"salvage-{made['id']}.merged", "databases": ["trades"], "launcher": "inline"}
    placed = controller.module("restore_generation", {**place, "config_file": str(world.config_file)})
    assert placed["result"] == "restored", controller.output
    # Newer trades lay on the page that is gone, or on one that nothing points to: only what is proven comes back.
    assert rows(world) == 200
    refused = controller.module("sqlite_salvage", options)
    assert refused["failed"] is True and "is not a new or empty directory" in refused["msg"]
