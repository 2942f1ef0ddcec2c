# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role agent leaves on a host."""

from __future__ import annotations

import json
import time
from typing import Any

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
        ("/etc/fluxmaint/hooks.d", 0o750),
        ("/etc/fluxmaint/hooks.d/50-keep", 0o700),
        ("/etc/fluxmaint/keys/ping.json", 0o600),
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


def documents(host: Host) -> list[dict[str, Any]]:
    """What the hook has been told."""
    return [json.loads(line) for line in host.check_output("cat /var/lib/fluxmaint/hook.jsonl").splitlines()]


def test_a_unit_that_fails_is_told_to_the_hooks(host: Host) -> None:
    unit = "fluxmaint-probe@x.service"
    host.run_expect(
        [0],
        f"systemd-run --unit={unit} --property=OnFailure=fluxmaint-notify@{unit}.service"
        " sh -c 'echo http://me:hidden-word@host; echo fluxmaint: it broke >&2; exit 5'",
    )
    try:
        notify = f"fluxmaint-notify@{unit}.service"
        deadline = time.monotonic() + 20
        while host.check_output(f"systemctl show --value --property=ExecMainExitTimestampMonotonic {notify}") == "0":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert host.check_output(f"systemctl show --value --property=Result {notify}") == "success"
        told = documents(host)[-1]
        assert (told["event"], told["unit"], told["result"]) == ("unit_failed", unit, "exit-code")
        assert told["message"] == f"{unit} failed (exit-code, exit status 5): it broke"
        assert "fluxmaint: it broke" in told["journal"]
        assert "hidden-word" not in json.dumps(told)
        assert "notify end ok" in host.check_output("fluxmaint journal --operation notify --limit 1")
    finally:
        host.run(f"systemctl reset-failed {unit}")


def test_the_hooks_can_be_tried(host: Host) -> None:
    assert "50-keep" in host.check_output("fluxmaint notify --test")
    assert documents(host)[-1]["event"] == "test"
