# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Log reports as files: whole or not at all, linked as the latest, and not for ever."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from fluxmaint.core.clock import utc_text
from fluxmaint.core.errors import InputError
from fluxmaint.logs.report import files
from fluxmaint.logs.summary import Document

from tests.support.log_report_example import BEGIN, example, quiet, with_texts


def week(number: int) -> Document:
    """A document of this week of 2026."""
    begin = BEGIN + timedelta(weeks=number - 47)
    return {**quiet(), "period": {"begin": utc_text(begin), "end": utc_text(begin + timedelta(weeks=1))}}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_three_files_and_the_links_to_the_latest(tmp_path: Path) -> None:
    directory = tmp_path / "reports"
    written = files.write(example(), directory, weekly=True)
    assert written == {kind: directory / f"report-2026-W47.{kind}" for kind in ("html", "json", "txt")}
    assert names(directory) == [
        f"{stem}.{kind}" for stem in ("latest", "report-2026-W47") for kind in ("html", "json", "txt")
    ]
    assert json.loads((directory / "latest.json").read_bytes()) == example()
    assert (directory / "latest.html").read_text().startswith("<!doctype html>")
    assert os.readlink(directory / "latest.txt") == "report-2026-W47.txt"
    assert {path.stat().st_mode & 0o777 for path in written.values()} == {0o640}


def test_the_same_report_again_replaces_it(tmp_path: Path) -> None:
    files.write(example(), tmp_path)
    before = names(tmp_path)
    files.write(example(), tmp_path)
    assert names(tmp_path) == before


def test_only_the_newest_reports_stay_and_nothing_else_is_touched(tmp_path: Path) -> None:
    (tmp_path / "report-2026-W01.html.bak").write_text("a person's")
    (tmp_path / "notes.txt").write_text("a person's")
    for number in range(40, 47):
        for path in files.write(week(number), tmp_path, keep=3, weekly=True).values():
            os.utime(path, (number, number))
    assert names(tmp_path) == [
        *(f"latest.{kind}" for kind in ("html", "json", "txt")),
        "notes.txt",
        "report-2026-W01.html.bak",
        *(f"report-2026-W{number}.{kind}" for number in (44, 45, 46) for kind in ("html", "json", "txt")),
    ]


def test_the_report_that_was_written_stays_whatever_the_clock_says(tmp_path: Path) -> None:
    for path in files.write(week(46), tmp_path, weekly=True).values():
        os.utime(path, (2**33, 2**33))
    files.write(week(47), tmp_path, keep=1, weekly=True)
    assert (tmp_path / "latest.html").exists()
    assert not (tmp_path / "report-2026-W46.html").exists()


def test_a_report_in_between_does_not_take_the_place_of_a_weekly_one(tmp_path: Path) -> None:
    assert files.name_of(example(), weekly=True) == "report-2026-W47"
    assert files.name_of(example()) == "report-20261116T000000Z-20261123T000000Z"


def test_a_period_that_is_no_week_is_named_by_its_ends(tmp_path: Path) -> None:
    document = {**quiet(), "period": {"begin": "2026-11-16T00:00:00Z", "end": "2026-11-17T12:00:00Z"}}
    assert files.name_of(document, weekly=True) == "report-20261116T000000Z-20261117T120000Z"  # type: ignore[arg-type]
    document["period"] = {"begin": "", "end": ""}
    with pytest.raises(InputError, match="no period"):
        files.write(document, tmp_path)  # type: ignore[arg-type]
    assert not names(tmp_path)


def test_no_text_keeps_a_report_from_being_written(tmp_path: Path) -> None:
    written = files.write(with_texts(example(), lambda old: "\ud800\x00\u202e<script>"), tmp_path)
    assert written["json"].read_bytes().isascii()
    assert json.loads(written["json"].read_bytes())["notes"] == ["\ud800\x00\u202e<script>"]
