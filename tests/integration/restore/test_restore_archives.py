# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of old rows are part of each generation, and come back with their database."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.backup import generation
from fluxmaint.backup.restore_plan import Request
from fluxmaint.core import config as configuration
from fluxmaint.core.errors import IntegrityError
from fluxmaint.service import preflight
from fluxmaint.sqlite import archive, archive_query
from test_restore_from_store import Host

from tests.support import world as backup_world

pytestmark = pytest.mark.skipif(
    not (shutil.which("age") and shutil.which("zstd")), reason="the commands age and zstd are needed"
)

QUERY = "SELECT id, timestamp AS time FROM trades WHERE julianday(timestamp) < julianday(:cutoff)"


class ArchivingHost(Host):
    """A host whose old trades are archived."""

    @property
    def directory(self) -> Path:
        return self.world.root / "data" / "archive"

    def archive(self, **options: Any) -> dict[str, Any]:
        return archive.run(self.config, journal=self.journal, delete=True, **options)

    def state(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = archive_query.info(self.config)["tables"][0]["files"]
        return found

    def all_trades(self) -> list[Any]:
        return archive_query.query(self.config, "SELECT id, timestamp, pnl FROM trades ORDER BY id").rows


@pytest.fixture
def host(tmp_path: Path) -> Iterator[ArchivingHost]:
    world = backup_world.build(tmp_path)
    world.document["archives"] = {
        "directory": str(world.root / "data" / "archive"),
        "tables": [{"name": "trades", "database": "trades", "query": QUERY}],
    }
    con = sqlite3.connect(world.database)
    with con:
        for month in range(1, 5):
            con.executemany(
                "INSERT INTO trades(timestamp, symbol, pnl) VALUES (?, 'OLD', ?)",
                [(f"2025-{month:02}-{day:02}T10:00:00Z", day / 7) for day in range(1, 29)],
            )
        con.execute("INSERT INTO trades(timestamp, symbol) VALUES (strftime('%Y-%m-%dT%H:%M:%SZ'), 'SPY')")
    con.close()
    made = ArchivingHost(world)
    made.service.start(["service"])
    yield made
    made.service.stop()


def test_a_restore_brings_the_archives_back(host: ArchivingHost) -> None:
    before = host.all_trades()
    host.backup("daily")
    assert host.archive()["deleted"] == 112
    assert host.all_trades() == before
    taken = generation.create(host.config, "daily", journal=host.journal)
    assert taken["result"] == "ok", "rows that went into archives are not lost rows"
    assert taken["cache"]["new"] >= 4
    archives = host.state()
    again = generation.create(host.config, "daily", journal=host.journal)
    assert again["cache"]["new"] == 0, "archives that did not change are stored once"

    shutil.rmtree(host.directory)
    con = sqlite3.connect(host.world.database)
    con.execute("DELETE FROM trades")
    con.commit()
    con.close()
    result = host.run(Request(generation=again["id"]))
    assert result["result"] == "restored"
    assert host.state() == archives, "same rows, same digests"
    assert host.all_trades() == before
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in host.directory.iterdir())


def test_an_archive_that_is_there_stays(host: ArchivingHost) -> None:
    """An older generation's archive lacks what has left the database since."""
    host.archive(older_than_days=600)
    old = host.backup("daily")
    con = sqlite3.connect(host.world.database)
    con.execute("INSERT INTO trades(id, timestamp, symbol) VALUES (90001, '2025-02-01T00:00:00Z', 'LATE')")
    con.execute("INSERT INTO trades(timestamp, symbol) VALUES (strftime('%Y-%m-%dT%H:%M:%SZ'), 'SPY')")
    con.commit()
    con.close()
    host.archive()
    before = host.state()
    assert host.run(Request(generation=old, include=("cache",)))["result"] == "restored"
    assert host.state() == before
    assert host.run(Request(generation=old))["result"] == "restored"
    assert host.state() == before
    host.run(Request(generation=old, include=("databases", "cache")))
    assert host.state() != before, "asked for by name, together with the database"


def test_lost_rows_are_still_told_from_archived_ones(host: ArchivingHost) -> None:
    host.backup("daily")
    host.archive()
    con = sqlite3.connect(host.world.database)
    for table in ("positions", "trades"):
        con.execute(f"DELETE FROM {table} WHERE id % 2")
    con.commit()
    con.close()
    with pytest.raises(IntegrityError, match="lost more than 20%"):
        host.backup("daily")


def test_the_preflight_knows_archives_and_compiles_their_queries(host: ArchivingHost) -> None:
    host.archive()
    partial = host.directory / "trades_archive_202506.db.partial"
    shutil.copy(host.directory / "trades_archive_202501.db", partial)
    assert preflight.check(host.config, unit_state=None, endpoints=False).mismatches == []
    stray = host.directory / "old_archive_202501.db"
    partial.rename(stray)
    [told] = preflight.check(host.config, unit_state=None, endpoints=False).mismatches
    assert told.startswith(f"{stray}: is a SQLite database that the contract does not name")
    stray.unlink()
    document = json.loads(host.world.config_file.read_text())
    for query, message in (
        ("SELECT id, moment AS time FROM trades", "no such column: moment"),
        ("SELECT id FROM trades", "no such column: q.time"),
        ("DELETE FROM trades", "not one SELECT"),
    ):
        document["archives"]["tables"][0]["query"] = query
        [told] = preflight.check(configuration.parse(document), unit_state=None, endpoints=False).mismatches
        assert told.startswith("archive trades: ") and message in told
