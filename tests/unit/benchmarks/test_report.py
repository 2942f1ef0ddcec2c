"""Medians, ratios and tables of the benchmarks, from samples that are written down here."""

from __future__ import annotations

import math
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.benchmarks import data, measure, reasons, report
from tests.lab import names


def sample(seconds: float, *waits: float, finished: bool = True, size: int = 10) -> measure.Sample:
    return measure.Sample(seconds, finished, int(seconds * 1000), list(waits), bytes_out=size, cpu_s=2 * seconds)


def result(name: str, seconds: float, **more: Any) -> report.Result:
    facts = {"case": "generation", "size": "2.4GB", "journal": "rollback", "size_bytes": 24, **more}
    return {**report.summarise(name, [sample(seconds, 1.0)]), **facts}


def test_a_method_is_summed_up_over_its_rounds() -> None:
    found = report.summarise("ours", [sample(3, 1, 2), sample(1, 9), sample(2, 4)])
    assert (found["median_s"], found["min_s"], found["max_s"]) == (2, 1, 3)
    assert (found["writer_p50_ms"], found["writer_max_ms"], found["writer_commits"]) == (2, 9, 4)
    assert (found["peak_rss_bytes"], found["cpu_s"]) == (3000, 4)
    assert found["finished"] is True


def test_a_run_that_did_not_finish_is_not_a_time_but_is_told() -> None:
    found = report.summarise("peer", [sample(60, finished=False), sample(2)])
    assert (found["median_s"], found["finished"]) == (2, False)
    assert report.summarise("peer", [sample(60, finished=False)])["median_s"] == 60


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [([], 0.5, None), ([5], 0.99, 5), ([1, 2, 3, 4], 0.5, 2), ([1, 2, 3, 4], 1.0, 4), (list(range(1, 101)), 0.99, 99)],
)
def test_percentiles_are_values_that_occurred(values: list[float], fraction: float, expected: float | None) -> None:
    assert report.percentile(values, fraction) == expected


def test_a_goal_is_a_ratio_within_one_group() -> None:
    goal = report.Goal("g", "generation", "2.4GB", "rollback", "median_s", "zstd", 1.25)
    mine, peer = result("ours", 10), result("zstd | age > file", 8)
    assert report.judge([mine, peer], [goal]) == [(goal, 1.25, True)]
    assert report.judge([result("ours", 11), peer], [goal])[0][2] is False
    elsewhere = result("zstd | age > file", 8, journal="wal")
    assert report.judge([mine, elsewhere], [goal]) == [(goal, None, False)]
    assert report.judge([mine, {**peer, "finished": False}], [goal]) == [(goal, None, False)]
    failed = report.judge([{**mine, "finished": False}, peer], [goal])
    assert failed == [(goal, math.inf, False)]
    assert "| did not end | **not met** |" in report.goals_text(failed)


def test_a_group_that_was_measured_anew_replaces_the_old_one_whole() -> None:
    old = [result("ours", 1), result("restic", 2), result("ours", 3, size="100MB", size_bytes=1)]
    merged = report.merge(old, [result("ours", 9)])
    assert [(item["size"], item["median_s"]) for item in merged] == [("100MB", 3), ("2.4GB", 9)]


def test_table_and_drawing_show_what_did_not_end() -> None:
    failed = {"finished": False, "said": "/srv/x/live.db: database is locked"}
    results = [result("ours", 2), {**result("a | b", 60), **failed}]
    text = report.table(results)
    assert "| ours | 2.00 (2.00, 2.00; 1) | 4.00 |" in text
    before = report.table([{name: value for name, value in results[0].items() if name != "cpu_s"}])
    assert "| ours | 2.00 (2.00, 2.00; 1) |  |" in before
    assert "a &#124; b | **did not end or failed**: 60 s, live.db: database is locked" in text
    drawn = [element.text for element in ET.fromstring(report.drawing(results)).iter() if element.text]
    assert "2.0 s" in drawn
    assert "does not end, or fails" in drawn
    assert "60.0 s" not in drawn


def test_reasons_are_given_for_what_is_not_met_with_its_numbers() -> None:
    hot = {"case": "hot", "journal": "rollback"}
    took = {"ours": 9, "cp + fsync": 6, "Python backup API, one step": 8}
    results = [result(name, seconds, **hot) for name, seconds in took.items()]
    page = report.document(results, {})
    assert "### Why some are not met\n\n- **A hot backup" in page
    assert "`cp` and fsync alone take 0.75" in page
    assert page.count("\n- **") == 1, "what was not measured explains nothing"
    assert reasons.text(results[:2], {("hot", "rollback")}) == ""
    assert reasons.text(results, set()) == ""


def test_a_goal_may_be_about_ours_under_other_conditions() -> None:
    goal = report.Goal("g", "generation", "2.4GB", "rollback", "median_s", "restic", 1.0, "ours, nobody writes")
    results = [result("ours", 9), result("ours, nobody writes", 4), result("restic", 8)]
    assert report.judge(results, [goal]) == [(goal, 0.5, True)]


def test_the_published_page_has_a_number_for_each_goal() -> None:
    page = (names.ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "| at most " in line]
    assert len(rows) == len(report.GOALS)
    assert [row for row in rows if "not measured" in row] == []


def test_what_a_failed_script_leaves_running_is_ended(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/pid; false"
    assert not measure.run(["bash", "-c", script], database=None, scratch=tmp_path, limit_s=20).finished
    left = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    for _attempt in range(100):
        if not left.exists() or left.read_text().rpartition(") ")[2].startswith("Z"):
            return
        time.sleep(0.05)
    pytest.fail("it still runs")


def test_the_processor_time_of_all_processes_is_measured(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    script = f"{sys.executable} -c '{burn}' & {sys.executable} -c '{burn}' & wait"
    found = measure.run(["bash", "-c", script], database=None, scratch=tmp_path, limit_s=20)
    assert found.finished
    assert found.cpu_s >= 0.4
    assert measure.run(["sleep", "0"], database=None, scratch=tmp_path, limit_s=20).cpu_s < 0.4


def test_memory_and_commits_are_measured(tmp_path: Path) -> None:
    database = tmp_path / "trades.db"
    con = sqlite3.connect(database)
    con.executescript(data.SCHEMA + "INSERT INTO trades VALUES (1, 't', 'SPY', 'buy', 1, 1, 0, 'closed', 's');")
    con.close()
    script = "import subprocess, time\nb = bytearray(60_000_000)\nsubprocess.run(['sleep', '0.5'])"
    command = ["python3", "-c", script]
    found = measure.run(command, database=database, scratch=tmp_path, limit_s=20)
    assert found.finished
    assert 60e6 < found.peak_rss_bytes < 200e6
    assert len(found.waits_ms) > 20
    slow = measure.run(["sleep", "30"], database=None, scratch=tmp_path, limit_s=0.2)
    assert (slow.finished, slow.seconds < 5) == (False, True)
