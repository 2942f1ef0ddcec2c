# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each profile's queries, against the schemas of the sample service: closed rows leave, open ones stay."""

from __future__ import annotations

import ast
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from archive_world import NOW, World

PROJECT = Path(__file__).resolve().parents[3]


def schema(*names: str) -> str:
    """Tables of the sample service, whose own modules need more than these tests have."""
    text = (PROJECT / "tests" / "sample_service" / "fluxhero" / "backend" / "storage.py").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith("_SCHEMA"):
            exec(compile(ast.Module([node], []), "storage.py", "exec"), found)
    return "".join(found[name] for name in names)


def contract(profile: str) -> list[dict[str, Any]]:
    text = (PROJECT / "roles" / "service" / "vars" / "main" / f"{profile}.yml").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = yaml.safe_load(text)[f"__service_{profile}"]["archives"]
    return [{**table, "database": "trades"} for table in found]


def days_ago(days: float) -> str:
    return (NOW - timedelta(days=days)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_guide(tmp_path: Path) -> None:
    world = World(tmp_path, schema("COMMON_SCHEMA", "GUIDE_SCHEMA"))
    world.tables = contract("guide")
    trades = [
        ("SPY", "BUY", days_ago(200)),
        ("SPY", "SELL", days_ago(190)),
        ("QQQ", "BUY", days_ago(200)),
        ("QQQ", "SELL", days_ago(180)),
        ("QQQ", "BUY", days_ago(170)),  # the one that opened the position that is held
        ("QQQ", "BUY", days_ago(160)),
        ("SPY", "BUY", days_ago(10)),
        ("SPY", "BUY", "unreadable"),
    ]
    with world.live() as con:
        con.executemany(
            "INSERT INTO trades(symbol, side, timestamp, quantity, price, status) VALUES (?, ?, ?, 1, 1, 'filled')",
            trades,
        )
        con.execute(
            "INSERT INTO positions(symbol, quantity, entry_price, status, opened_at) VALUES ('QQQ', 1, 1, 'open', ?)",
            (days_ago(170),),
        )
        con.execute(
            "INSERT INTO positions(symbol, quantity, entry_price, status, opened_at, closed_at)"
            " VALUES ('SPY', 1, 1, 'closed', ?, ?)",
            (days_ago(200), days_ago(190)),
        )
    result = world.archive(delete=True)
    assert sorted(row[0] for row in world.archived()) == [1, 2, 3, 4]
    assert [row[0] for row in world.lives()] == [5, 6, 7, 8]
    assert result["tables"][0]["unreadable"] == 1


def test_upstream(tmp_path: Path) -> None:
    world = World(tmp_path, schema("COMMON_SCHEMA", "UPSTREAM_SCHEMA"))
    world.tables = contract("upstream")
    assert [table["name"] for table in world.tables] == ["live_trades", "paper_trades"]
    rows = [
        (1, days_ago(200), days_ago(190)),
        (1, days_ago(200), days_ago(80)),  # closed too recently
        (0, days_ago(200), None),  # open
        (2, days_ago(150), None),  # cancelled
        (1, days_ago(10), days_ago(5)),
    ]
    with world.live() as con:
        for mode in ("live", "paper"):
            con.executemany(
                f"INSERT INTO {mode}_trades(symbol, side, shares, entry_price, status, entry_time, exit_time)"
                " VALUES ('SPY', 1, 1, 1, ?, ?, ?)",
                rows,
            )
    result = world.archive(delete=True)
    assert (result["result"], result["deleted"]) == ("ok", 4)
    for mode in ("live", "paper"):
        assert [row[0] for row in world.lives(f"{mode}_trades")] == [2, 3, 5]
    assert sorted(world.files()) == [
        "live_trades_archive_202605.db",
        "live_trades_archive_202606.db",
        "paper_trades_archive_202605.db",
        "paper_trades_archive_202606.db",
    ]
