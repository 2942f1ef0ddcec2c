# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`fluxmaint logs report`: from lines in files to a report in a directory."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.cli.main import main

from tests.support import browser as browsers
from tests.support.log_host import LogHost, Still

NOW = datetime(2026, 1, 12, 5, 0, 8, tzinfo=timezone.utc)
EVIL = "<script>console.error('ran')</script></pre><img src='http://192.0.2.1/x'>\u202e\x1b[2J"


class Fluxmaint:
    """The command line on a host whose logs were written in the week before."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.host = LogHost(root, time_zone="UTC")
        self.host.document["log_report"] = {"directory": str(root / "reports"), "keep": 2}
        self.reports = root / "reports"
        self.config = root / "config.json"
        self._capsys = capsys

    def __call__(self, *words: str, now: datetime = NOW) -> tuple[int, str]:
        self.config.write_text(json.dumps(self.host.document))
        code = main([*words, "--config", str(self.config)], Still(now))
        said = self._capsys.readouterr()
        return code, said.out + said.err

    def trade(self, *texts: str) -> None:
        """A line each hour of the week before, and an error for each text on Thursday."""
        begin = datetime(2026, 1, 5, tzinfo=timezone.utc)
        lines = [f"{begin + timedelta(hours=n):%Y-%m-%d %H:%M:%S},001 - a.b - INFO - Trade {n}" for n in range(168)]
        lines[80:80] = [f"2026-01-08 08:{n:02d}:00,001 - a.b - ERROR - {text}" for n, text in enumerate(texts)]
        self.host.write(line.encode() for line in lines)
        assert self("logs", "read")[0] == 0


@pytest.fixture
def fluxmaint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fluxmaint:
    return Fluxmaint(tmp_path, capsys)


def test_the_last_week_as_files(fluxmaint: Fluxmaint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    fluxmaint.trade("Trade execution failed: AAPL 10 @ 231.15")
    code, said = fluxmaint("logs", "report", "--week", "--save", "--json")
    answer: dict[str, Any] = json.loads(said)
    assert code == 0
    assert answer["period"] == {"begin": "2026-01-05T00:00:00Z", "end": "2026-01-12T00:00:00Z"}
    assert answer["verdict"]["headline"] == "2 things need a look this week"
    assert answer["files"]["html"] == str(fluxmaint.reports / "report-2026-W02.html")
    document = json.loads((fluxmaint.reports / "latest.json").read_bytes())
    assert (document["totals"]["events"], document["totals"]["failed_trades"]) == (169, 1)
    assert "1 trade failed" in (fluxmaint.reports / "latest.html").read_text()
    assert "2 THINGS NEED A LOOK THIS WEEK" in (fluxmaint.reports / "latest.txt").read_text()
    noted = json.loads(fluxmaint("journal", "--operation", "log_report", "--json")[1])["entries"][-1]
    assert noted["files"] == answer["files"]


def test_without_a_place_the_text_is_printed_and_nothing_written(fluxmaint: Fluxmaint) -> None:
    fluxmaint.trade()
    code, said = fluxmaint("logs", "report", "--since", "2026-01-05T00:00:00Z", "--until", "2026-01-12T00:00:00Z")
    assert code == 0
    assert said.startswith("Log report of fluxhero on production: Week 2 of 2026\n")
    assert "NOTHING NEEDS A LOOK THIS WEEK" in said
    assert not fluxmaint.reports.exists()


def test_a_week_without_events_is_written_and_is_no_success(fluxmaint: Fluxmaint) -> None:
    fluxmaint.trade()
    code, said = fluxmaint("logs", "report", "--week", "--save", now=NOW + timedelta(weeks=4))
    assert code == 3
    assert said.startswith("No data: nothing is known about this week")
    assert "No data" in (fluxmaint.reports / "latest.html").read_text()


def test_old_reports_go_only_from_the_directory_of_this_host(fluxmaint: Fluxmaint, tmp_path: Path) -> None:
    fluxmaint.trade()
    for weeks in range(4):
        fluxmaint("logs", "report", "--week", "--save", now=NOW + timedelta(weeks=weeks))
        fluxmaint("logs", "report", "--week", "--directory", str(tmp_path / "mine"), now=NOW + timedelta(weeks=weeks))
    assert len(list(fluxmaint.reports.glob("report-*.html"))) == 2
    assert len(list((tmp_path / "mine").glob("report-*.html"))) == 4


def test_two_periods_at_once_are_refused(fluxmaint: Fluxmaint) -> None:
    fluxmaint.trade()
    assert fluxmaint("logs", "report", "--week", "--since", "2026-01-05T00:00:00Z")[0] == 2


@pytest.mark.skipif(browsers.executable() is None, reason="chromium is not installed")
def test_hostile_lines_of_a_log_neither_run_nor_break_the_page(fluxmaint: Fluxmaint) -> None:
    fluxmaint.trade(EVIL, f"{EVIL}\n{EVIL}")
    fluxmaint("logs", "report", "--week", "--save")
    binary = browsers.executable()
    assert binary is not None
    address = (fluxmaint.reports / "latest.html").as_uri()
    with browsers.launched(binary) as browser, browser.page(address) as page:
        assert page.problems == []
        assert len(page.requests) == 1
        assert page.evaluate("document.scripts.length + document.images.length") == 0
        assert "<script>console.error('ran')</script>" in page.evaluate(
            "document.querySelector('#top .log').textContent"
        )
        assert page.evaluate("document.querySelectorAll('main > section').length") >= 10
