# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a real generation in a real target, encrypted and signed, to a running service; also on a bare host."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.backup import generation, restore
from fluxmaint.backup.restore_plan import Request
from fluxmaint.backup.restore_source import StoreSource
from fluxmaint.core.clock import Clock
from fluxmaint.core.config import Config
from fluxmaint.core.errors import EngineError, IntegrityError, PreconditionError
from fluxmaint.core.journal import Journal
from restore_world import ProcessService

from tests.support import world as backup_world

pytestmark = pytest.mark.skipif(
    not (shutil.which("age") and shutil.which("zstd")), reason="the commands age and zstd are needed"
)

EVERYTHING = ("databases", "config", "cache", "logs", "system")
# Holds the database open and counts up in a file, as long as the database is what it expects.
SERVICE = """
import signal, sqlite3, sys, time
con = sqlite3.connect(f"file:{sys.argv[1]}?mode=rw", uri=True)
con.execute("SELECT count(*) FROM trades").fetchone()
running = [True]
signal.signal(signal.SIGTERM, lambda *_: running.clear())
while running:
    open(sys.argv[2], "a").write(".")
    time.sleep(0.01)
"""


class Host:
    """A host with a backup world, and its service."""

    def __init__(self, world: backup_world.World) -> None:
        self.world = world
        self.config: Config = world.config()
        self.journal = Journal(self.config.journal_file)
        ticks = world.top / "ticks"
        ticks.touch()
        command = [sys.executable, "-S", "-E", "-c", SERVICE, str(world.database), str(ticks)]
        self.service = ProcessService(world.top, command, lambda: ticks.stat().st_size, 2)

    def backup(self, kind: str = "full") -> str:
        return str(generation.create(self.config, kind, journal=self.journal)["id"])

    def source(self, **options: Any) -> StoreSource:
        identity = self.world.keys / options.pop("identity", "operator.key")
        return StoreSource(self.config, host="production", identity_file=identity, **options)

    def run(self, request: Request, **options: Any) -> dict[str, Any]:
        options.setdefault("source", self.source())
        return restore.run(
            self.config, request, service=self.service, clock=Clock(), journal=self.journal, **options
        )

    def newest_row(self) -> int:
        connection = sqlite3.connect(f"file:{self.world.database}?mode=ro", uri=True)
        try:
            return int(connection.execute("SELECT max(id) FROM trades").fetchone()[0])
        finally:
            connection.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(backup_world.build(tmp_path))
    made.service.start(["service"])
    yield made
    made.service.stop()


