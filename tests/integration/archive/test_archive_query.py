# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Live rows and archived ones are asked together, for any number of months, without writing to either."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from archive_world import Fixed, World
from fluxmaint.cli.main import main
from fluxmaint.core.errors import InputError, IntegrityError
from fluxmaint.sqlite import archive_query

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "archives.md"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.trades(62, 62 * 30 + 120, every_s=30 * 86400)  # five years, one a month
    made.trades(10, 5)
    return made


def ask(world: World, sql: str, **options: Any) -> archive_query.Answer:
    return archive_query.query(world.config, sql, clock=Fixed(), **options)


def hashes(world: World) -> dict[str, str]:
    files = [world.database, *world.files().values()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_five_years_of_months_are_asked_at_once(world: World) -> None:
    sql = "SELECT substr(timestamp, 1, 4) AS year, count(*), sum(pnl) FROM trades GROUP BY year ORDER BY year"
    before = world.run_sql(sql)
    assert world.archive(delete=True)["deleted"] == 62
    assert len(world.files()) > 50
    files = hashes(world)
    answer = ask(world, sql)
    assert (answer.columns, answer.rows) == (["year", "count(*)", "sum(pnl)"], before)
    assert len(answer.archives) == len(world.files())
    assert hashes(world) == files
    assert list((world.top / "state").glob("*-work")) == []


def test_a_row_that_is_in_both_counts_once_as_the_database_has_it(world: World) -> None:
    world.archive()
    world.run_sql("UPDATE trades SET pnl = 7 WHERE id = 3")
    assert ask(world, "SELECT count(*), sum(id = 3 AND pnl = 7) FROM trades").rows == [(72, 1)]


def test_only_the_months_and_tables_that_are_asked_for_are_read(world: World) -> None:
    world.archive(delete=True)
    months = [path.stem[-6:] for path in world.files().values()]
    answer = ask(world, "SELECT count(*) FROM trades", since=months[3], until=months[5])
    assert [Path(name).stem[-6:] for name in answer.archives] == months[3:6]
    assert answer.rows[0][0] < 72
    damaged = next(iter(world.files().values()))
    damaged.write_bytes(damaged.read_bytes()[:-4096])
    assert ask(world, "SELECT count(*) FROM positions").archives == []
    with pytest.raises(IntegrityError, match=str(damaged)):
        ask(world, "SELECT count(*) FROM trades")


def test_other_tables_join_and_values_keep_their_kinds(world: World) -> None:
    world.run_sql("INSERT INTO positions VALUES (1, 'SPY', 'open', '2026-11-22T00:00:00Z')")
    world.archive(delete=True)
    joined = "SELECT count(*) FROM trades JOIN positions USING (symbol) WHERE trades.id < 10"
    assert ask(world, joined).rows == [(9,)]
    assert ask(world, "SELECT id FROM trades WHERE id = '3'").rows == [(3,)]
    answer = ask(world, "SELECT x'00ff' AS b, NULL AS n, id FROM trades ORDER BY id", max_rows=2)
    assert answer.truncated
    assert answer.as_dict()["rows"] == [["00ff", None, 1], ["00ff", None, 2]]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM trades",
        "SELECT 1; DELETE FROM trades",
        "PRAGMA journal_mode = WAL",
        "ATTACH DATABASE '/tmp/x.db' AS x",
        "SELECT nothing FROM trades",
        "VACUUM INTO '/tmp/x.db'",
        "",
    ],
)
def test_only_one_select_is_run(world: World, sql: str) -> None:
    world.archive()
    files = hashes(world)
    with pytest.raises(InputError, match=r"not one SELECT|authorization denied"):
        ask(world, sql)
    assert hashes(world) == files


def test_columns_that_came_later_are_null_and_those_that_went_are_named(world: World) -> None:
    world.archive(delete=True)
    world.run_sql("ALTER TABLE trades ADD COLUMN fee REAL")
    assert ask(world, "SELECT count(*), count(fee) FROM trades").rows == [(72, 0)]
    world.run_sql("ALTER TABLE trades RENAME COLUMN pnl TO profit")
    with pytest.raises(InputError, match="no longer has pnl"):
        ask(world, "SELECT count(*) FROM trades")


