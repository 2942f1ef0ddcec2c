# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preflight against a small service on disk."""

from __future__ import annotations

import contextlib
import getpass
import grp
import os
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.core import config as configuration
from fluxmaint.core.errors import CommandError, InputError
from fluxmaint.service import preflight
from fluxmaint.service.preflight import Findings, Need
from fluxmaint.sqlite import hot_backup


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    root = tmp_path / "root"
    (root / "data").mkdir(parents=True)
    (root / "logs").mkdir()
    (root / ".env").write_text("A=1\n")
    (root / ".env").chmod(0o640)
    make(root / "data" / "trades.db")
    return {
        "format": 1,
        "service": "sample",
        "host": "here",
        "root": str(root),
        "user": getpass.getuser(),
        "group": grp.getgrgid(os.getegid()).gr_name,
        "units": ["a.service"],
        "databases": [
            {
                "name": "trades",
                "path": str(root / "data" / "trades.db"),
                "tables": {"trades": ["id", "pnl"]},
                "queries": {"newest": "SELECT max(id) FROM trades"},
                "invariants": [{"name": "ids", "sql": "SELECT count(*) FROM trades", "expect": 0}],
            }
        ],
        "config_files": [str(root / ".env")],
        "logs": {"directory": str(root / "logs")},
        "health": {},
    }


def make(path: Path, journal_mode: str = "delete") -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode={journal_mode}")
        connection.execute("CREATE TABLE trades(id INTEGER PRIMARY KEY, pnl REAL)")
    path.chmod(0o600)


def check(document: dict[str, Any], *needs: Need, **options: Any) -> Findings:
    options.setdefault("unit_state", lambda unit: "loaded")
    return preflight.check(configuration.parse(document), needs, **options)


def snapshot(top: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(top.rglob("*"))}


def test_contract_holds(document: dict[str, Any]) -> None:
    findings = check(document)
    assert findings.ok and findings.mismatches == [] and findings.warnings == []
    assert findings.facts["databases"]["trades"]["journal_mode"] == "delete"


def test_a_host_without_systemd_is_one_mismatch_among_others(document: dict[str, Any]) -> None:
    def unknown(_unit: str) -> str:
        raise CommandError("systemctl show ended with status 1: System has not been booted with systemd")

    document["units"] = ["a.service", "b.service"]
    document["databases"][0]["tables"] = {"missing": []}
    mismatches = check(document, unit_state=unknown).mismatches
    [told] = [text for text in mismatches if "systemd" in text]
    assert "cannot be asked for the units a.service, b.service" in told
    assert len(mismatches) > 1


def test_everything_wrong_is_listed_at_once(document: dict[str, Any]) -> None:
    database = document["databases"][0]
    database["tables"] = {"trades": ["id", "realized_pnl"], "positions": ["status"]}
    database["queries"] = {"newest": "SELECT max(exit_time) FROM live_trades", "two": "SELECT 1; SELECT 2"}
    database["invariants"] = [{"name": "bad", "sql": "SELECT nonsense(", "expect": 0}]
    document.update(user="no-such-user", group="no-such-group", logs={"directory": "/no/such/logs"})
    document["config_files"].append("/no/such/env")
    mismatches = check(
        document,
        Need("front end", command="no-such-command"),
        Need("staging", path=document["root"], free_bytes=1 << 60),
        unit_state=lambda unit: "not-found",
    ).mismatches
    for part in (
        "user no-such-user",
        "group no-such-group",
        "/no/such/logs: is not a directory",
        "/no/such/env: is named as configuration",
        "table trades lacks realized_pnl",
        "has no table positions",
        "query newest does not compile: no such table: live_trades",
        "query two does not compile",
        "invariant bad does not compile",
        "unit a.service: systemd says not-found",
        "command no-such-command",
        "are needed for staging",
    ):
        assert [text for text in mismatches if part in text], part
    assert len(mismatches) == 12


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_d29_looking_changes_nothing(document: dict[str, Any], journal_mode: str) -> None:
    """D29: asking for a wrong name neither succeeds nor creates a file."""
    root = Path(document["root"])
    make(root / "data" / "second.db", journal_mode)
    document["databases"].append({"name": "second", "path": str(root / "data" / "second.db")})
    document["databases"].append({"name": "missing", "path": str(root / "data" / "wrong-name.db")})
    before = snapshot(root)
    findings = check(document)
    assert snapshot(root).keys() == before.keys()
    assert {name: facts for name, facts in snapshot(root).items() if not Path(name).is_dir()} == {
        name: facts for name, facts in before.items() if not Path(name).is_dir()
    }
    assert len(findings.mismatches) == 1 and "wrong-name.db" in findings.mismatches[0]


