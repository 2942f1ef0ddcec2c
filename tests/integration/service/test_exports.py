# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract's exports, by the command line, with archives, and what the preflight says of them."""

from __future__ import annotations

import csv
import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.cli.main import main
from fluxmaint.core.config import parse
from fluxmaint.core.errors import ConfigError
from fluxmaint.core.journal import Journal
from fluxmaint.core.lease import Lease
from fluxmaint.service import preflight
from fluxmaint.sqlite import archive

MONTH = "SELECT * FROM trades WHERE timestamp >= :begin AND timestamp < :end ORDER BY timestamp, id"


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    root = tmp_path / "root"
    for directory in ("data", "exports"):
        (root / directory).mkdir(parents=True)
    con = sqlite3.connect(root / "data/trades.db")
    con.execute("CREATE TABLE trades(id INTEGER PRIMARY KEY, timestamp TEXT, symbol TEXT, status TEXT)")
    con.executemany(
        "INSERT INTO trades(timestamp, symbol, status) VALUES (?, 'SPY', ?)",
        [
            (f"2025-{month:02}-{day:02}T12:00:00Z", "open" if day == 28 else "closed")
            for month in (5, 6, 7)
            for day in range(1, 29)
        ],
    )
    con.commit()
    con.close()
    return {
        "format": 1,
        "service": "sample",
        "host": "here",
        "root": str(root),
        "user": "root",
        "group": "root",
        "units": [],
        "databases": [{"name": "trades", "path": str(root / "data/trades.db")}],
        "archives": {
            "directory": str(root / "data/archive"),
            "tables": [
                {
                    "name": "trades",
                    "database": "trades",
                    "query": "SELECT id, timestamp AS time FROM trades WHERE status = 'closed' AND timestamp < :cutoff",
                }
            ],
        },
        "exports": {
            "directory": str(root / "exports"),
            "time_zone": "America/New_York",
            "queries": [
                {"name": "trades", "database": "trades", "query": MONTH, "require_rows": True},
                {
                    "name": "closed",
                    "database": "trades",
                    "query": MONTH.replace("WHERE", "WHERE status = 'closed' AND"),
                },
            ],
        },
        "health": {},
        "state_dir": str(tmp_path / "state"),
        "run_dir": str(tmp_path / "run"),
    }


def call(document: dict[str, Any], capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    file = Path(document["root"]).parent / "config.json"
    file.write_text(json.dumps(document))
    code = main([*arguments, "--json", "--config", str(file)])
    return code, json.loads(capsys.readouterr().out)


def test_each_export_of_a_month_by_the_command_line(
    document: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    place = Path(document["exports"]["directory"])
    code, planned = call(document, capsys, "export", "--month", "2025-06", "--dry-run")
    assert (code, planned["changed"], list(place.iterdir())) == (0, True, [])
    left = Path(document["state_dir"]) / "exports/.snapshot-0123456789abcdef.fluxmaint-export"
    left.write_bytes(b"of a run that was killed")
    code, done = call(document, capsys, "export", "--month", "2025-06")
    assert (code, done["changed"]) == (0, True)
    assert {name: item["rows"] for name, item in done["exports"].items()} == {"trades": 28, "closed": 27}
    assert {name: item["sha256"] for name, item in done["exports"].items()} == {
        name: hashlib.sha256((place / f"{name}_202506.csv").read_bytes()).hexdigest() for name in ("trades", "closed")
    }
    assert len(list(place.iterdir())) == 6
    assert list((Path(document["state_dir"]) / "exports").iterdir()) == []
    code, again = call(document, capsys, "export", "--month", "2025-06", "trades")
    assert (code, again["changed"], list(again["exports"])) == (0, False, ["trades"])
    last = Journal(Path(document["state_dir"]) / "journal.jsonl").read("export")[-1]
    assert (last["result"], last["rows"], last["changed"], last["path"]) == (
        *("ok", 28, False),
        str(place / "trades_202506.csv"),
    )


def test_one_that_fails_does_not_keep_the_others(document: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    code, done = call(document, capsys, "export", "--month", "2025-08")
    assert code == 3
    assert "gives no row" in done["exports"]["trades"]["error"]
    assert done["exports"]["closed"]["rows"] == 0
    code, failed = call(document, capsys, "export", "--month", "2025-08", "trades")
    assert (code, failed["error"]) == (1, "PreconditionError")
    assert call(document, capsys, "export", "nothing")[0] == 2
    assert call(document, capsys, "export", "--month", "last")[0] == 2
    with Lease(Path(document["run_dir"]) / "export.lock", purpose="test"):
        assert call(document, capsys, "export")[0] == 4


def test_rows_that_went_into_archives_are_exported_once(
    document: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    _code, before = call(document, capsys, "export", "--month", "2025-06")
    config = parse(document)
    moved = archive.run(config, delete=True, accept_clock=True, journal=Journal(config.journal_file))
    assert moved["deleted"] == 81
    code, after = call(document, capsys, "export", "--month", "2025-06")
    assert code == 0, after
    for name, item in after["exports"].items():
        assert item["sha256"] == before["exports"][name]["sha256"], name
        assert len(item["read"]["archives"]) == 3
    # A row that is in both counts as it is in the database.
    con = sqlite3.connect(config.databases[0].path)
    con.execute("INSERT INTO trades VALUES (29, '2025-06-01T12:00:00Z', 'changed', 'closed')")
    con.commit()
    con.close()
    call(document, capsys, "export", "--month", "2025-06")
    with open(Path(document["exports"]["directory"]) / "trades_202506.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 28
    assert [row["symbol"] for row in rows if row["id"] == "29"] == ["changed"]


def test_d25_the_preflight_compiles_each_export(document: dict[str, Any]) -> None:
    document["exports"]["queries"] += [
        {"name": "guess", "database": "trades", "query": MONTH.replace("timestamp", "executed_at")},
        {
            "name": "window",
            "database": "trades",
            "query": "SELECT * FROM trades WHERE timestamp > date('now', '-30 days')",
        },
        {"name": "writes", "database": "trades", "query": "DELETE FROM trades WHERE :begin < :end"},
    ]
    found = preflight.check(parse(document), unit_state=None, endpoints=False).mismatches
    about = {text.partition(":")[0]: text for text in found if text.startswith("export ")}
    assert set(about) == {"export guess", "export window", "export writes"}
    assert "executed_at" in about["export guess"]
    assert "does not use :begin and :end" in about["export window"]
    document["exports"]["time_zone"] = "Mars/Olympus"
    assert any(
        "Mars/Olympus" in text for text in preflight.check(parse(document), unit_state=None, endpoints=False).mismatches
    )


def test_mistakes_of_the_configuration_are_named(document: dict[str, Any]) -> None:
    document["exports"]["queries"] = [
        {"name": "a/b", "database": "other", "query": "SELECT 1", "format": "xml"},
        {"name": "same", "database": "trades", "query": "SELECT 1", "format": "parquet", "spreadsheet": True},
        {"name": "same", "database": "trades", "query": "SELECT 1", "blob": "hex"},
    ]
    with pytest.raises(ConfigError) as wrong:
        parse(document)
    text = str(wrong.value)
    for said in (
        "becomes the name of a file",
        "'other' is not one of databases",
        "format must be one of csv, parquet",
        "spreadsheet needs the format csv",
        "more than once",
        "blob is not a known key",
    ):
        assert said in text
