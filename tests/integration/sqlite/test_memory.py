"""Memory stays below 150 MB whatever the size: a 500 MB database, in both journal modes, in a fresh process."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlite_lab import HERE

LIMIT_BYTES = 150_000_000
CODE = """
import json, sys
sys.path.append(sys.argv[3])
import conftest
from pathlib import Path
from fluxmaint.sqlite import fingerprint, hot_backup, integrity
source, copy = Path(sys.argv[1]), Path(sys.argv[2])
taken = hot_backup.backup(source, copy, verify="quick")
report = integrity.check(copy, "full", immutable=True)
digests = fingerprint.content_digests(copy, immutable=True)
print(json.dumps({
    # ru_maxrss would include the peak of the process that started this one.
    "peak": [int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")][0],
    "bytes": taken.bytes, "ok": report.ok, "rows": digests["t"]["rows"], "method": taken.method,
}))
"""


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_memory_is_bounded_for_a_database_of_500_mb(tmp_path: Path, mode: str) -> None:
    source = tmp_path / "large.db"
    con = sqlite3.connect(source)
    con.execute(f"PRAGMA journal_mode={mode}")
    con.execute("PRAGMA synchronous=OFF")
    # Most of a WAL database lies in its log, which is folded into the snapshot.
    con.execute("PRAGMA wal_autocheckpoint=0")
    con.execute("CREATE TABLE t(a TEXT, b BLOB)")
    con.execute(
        "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 130000)"
        " INSERT INTO t SELECT 'row ' || i, randomblob(3900) FROM r"
    )
    con.commit()
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(source), str(tmp_path / "copy.db"), str(HERE.parents[1])],
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    con.close()
    result = json.loads(done.stdout)
    assert result["bytes"] > 500_000_000
    assert result["ok"]
    assert result["rows"] == 130_000
    assert result["peak"] < LIMIT_BYTES
