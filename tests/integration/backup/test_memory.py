"""Memory does not grow with the size of the data."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.seaweed import ObjectStore
    from tests.support.world import World

REPOSITORY = Path(__file__).resolve().parents[3]
LIMIT_BYTES = 150 * 1000 * 1000
ROWS = 500


@pytest.mark.timeout(600)
def test_500_mb_through_an_object_store_and_back_below_150_mb(
    world: World, tmp_path: Path, object_store: ObjectStore
) -> None:
    con = sqlite3.connect(world.database)
    con.execute("PRAGMA synchronous = OFF")
    con.execute("CREATE TABLE blobs(id INTEGER PRIMARY KEY, data BLOB)")
    for _unused in range(ROWS):
        with con:
            con.execute("INSERT INTO blobs(data) VALUES (?)", (os.urandom(1 << 20),))
    con.close()
    assert world.database.stat().st_size > 500_000_000
    world.config(targets=[object_store.target("memory"), world.target()], compression_level=1)
    command = [sys.executable, "-m", "tests.support.backup_driver", str(world.config_file), "daily"]
    command += ["--fetch-to", str(tmp_path / "out"), "--keys", str(world.keys)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["stored_bytes"] > 500_000_000
    assert result["peak_bytes"] < LIMIT_BYTES, result["peak_bytes"]
    assert result["children_peak_bytes"] < LIMIT_BYTES, result["children_peak_bytes"]