def contents(top: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of every file below a directory, links excepted."""
    return {
        str(path.relative_to(top)): (path.stat().st_mode, path.read_bytes())
        for path in sorted(top.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def test_rows_written_after_the_backup_are_gone(host: Host) -> None:
    identity = host.backup()
    host.world.rows(50)
    result = host.run(Request())
    assert (result["generation_id"], result["kind"], result["revision"]) == (identity, "full", "0123abcd")
    assert host.newest_row() == 200
    assert result["digests_equal"] is True and result["content_digests_equal"] is True
    assert host.service.active()


def test_newest_before_a_time(host: Host) -> None:
    first = host.backup("daily")
    time.sleep(1.1)
    second = host.backup("daily")
    assert first[:16] < second[:16]
    before = f"{second[:4]}-{second[4:6]}-{second[6:8]}T{second[9:11]}:{second[11:13]}:{second[13:15]}Z"
    assert host.run(Request(generation="", before=before))["generation_id"] == first


def test_a_bare_host_is_rebuilt_from_one_fetch(host: Host) -> None:
    """The way of a disaster recovery: everything once, then code, then data, then start."""
    host.backup()
    host.service.stop()
    root, unit = host.world.root, host.world.top / "fluxhero-backend.service"
    before, unit_text = contents(root), unit.read_text()
    shutil.rmtree(root)
    unit.unlink()
    fetched = host.run(Request(include=EVERYTHING, stage_only=True))
    assert not root.exists() and fetched["release"] == str(root / "releases" / "r1")

    code = host.run(
        Request(fetched["generation_id"], include=("system",), start_units=False, keep_stage=True), source=None
    )
    assert unit.read_text() == unit_text and code["fetched_bytes"] == 0
    release = root / "releases" / "r1"
    assert (release / "REVISION").read_text() == "0123abcd\n" and not (release / "venv").exists()
    assert os.readlink(release / "data") == "../../data"
    assert not (root / "current").is_symlink(), "the release is not switched before it is built"

    (root / "current").symlink_to("releases/r1")
    data = host.run(Request(fetched["generation_id"], include=("databases", "config", "cache", "logs")), source=None)
    assert data["result"] == "restored" and host.service.active()
    after = contents(root)
    assert {name for name in before if name not in after} == {"data/cache/notes.txt", "releases/r1/venv/bin/python"}
    assert set(after) - set(before) == {"data/HALT"}, "the new host does not trade yet"
    assert all(after[name] == before[name] for name in after if name not in ("data/trades.db", "data/HALT"))
    assert host.newest_row() == 200
    assert not list((host.config.state_dir / "staged").iterdir()), "decrypted secrets are left on the disk"


def test_d12_newest_data_is_restored_with_older_code(host: Host) -> None:
    """A daily generation holds no code: that comes from the full one before it, and both are staged at once."""
    full = host.backup()
    host.world.rows(50)
    daily = host.backup("daily")
    host.service.stop()
    root = host.world.root
    shutil.rmtree(root)
    data = host.run(Request(daily, include=("databases", "config", "cache", "logs"), stage_only=True))
    code = host.run(Request(full, include=("system",), stage_only=True))
    assert (data["release"], data["revision"]) == (code["release"], code["revision"])
    assert (data["kind"], code["kind"]) == ("daily", "full")

    host.run(Request(full, include=("system",), start_units=False, keep_stage=True), source=None)
    assert (root / "releases" / "r1" / "REVISION").read_text() == "0123abcd\n"
    (root / "current").symlink_to("releases/r1")
    restored = host.run(Request(daily, include=("databases", "config", "cache", "logs")), source=None)
    assert restored["result"] == "restored" and restored["generation_id"] == daily and restored["fetched_bytes"] == 0
    assert host.newest_row() == 250 and host.service.active()
    assert not list((host.config.state_dir / "staged").iterdir()), "decrypted secrets are left on the disk"


def test_release_link_is_switched_and_switched_back(host: Host) -> None:
    identity = host.backup()
    root = host.world.root
    (root / "current").unlink()
    (root / "releases" / "r2").mkdir()
    (root / "current").symlink_to("releases/r2")
    (root / "releases" / "r1" / "REVISION").write_text("changed\n")

    def spoil(event: str, name: str) -> None:
        if (event, name) == ("recorded", "place"):
            (root / "releases" / "r1" / "REVISION").write_text("spoiled\n")

    request = Request(identity, include=("system",), switch_release=True)
    with pytest.raises(restore.RestoreFailed):
        host.run(request, progress=spoil)
    assert os.readlink(root / "current") == "releases/r2"
    assert (root / "releases" / "r1" / "REVISION").read_text() == "changed\n"
    host.run(request)
    assert os.readlink(root / "current") == "releases/r1"
    assert (root / "releases" / "r1" / "REVISION").read_text() == "0123abcd\n"


def flip(host: Host, prefix: Path) -> None:
    data = bytearray((prefix / "db-trades.sqlite.zst.age").read_bytes())
    data[-100] ^= 1
    (prefix / "db-trades.sqlite.zst.age").write_bytes(data)


def uncommit(host: Host, prefix: Path) -> None:
    (prefix / "COMMIT").unlink()


def sign_otherwise(host: Host, prefix: Path) -> None:
    (prefix / "MANIFEST.json.sig").unlink()
    key = host.world.keys / "foreign_ed25519"
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", "fluxmaint-manifest", prefix / "MANIFEST.json"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("sabotage", "named"),
    [(flip, "db-trades.sqlite.zst.age"), (uncommit, "COMMIT"), (sign_otherwise, "MANIFEST.json.sig")],
)
def test_d19_bad_generation_costs_no_downtime(
    host: Host, sabotage: Callable[[Host, Path], None], named: str
) -> None:
    identity = host.backup()
    prefix = next(path for path in host.world.store.rglob(identity) if path.is_dir() and (path / "COMMIT").exists())
    for path in prefix.iterdir():
        path.chmod(0o600)
    sabotage(host, prefix)
    events: list[str] = []
    with pytest.raises(IntegrityError) as caught:
        host.run(Request(identity), progress=lambda event, name: events.append(f"{event}:{name}"))
    assert caught.value.subject.endswith(named)
    assert events == ["begin:stage"] and host.service.active()
    assert not (host.config.state_dir / "staged" / identity).exists()


def test_wrong_identity_costs_no_downtime(host: Host) -> None:
    identity = host.backup()
    with pytest.raises(EngineError) as caught:
        host.run(Request(identity), source=host.source(identity="stranger.key"))
    assert "db-trades" in caught.value.subject or "stranger" in str(caught.value)
    assert host.service.active()


def test_preview_needs_no_identity_and_changes_nothing(host: Host) -> None:
    identity = host.backup()
    host.world.rows(1)
    source = StoreSource(host.config, host="production")
    files = contents(host.world.top)
    planned = restore.preview(host.config, Request(include=EVERYTHING), source=source)
    assert planned["generation_id"] == identity and planned["changed"] is True
    actions = {Path(file["path"]).name: file["action"] for file in planned["files"]}
    assert (actions["trades.db"], actions[".env"]) == ("replace", "keep")
    now = contents(host.world.top)
    assert {name: now[name] for name in now if name != "ticks"} == {n: files[n] for n in files if n != "ticks"}
    with pytest.raises(EngineError, match="identity"):
        host.run(Request(), source=source)
    assert host.service.active()


def test_disk_too_small_for_the_stage(host: Host, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    host.backup()
    state = host.config.state_dir
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", state]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        with pytest.raises(PreconditionError, match="bytes are needed"):
            host.run(Request())
        assert host.service.active()
    finally:
        subprocess.run(["umount", "-l", state], check=True)