def test_info_names_what_is_damaged_or_open_to_others(world: World) -> None:
    world.archive()
    assert archive_query.info(world.config)["ok"]
    files = list(world.files().values())
    files[1].chmod(0o644)
    data = files[2].read_bytes()
    files[2].write_bytes(data.replace(b"SPY", b"SPX"))
    found = archive_query.info(world.config)
    assert not found["ok"]
    assert f"{files[1]}: others than its owner have access" in found["problems"][0]
    assert str(files[2]) in found["problems"][1]
    assert [entry["ok"] for entry in found["tables"][0]["files"]].count(False) == 1
    assert len(archive_query.info(world.config, content=False)["problems"]) == 1


def test_the_commands(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.config  # noqa: B018 - writes the file
    config = ["--config", str(world.top / "config.json")]

    def run(*words: str) -> tuple[int, str]:
        code = main([*words, *config], clock=Fixed())
        return code, capsys.readouterr().out

    code, out = run("archive", "--dry-run")
    assert code == 0 and "62 would be archived, 0 deleted" in out and world.files() == {}
    code, out = run("archive", "--delete", "--json")
    assert code == 0 and json.loads(out)["deleted"] == 62
    code, out = run("archive-info")
    assert code == 0 and out.count(" ok ") == len(world.files())
    code, out = run("query", "SELECT count(*) AS n FROM trades")
    assert (code, out.split()) == (0, ["n", "72"])
    assert run("query", "DROP TABLE trades")[0] == 2
    assert run("archive", "--older-than-days", "0")[0] == 2
    world.run_sql("INSERT INTO trades(timestamp, symbol) VALUES ('soon', 'SPY')")
    code, out = run("archive")
    assert code == 3 and "problem: archive trades: 1 rows have a time that cannot be read" in out
    next(iter(world.files().values())).write_bytes(b"SQLite format 3\x00" + bytes(5000))
    assert run("archive-info")[0] == 5
    assert run("archive")[0] == 5


def test_rows_are_brought_back_as_the_document_says(world: World) -> None:
    world.archive(delete=True)
    text = DOCUMENT.read_text(encoding="utf-8")
    block = text.split("## Bring rows back", 1)[1].split("```sql", 1)[1].split("```", 1)[0]
    archived = world.directory / "trades_archive_202204.db"
    statements = block.replace("/opt/fluxhero/data/archive/trades_archive_202605.db", str(archived))
    done = subprocess.run(
        ["sqlite3", "-bail", str(world.database)], input=statements, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    held = {row[0] for row in world.archived() if row[1].startswith("2022-04")}
    assert held and held <= {row[0] for row in world.lives()}
    assert world.run_sql("PRAGMA integrity_check") == [("ok",)]
    assert ask(world, "SELECT count(*) FROM trades").rows == [(72,)]
    assert world.archive(delete=True)["result"] == "ok", "and they can be archived again"


def test_views_of_the_database_show_archived_rows_too(world: World) -> None:
    with world.live() as con:
        con.execute("create view by_symbol as SELECT symbol AS s, count(*) AS n FROM Trades GROUP BY s")
        con.execute('CREATE VIEW "over it"(total) AS SELECT sum(n) FROM by_symbol')
        con.execute("CREATE VIEW elsewhere AS SELECT count(*) AS n FROM positions")
        con.execute("CREATE VIEW past AS SELECT count(*) AS n FROM main.trades")
    assert world.archive(delete=True)["deleted"] == 62
    assert ask(world, 'SELECT total FROM "over it"').rows == [(72,)]
    assert ask(world, "SELECT n FROM elsewhere").rows == [(0,)]
    assert ask(world, "SELECT count(*) FROM main.trades").rows == [(10,)], "who says so asks the database alone"
    with pytest.raises(InputError, match="the view past would show rows of the database alone"):
        ask(world, "SELECT n FROM past")


def test_archived_rows_compare_as_the_table_does(tmp_path: Path) -> None:
    world = World(
        tmp_path,
        "CREATE TABLE trades(id INTEGER PRIMARY KEY, timestamp TEXT, symbol TEXT COLLATE NOCASE, pnl NUMERIC,"
        " status TEXT DEFAULT 'filled');",
    )
    world.trades(3, 150, pnl="7")
    world.trades(2, 1, pnl="7")
    sql = "SELECT count(*), min(typeof(pnl)) FROM trades WHERE symbol = 'spy' AND pnl = '7'"
    before = world.run_sql(sql)
    assert world.archive(delete=True)["deleted"] == 3
    assert ask(world, sql).rows == before == [(5, "integer")]
