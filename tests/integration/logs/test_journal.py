# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd's journal, read by the real journalctl from a journal that systemd-journal-remote has written."""

from __future__ import annotations

import lzma
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.log_document import mistakes
from tests.support.log_host import LogHost, utc

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "logs"
JOURNALCTL = shutil.which("journalctl")
UNIT = "fluxhero-backend.service"
# Its seven entries are one second apart.
BEGIN = utc(2026, 1, 5, 14, 3, 20)
pytestmark = pytest.mark.skipif(JOURNALCTL is None, reason="no journalctl on this machine")


class Journal:
    """A host whose journalctl reads one journal file, up to a time."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.host = LogHost(root, journal_units=[UNIT], patterns=["none.log"])
        self.host.at = BEGIN + timedelta(seconds=60)
        self._bin = root / "bin"
        self._bin.mkdir()
        patch.setenv("PATH", f"{self._bin}:/usr/bin:/bin")

    def shows(self, fixture: str, until_s: int = 100) -> None:
        file = self._bin / "it.journal"
        file.write_bytes(lzma.decompress((FIXTURES / f"{fixture}.journal.xz").read_bytes()))
        script = self._bin / "journalctl"
        until = int(BEGIN.timestamp()) + until_s
        script.write_text(f'#!/bin/sh\nexec {JOURNALCTL} --file={file} --until=@{until} "$@"\n')
        script.chmod(0o755)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    return Journal(tmp_path, monkeypatch)


def test_entries_become_events_and_count_once(journal: Journal) -> None:
    journal.shows("service")
    assert journal.host.read()["result"] == "ok"
    document = journal.host.summary()
    assert mistakes(document) == []
    totals = document["totals"]
    # Two lines of systemd and uvicorn, one error with its traceback in four entries, one entry of two lines.
    assert (totals["events"], totals["tracebacks"], totals["failed_trades"], totals["restarts"]) == (5, 1, 1, 1)
    assert totals["errors"] == 3 and totals["unparsed"] == 0
    assert document["restarts"] == [
        {"time": "2026-01-05T14:03:21Z", "unit": UNIT, "what": "Started server process [7]"}
    ]
    assert document["errors_by_type"][0]["type"] in (UNIT, "ValueError")
    assert journal.host.read()["changed"] is False
    assert journal.host.summary()["totals"] == totals


@pytest.mark.parametrize("until_s", [0, 1, 5])
def test_a_journal_that_grows_gives_the_same_totals(journal: Journal, until_s: int) -> None:
    journal.shows("service", until_s)
    journal.host.read()
    journal.shows("service")
    journal.host.read()
    grown = journal.host.totals()
    journal.host.database.unlink()
    journal.host.read()
    assert journal.host.totals() == grown


def test_entries_that_were_dropped_are_a_gap(journal: Journal) -> None:
    journal.shows("service", 2)
    journal.host.read()
    journal.shows("service-again")  # another journal: the cursor is in it no more
    assert "dropped entries" in journal.host.read()["sources"][0]["gaps"][0]
    (gap,) = journal.host.summary()["sources"][0]["gaps"]
    assert gap["after"] == "2026-01-05T14:03:22Z"
    assert journal.host.read()["sources"][0]["gaps"] == []
