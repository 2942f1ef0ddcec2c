# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose running service has a database that is mostly free pages."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

from fluxmaint.core.clock import Clock
from fluxmaint.service import upkeep_job
from fluxmaint.sqlite.size import measure
from restore_world import World, make_world

LIMITS: dict[str, Any] = {
    "window": {"days": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], "start": "00:00", "duration_s": 86400},
    "stop_units": True,
    "free_bytes": 100_000,
    "pause_s": 0.001,
    "stale_ratio": 100,  # the service writes a hundred rows a second
}
# So that a small database counts as one that keeps its writers waiting, or does not on any machine.
SLOW, FAST = {"stopped": 1e-6, "waiting": 1.0}, {"stopped": 1e-6, "waiting": 1e-7}


@dataclasses.dataclass
class UpkeepWorld(World):
    """The world of the restores, with upkeep."""

    def limit(self, **changes: Any) -> None:
        """Write the section of the configuration."""
        drop_ins = self.directory / "config.d"
        drop_ins.mkdir(exist_ok=True)
        (drop_ins / "database.json").write_text(json.dumps({"upkeep": {**LIMITS, **changes}}))

    def change(self, **changes: Any) -> None:
        """Change the contract's entry of the database."""
        path = self.directory / "config.json"
        document = json.loads(path.read_text())
        document["databases"][0].update(changes)
        path.write_text(json.dumps(document))

    def expect(self, seconds_per_byte: dict[str, float]) -> None:
        """Let an earlier run have measured how long a vacuum takes."""
        with self.journal.operation("maintain") as operation:
            operation.evidence = {"databases": {"trades": {"seconds_per_byte": seconds_per_byte}}}

    def plan_upkeep(self, **options: Any) -> dict[str, Any]:
        return upkeep_job.plan(self.config, service=self.service, journal=self.journal, **options)

    def maintain(self, **options: Any) -> dict[str, Any]:
        options.setdefault("service", self.service)
        return upkeep_job.run(self.config, journal=self.journal, clock=Clock(), **options)

    def finish(self, **options: Any) -> dict[str, Any] | None:
        options.setdefault("service", self.service)
        return upkeep_job.resume(self.config, journal=self.journal, clock=Clock(), **options)

    def free_pages(self) -> int:
        return measure(self.database, copy_dir=self.directory).freelist_count

    def bloat(self, rows: int = 60) -> None:
        """Free pages, by rows that come and go while the service writes."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=30)) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS bloat(data)")
            connection.executemany("INSERT INTO bloat VALUES (zeroblob(?))", [(20_000,)] * rows)
            connection.commit()
            connection.execute("DELETE FROM bloat")
            connection.commit()

    def require_whole(self) -> None:
        """Every promised row is there, the service runs and may be started, and nothing is left beside the database."""
        assert self.state() == "old"
        assert self.service.active() and not self.service.hold_file.exists()
        beside = {f"trades.db{suffix}" for suffix in ("", "-wal", "-shm", "-journal")} | {"cache"}
        assert {entry.name for entry in self.database.parent.iterdir()} <= beside
        kept = {entry.name for entry in self.config.state_dir.iterdir()}
        assert kept <= {"journal.jsonl"}, kept
        assert not list(self.config.state_dir.glob(".*"))


def make_upkeep_world(
    directory: Path, journal_mode: str = "delete", auto_vacuum: str = "none", *, running: bool = True, **limits: Any
) -> UpkeepWorld:
    """A running service with free pages and without statistics."""
    made = make_world(directory, journal_mode=journal_mode, start=False)
    world = UpkeepWorld(made.directory, made.journal_mode)
    world.limit(**limits)
    world.config.state_dir.mkdir(exist_ok=True)
    with contextlib.closing(sqlite3.connect(world.database)) as connection:
        connection.execute(f"PRAGMA auto_vacuum={auto_vacuum}")
        connection.execute("PRAGMA journal_mode=delete")
        connection.execute("VACUUM")
        connection.execute(f"PRAGMA journal_mode={journal_mode}")
    world.bloat()
    if running:
        start(world)
    return world


def start(world: UpkeepWorld) -> None:
    world.service.start(["writer.service"])
    deadline = time.monotonic() + 10
    while len(world.acknowledged()) < 3:
        assert time.monotonic() < deadline, (world.directory / "service.log").read_text()
        time.sleep(0.005)
