"""RESTORE.txt, executed as it stands, with nothing but the tools that it names."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.world import World

TOOLS = ("bash", "age", "zstd", "tar", "ssh-keygen", "cat", "cut", "sha256sum", "mkdir", "rm", "dirname", "mv")
TOOLS += ("install", "ln", "sync", "chmod", "chown", "date", "rmdir")


@pytest.fixture
def copied(world: World, tmp_path: Path) -> Path:
    """The objects of a full generation, copied as the text says, in the directory of RESTORE.txt."""
    identity = world.create("full")["id"]
    source = world.store / "fluxhero/production"
    shutil.copytree(source / "generations" / identity, tmp_path / "hand/generations" / identity)
    shutil.copytree(source / "cache", tmp_path / "hand/cache")
    return tmp_path / "hand/generations" / identity


def restore(copied: Path, world: World, **more: str) -> subprocess.CompletedProcess[str]:
    tools = world.top / "tools"
    tools.mkdir(exist_ok=True)
    for name in TOOLS:
        if not (tools / name).exists():
            (tools / name).symlink_to(shutil.which(name) or name)
    environment = {
        "PATH": str(tools),
        "IDENTITY": str(world.keys / "escrow.key"),
        "SIGNERS": str(world.keys / "allowed_signers"),
        **more,
    }
    command = [str(tools / "bash"), "RESTORE.txt"]
    return subprocess.run(command, cwd=copied, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_d11_the_printed_commands_restore_everything(world: World, copied: Path, tmp_path: Path) -> None:
    unpacked = restore(copied, world)
    assert unpacked.returncode == 0, unpacked.stderr
    assert "Nothing was put into place" in unpacked.stdout
    root = tmp_path / "machine"
    for suffix in ("", "-wal"):  # what lies there is moved away as one set
        old = root / str(world.database.parent).lstrip("/") / f"trades.db{suffix}"
        old.parent.mkdir(parents=True, exist_ok=True)
        old.write_text("old")
    placed = restore(copied, world, ROOT=str(root))
    assert placed.returncode == 0, placed.stderr
    below = root / str(world.root).lstrip("/")
    for name in (".env", "logs/old/fluxhero.log", "data/cache/daily/qqq.parquet", "releases/r1/REVISION"):
        assert (below / name).read_bytes() == (world.root / name).read_bytes(), name
    assert (below / ".env").stat().st_mode & 0o777 == 0o640
    databases = [top / "data/trades.db" for top in (below, world.root)]
    rows = [sqlite3.connect(path).execute("SELECT * FROM trades").fetchall() for path in databases]
    assert rows[0] == rows[1]
    [replaced_top] = copied.glob("replaced-*")
    replaced = replaced_top / str(world.database).lstrip("/")
    assert (replaced.read_text(), Path(f"{replaced}-wal").read_text()) == ("old", "old")
    assert not (below / "data/trades.db-wal").exists()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("db-trades.sqlite.zst.age", "FAILED"), ("MANIFEST.json", ""), ("COMMIT", "")],
)
def test_the_commands_stop_at_damage(world: World, copied: Path, name: str, complaint: str) -> None:
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    done = restore(copied, world, ROOT="/nonexistent")
    assert done.returncode != 0
    assert complaint in done.stdout + done.stderr
    assert not (copied / "restored").exists()


def test_the_commands_stop_at_a_foreign_signature(world: World, copied: Path) -> None:
    signers = world.keys / "allowed_signers"
    signers.write_text("fluxhero@production " + (world.keys / "foreign_ed25519.pub").read_text())
    done = restore(copied, world)
    assert done.returncode != 0
    assert not (copied / "restored").exists()


def test_what_was_moved_aside_once_is_never_replaced(world: World, copied: Path, tmp_path: Path) -> None:
    root = tmp_path / "machine"
    env = root / str(world.root / ".env").lstrip("/")
    env.parent.mkdir(parents=True)
    env.write_text("the only copy")
    for _unused in range(2):
        assert restore(copied, world, ROOT=str(root)).returncode == 0
        time.sleep(1.1)
    [kept] = [path for path in copied.glob("replaced-*/**/.env") if path.read_text() == "the only copy"]
    assert kept.stat().st_mtime <= env.stat().st_mtime
    link = root / str(world.root / "current").lstrip("/")
    assert os.readlink(link) == "releases/r1"


def test_nothing_is_moved_while_a_database_is_open(world: World, copied: Path, tmp_path: Path) -> None:
    database = tmp_path / "machine" / str(world.database).lstrip("/")
    database.parent.mkdir(parents=True)
    database.write_text("in use")
    with database.open():
        done = restore(copied, world, ROOT=str(tmp_path / "machine"))
    assert done.returncode != 0
    assert f"is open in process {os.getpid()}" in done.stderr
    assert database.read_text() == "in use" and not list(copied.glob("replaced-*"))


def test_nothing_is_moved_when_an_owner_is_missing(world: World, copied: Path, tmp_path: Path) -> None:
    # Not the real text, whose owners exist here: what is asked is asked of the name that it holds.
    text = (copied / "RESTORE.txt").read_text()
    changed = re.sub("^has_owner .*", "has_owner nobody-of-this-name nobody-of-this-name", text, flags=re.MULTILINE)
    assert changed != text
    (copied / "RESTORE.txt").write_text(changed)
    done = restore(copied, world, ROOT=str(tmp_path / "machine"))
    assert done.returncode != 0
    assert "no user nobody-of-this-name" in done.stderr
    assert not (tmp_path / "machine").exists()


def test_what_was_unpacked_is_checked_again(world: World, copied: Path, tmp_path: Path) -> None:
    assert restore(copied, world).returncode == 0
    [unpacked] = (copied / "restored").glob("logs/**/fluxhero.log.1")
    unpacked.write_text("changed\n")
    done = restore(copied, world, ROOT=str(tmp_path / "machine"))
    assert done.returncode != 0
    assert "fluxhero.log.1: FAILED" in done.stdout
    assert not (tmp_path / "machine").exists()


def test_the_text_names_the_real_objects(copied: Path) -> None:
    text = (copied / "RESTORE.txt").read_text()
    for name in os.listdir(copied):
        if name.endswith(".age"):
            assert name in text
    assert subprocess.run(["bash", "-n", "RESTORE.txt"], cwd=copied, check=False).returncode == 0