def test_queries_are_compiled_and_not_run(document: dict[str, Any]) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    document["databases"][0]["queries"] = {"endless": endless, "writes": "DELETE FROM trades"}
    assert check(document).ok


def test_uncovered_database_is_found(document: dict[str, Any]) -> None:
    root = Path(document["root"])
    for name in ("data/forgotten.dat", "venv/lib/x.db", "front/node_modules/y.db", ".fluxmaint-restore-point-1/z.db"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        make(root / name)
    (root / "data" / "empty.db").touch()
    (root / "data" / "link.db").symlink_to("trades.db")
    findings = check(document)
    assert [text.partition(":")[0] for text in findings.mismatches] == [str(root / "data" / "forgotten.dat")]
    document["ignored_databases"] = [str(root / "data" / "forgotten.dat")]
    assert check(document).ok


def test_settings_that_nobody_backs_up_are_a_warning(document: dict[str, Any]) -> None:
    root = Path(document["root"])
    (root / "releases" / "r1" / "frontend").mkdir(parents=True)
    (root / "releases" / "r1" / ".env").symlink_to(root / ".env")
    for name in (".env.example", ".env.local.sample", ".env.1.2026-01-01@00:00:00~", ".envrc", "env.local"):
        (root / name).touch()
    assert check(document).warnings == []
    local = root / "releases" / "r1" / "frontend" / ".env.local"
    local.write_text("NEXT_PUBLIC_API=x\n")
    local.chmod(0o640)
    findings = check(document)
    assert findings.ok and findings.facts["uncovered_settings"] == [str(local)]
    assert [text for text in findings.warnings if str(local) in text and "service_config_files" in text]
    document["config_files"].append(str(local))
    assert check(document).warnings == []


def test_search_that_was_cut_short_is_not_a_pass(document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_WALK_LIMIT", 1)
    assert "not all were looked at" in check(document).mismatches[0]


def test_hazards_name_their_remedy(document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(document["root"])
    make(root / "data" / "wal.db", "wal")
    document["databases"].append({"name": "wal", "path": str(root / "data" / "wal.db")})
    document["databases"][0]["busy_timeout_s"] = 0.0
    (root / ".env").chmod(0o644)
    monkeypatch.setattr(hot_backup, "_WAIT_S_PER_BYTE", 1.0)
    monkeypatch.setattr(preflight.sqlite3, "sqlite_version_info", (3, 40, 1))
    findings = check(document)
    assert findings.ok
    for part in ("update SQLite to 3.51.3", "raise its busy timeout", "set its mode to 0640"):
        assert [text for text in findings.warnings if part in text], part
    monkeypatch.setattr(preflight.sqlite3, "sqlite_version_info", (3, 51, 3))
    assert not [text for text in check(document).warnings if "3.51.3" in text]


@pytest.mark.parametrize(("address", "warned"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_service_on_all_interfaces(document: dict[str, Any], address: str, warned: bool) -> None:
    with socket.create_server((address, 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        document["health"] = {"liveness": {"url": url, "timeout_s": 0.2}}
        findings = check(document)
    assert "liveness" in findings.mismatches[0], "nobody answers"
    assert bool([text for text in findings.warnings if "all interfaces" in text]) is warned
    assert check(document, endpoints=False).ok


def test_tool_versions(document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = tmp_path / "bin" / "node"
    node.parent.mkdir()
    node.write_text("#!/bin/sh\necho v18.19.1\n")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", f"{node.parent}:{os.environ['PATH']}")
    need = Need.from_dict({"command": "node", "min_version": "20.9", "for": "front end", "remedy": "switch it off"})
    assert check(document, need).mismatches == [
        "command node: version 18.19.1 is older than 20.9, needed for front end; switch it off"
    ]
    node.write_text("#!/bin/sh\necho v20.10.0\n")
    findings = check(document, need)
    assert findings.ok and findings.facts["tools"] == {"node": "20.10.0"}
    for wrong in ({"for": "x"}, {"command": "a", "path": "/b"}, {"command": "a", "surprise": 1}):
        with pytest.raises(InputError):
            Need.from_dict(wrong)


def test_targets_of_this_machine(document: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    local = {"name": "local", "type": "path", "path": str(tmp_path / "target")}
    document["backup"] = {"signer": "x", "targets": [local]}
    assert [text for text in check(document).warnings if "no target is elsewhere" in text]
    offsite = {
        "name": "offsite",
        "type": "s3",
        "endpoint": "http://store",
        "bucket": "b",
        "credentials_file": "/etc/x.json",
    }
    document["backup"]["targets"] = [local, offsite]
    assert check(document).warnings == []
    document["backup"]["targets"] = [{**local, "require_mount": True}, offsite]
    assert "is not a mount point" in check(document).mismatches[0]
    document["backup"]["targets"] = [local, {**local, "name": "again"}]
    assert "target again" in check(document).mismatches[0]
