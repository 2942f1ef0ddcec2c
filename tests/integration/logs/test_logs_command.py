# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands `fluxmaint logs read` and `fluxmaint logs report`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fluxmaint.cli.main import main

from tests.support import log_lines
from tests.support.log_document import mistakes
from tests.support.log_host import LogHost

PERIOD = ["--since", "2026-01-05T00:00:00Z", "--until", "2026-01-06T00:00:00Z"]


def test_reading_and_reporting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = LogHost(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(host.document))

    def run(*words: str, exits: int = 0) -> str:
        assert main([*words, "--config", str(config)]) == exits
        found = capsys.readouterr()
        return found.out if exits in (0, 3) else found.err

    assert "logs read first" in run("logs", "report", *PERIOD, exits=1)
    host.write(log_lines.lines(6, 100))
    assert str(host.log) in run("logs", "read", "--dry-run")
    assert not host.database.exists()
    first = json.loads(run("logs", "read", "--json"))
    assert first["events"] > 20
    assert "0 events, 0 B" in run("logs", "read")
    assert "nothing new" in run("logs", "read", "--dry-run")
    document = json.loads(run("logs", "report", "--json", *PERIOD))
    assert mistakes(document) == []
    assert document["totals"]["events"] == first["events"]
    assert "holds nothing" in run("logs", "report", "--since", PERIOD[3], "--until", PERIOD[1], exits=2)


def test_a_source_that_cannot_be_read_degrades_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = LogHost(tmp_path, journal_units=["fluxhero-backend.service"])
    host.write(log_lines.lines(6, 50))
    config = tmp_path / "config.json"
    config.write_text(json.dumps(host.document))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert main(["logs", "read", "--json", "--config", str(config)]) == 3
    result = json.loads(capsys.readouterr().out)
    assert result["events"] > 10
    assert "journalctl" in result["sources"][1]["errors"][0]
