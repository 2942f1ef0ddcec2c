"""RESTORE.txt, executed as it stands, with nothing but the tools that it names."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
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


def test_the_text_names_the_real_objects(copied: Path) -> None:
    text = (copied / "RESTORE.txt").read_text()
    for name in os.listdir(copied):
        if name.endswith(".age"):
            assert name in text
    assert subprocess.run(["bash", "-n", "RESTORE.txt"], cwd=copied, check=False).returncode == 0
