# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role agent leaves on a host."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

from tests.support.plays import play, words

CONFIG = "/etc/fluxmaint/config.json"


def test_fluxmaint_runs_from_anywhere(host: Host) -> None:
    answer = json.loads(host.check_output("cd / && fluxmaint version --json"))
    assert answer["version"] and answer["sqlite"]


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/usr/local/bin/fluxmaint", 0o755),
        ("/etc/fluxmaint", 0o750),
        (CONFIG, 0o640),
        ("/etc/fluxmaint/config.d", 0o750),
        ("/etc/fluxmaint/keys", 0o700),
        ("/var/lib/fluxmaint", 0o750),
        ("/run/fluxmaint", 0o750),
    ],
)
def test_belongs_to_root_alone(host: Host, path: str, mode: int) -> None:
    file = host.file(path)
    assert (file.user, file.group, file.mode) == ("root", "root", mode)


def test_configuration_is_the_contract(host: Host) -> None:
    assert "is valid" in host.check_output("fluxmaint config check")
    config = json.loads(host.file(CONFIG).content_string)
    assert config["host"] == host.check_output("hostname")
    assert [database["path"] for database in config["databases"]] == ["/opt/fluxhero/data/trades.db"]
    front_end = host.system_info.codename != "bookworm"
    assert ("fluxhero-frontend.service" in config["units"]) == front_end
    assert (config["health"]["frontend"] is not None) == front_end


def test_lease_directory_comes_back_after_a_boot(host: Host) -> None:
    host.check_output("rm -rf /run/fluxmaint && systemd-tmpfiles --create")
    assert host.file("/run/fluxmaint").mode == 0o750


def test_wrong_configuration_never_lands(host: Host) -> None:
    before = host.file(CONFIG).content_string
    played = play(
        "molecule/agent/converge.yml",
        *("--limit", host.check_output("hostname")),
        service_databases=[{"name": "trades", "path": "relative/trades.db"}],
    )
    assert played.returncode != 0
    assert "databases[0].path must be an absolute path" in words(played)
    assert host.file(CONFIG).content_string == before


def test_an_interrupted_restore_is_finished_at_boot(host: Host) -> None:
    unit = host.service("fluxmaint-restore-resume.service")
    assert unit.is_valid
    assert unit.is_enabled
    assert "no restore is unfinished" in host.check_output("fluxmaint restore --resume")
