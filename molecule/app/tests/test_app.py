# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment leaves on a host."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

ROOT = "/opt/fluxhero"
UNITS = ["fluxhero-backend", "fluxhero-frontend"]


def fetch(host: Host, url: str) -> str:
    program = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=10).read().decode())"
    return str(host.run_expect([0], f'python3 -c "{program}"').stdout)


def units(host: Host) -> list[str]:
    """The units of this host: not every one has the front end."""
    return [unit for unit in UNITS if host.file(f"/etc/systemd/system/{unit}.service").exists]


def test_backend_serves_the_current_release(host: Host) -> None:
    status = json.loads(fetch(host, "http://127.0.0.1:8000/api/status"))
    assert (status["status"], status["database_connected"]) == ("ACTIVE", True)
    assert f"releases/{status['revision']}" == host.file(f"{ROOT}/current").linked_to.removeprefix(f"{ROOT}/")


def test_front_end_shows_the_backend(host: Host) -> None:
    if "fluxhero-frontend" not in units(host):
        assert host.system_info.codename == "bookworm"
        assert not host.socket("tcp://127.0.0.1:3000").is_listening
        return
    page = fetch(host, "http://127.0.0.1:3000/")
    assert '<strong id="status">ACTIVE</strong>' in page


def test_units_run_enabled_as_the_services_user(host: Host) -> None:
    for unit in units(host):
        service = host.service(unit)
        assert service.is_running
        assert service.is_enabled
        properties = service.systemd_properties
        assert properties["User"] == "fluxhero"
        assert (properties["ProtectSystem"], properties["NoNewPrivileges"]) == ("strict", "yes")
        assert int(properties["MemoryMax"]) <= 1 << 30
        assert (properties["Restart"], properties["StartLimitBurst"]) == ("on-failure", "5")


def test_services_user_can_write_its_data_and_nothing_else(host: Host) -> None:
    found = host.check_output(f"cd / && runuser -u fluxhero -- find {ROOT} -writable -not -type l").split()
    allowed = (f"{ROOT}/data", f"{ROOT}/logs")
    assert [path for path in found if not path.startswith(allowed)] == []
    assert f"{ROOT}/data/trades.db" in found


@pytest.mark.parametrize("user", ["nobody", "fluxhero-build"])
def test_secrets_and_data_are_closed_to_others(host: Host, user: str) -> None:
    if not host.user(user).exists:
        assert user == "fluxhero-build"
        assert "fluxhero-frontend" not in units(host)
        return
    for path in (".env", "data/trades.db", "logs/fluxhero.log"):
        assert host.run(f"runuser -u {user} -- cat {ROOT}/{path}").rc != 0, path


def test_environment_file_holds_the_settings_for_the_services_group_only(host: Host) -> None:
    file = host.file(f"{ROOT}/.env")
    assert (file.user, file.group, file.mode) == ("root", "fluxhero", 0o640)
    program = f"import dotenv; print(dotenv.dotenv_values('{ROOT}/.env')['API_TOKEN'])"
    assert host.check_output(f'{ROOT}/current/venv/bin/python -c "{program}"') == "lab-token-of-no-value"


def test_log_and_database_are_where_the_contract_says(host: Host) -> None:
    assert host.file(f"{ROOT}/logs/fluxhero.log").contains("FluxHero 1.0.0 started: profile guide")
    assert host.file(f"{ROOT}/data/cache/SPY_1m.parquet").size > 1000


def test_stop_takes_less_than_two_seconds(host: Host) -> None:
    try:
        seconds = float(
            host.check_output(
                "bash -c 'TIMEFORMAT=%R; time systemctl stop fluxhero-backend' 2>&1",
            )
        )
        assert seconds < 2.0
        assert not host.service("fluxhero-backend").is_running
        assert host.service("fluxhero-backend").systemd_properties["Result"] == "success"
    finally:
        host.run_expect([0], "systemctl start fluxhero-backend")
