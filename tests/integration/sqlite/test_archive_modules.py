# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules that archive rows and tell of archives, run for real by Ansible on this machine."""

from __future__ import annotations

import getpass
import grp
import json
import os
import sqlite3
from pathlib import Path

import pytest
from test_sqlite_modules import ANSIBLE, Modules

pytestmark = pytest.mark.skipif(not ANSIBLE.exists(), reason="no ansible beside this Python")


@pytest.fixture
def modules(tmp_path_factory: pytest.TempPathFactory) -> Modules:
    return Modules(tmp_path_factory.mktemp("collections"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    con = sqlite3.connect(tmp_path / "trades.db")
    with con:
        con.execute("CREATE TABLE trades(id INTEGER PRIMARY KEY, timestamp TEXT)")
        con.execute("INSERT INTO trades(timestamp) VALUES ('2025-01-02'), ('2025-02-03T10:00:00+01:00'), ('soon')")
        con.execute("INSERT INTO trades(timestamp) VALUES (strftime('%Y-%m-%dT%H:%M:%SZ'))")
    con.close()
    (tmp_path / "state").mkdir()
    query = "SELECT id, timestamp AS time FROM trades"
    document = {
        "format": 1,
        "service": "fluxhero",
        "host": "production",
        "root": str(tmp_path),
        "user": getpass.getuser(),
        "group": grp.getgrgid(os.getegid()).gr_name,
        "units": [],
        "databases": [{"name": "main", "path": str(tmp_path / "trades.db")}],
        "archives": {
            "directory": str(tmp_path / "archive"),
            "tables": [{"name": "trades", "database": "main", "query": query}],
        },
        "health": {},
        "state_dir": str(tmp_path / "state"),
        "run_dir": str(tmp_path / "run"),
    }
    file = tmp_path / "config.json"
    file.write_text(json.dumps(document))
    return file


def test_archive_in_check_mode_for_real_and_again(modules: Modules, config: Path) -> None:
    directory = config.parent / "archive"
    arguments = {"config_file": str(config), "delete": True}
    planned = modules("sqlite_archive", "--check", **arguments)
    assert planned["changed"] and planned["archived"] == 2 and not directory.exists()
    files = [str(directory / f"trades_archive_{month}.db") for month in ("202501", "202502")]
    done = modules("sqlite_archive", **arguments)
    assert (done["changed"], done["archived"], done["deleted"], done["result"]) == (True, 2, 2, "degraded")
    assert "1 rows have a time that cannot be read" in done["problems"][0]
    assert sorted(map(str, directory.iterdir())) == files
    assert modules("sqlite_archive", **arguments)["changed"] is False
    strict = modules("sqlite_archive", fail_on_degraded=True, **arguments)
    assert strict["state_word"] == "FAILED" and "needs a person" in strict["msg"]


def test_archive_info_asks_both_and_names_damage(modules: Modules, config: Path) -> None:
    modules("sqlite_archive", config_file=str(config), delete=True)
    told = modules("sqlite_archive_info", config_file=str(config), query="SELECT count(*) AS n FROM trades")
    assert told["changed"] is False and told["ok"] and told["tables"][0]["rows"] == 2
    assert told["answer"]["columns"] == ["n"] and told["answer"]["rows"] == [[4]]
    damaged = config.parent / "archive" / "trades_archive_202501.db"
    damaged.write_bytes(damaged.read_bytes().replace(b"2025-01-02", b"2025-01-03"))
    told = modules("sqlite_archive_info", config_file=str(config))
    assert not told["ok"] and str(damaged) in told["problems"][0]
    refused = modules("sqlite_archive", config_file=str(config))
    assert refused["state_word"] == "FAILED" and str(damaged) in refused["msg"]
    assert refused["error"] == "IntegrityError"
