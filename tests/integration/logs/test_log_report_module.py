# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module log_report, run for real by Ansible on this machine."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from test_sqlite_modules import ANSIBLE, Modules

from tests.support import log_lines
from tests.support.log_document import mistakes
from tests.support.log_host import BEGIN, LogHost

pytestmark = pytest.mark.skipif(not ANSIBLE.exists(), reason="no ansible beside this Python")


def test_log_report_in_check_mode_for_real_and_again(tmp_path: Path) -> None:
    modules = Modules(tmp_path / "collections")
    host = LogHost(tmp_path / "host")
    host.at = BEGIN + timedelta(hours=1)
    host.write(log_lines.lines(5, 200))
    config = tmp_path / "config.json"
    config.write_text(json.dumps(host.document))
    arguments = {"config_file": str(config), "since": "2026-01-05T00:00:00Z", "until": "2026-01-06T00:00:00Z"}

    planned = modules("log_report", "--check", **arguments)
    assert planned["state_word"] == "CHANGED", planned
    assert planned["unread"] == [{"name": "fluxhero.log", "path": str(host.log), "bytes": host.log.stat().st_size}]
    assert not host.database.exists()

    done = modules("log_report", **arguments)
    assert done["state_word"] == "CHANGED", done
    assert mistakes(done["report"]) == []
    assert done["report"]["totals"]["events"] == done["sources"][0]["events"] > 50

    again = modules("log_report", **arguments)
    assert again["state_word"] == "SUCCESS", again
    assert again["report"]["totals"] == done["report"]["totals"]
    assert modules("log_report", "--check", **arguments)["unread"] == []

    reports = host.root / "reports"
    host.document["log_report"] = {"directory": str(reports)}
    config.write_text(json.dumps(host.document))
    assert modules("log_report", "--check", save="true", **arguments)["state_word"] == "CHANGED"
    assert not reports.exists()
    saved = modules("log_report", save="true", **arguments)
    assert saved["state_word"] == "CHANGED"
    assert json.loads(Path(saved["files"]["json"]).read_bytes()) == saved["report"]
    assert Path(saved["files"]["html"]).is_file()
    assert saved["verdict"]["kind"] == "look"
    refused = modules("log_report", save="true", report="false", **arguments)
    assert refused["state_word"] == "FAILED" and "nothing to save" in refused["msg"]

    refused = modules("log_report", **{**arguments, "since": "last week"})
    assert refused["state_word"] == "FAILED" and "not a UTC time" in refused["msg"]
