# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad releases, rollback and refusals, on the host whose deployments are quick."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host

PROJECT = Path(__file__).resolve().parents[3]
SAMPLE = PROJECT / "tests/sample_service"
MAIN = "fluxhero/backend/main.py"


def play(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), f"molecule/app/{name}.yml", *arguments],
        cwd=PROJECT,
        env={**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


def current(host: Host) -> str:
    return host.check_output("readlink /opt/fluxhero/current").removeprefix("releases/")


def status(host: Host) -> dict[str, object]:
    """The backend's status, once it answers."""
    program = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8000/api/status').read().decode())"
    deadline = time.monotonic() + 20
    while (answer := host.run(f'python3 -c "{program}"')).rc != 0:
        assert time.monotonic() < deadline, answer.stderr
        time.sleep(0.2)
    return dict(json.loads(answer.stdout))


@pytest.fixture(scope="module")
def host() -> Host:
    """The one host of these tests, whatever hosts the other tests run on."""
    return testinfra.get_host("ssh://bookworm", ssh_config=str(PROJECT / ".lab" / "ssh_config"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the sample service to change."""
    copy = tmp_path / "source"
    shutil.copytree(SAMPLE, copy, ignore=shutil.ignore_patterns("node_modules", ".next", "__pycache__", ".*_cache"))
    return copy


def change(source: Path, before: str, after: str) -> None:
    path = source / MAIN
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))


def test_unhealthy_release_is_rolled_back_and_both_facts_are_told(host: Host, source: Path) -> None:
    before = current(host)
    change(source, '"ACTIVE" if healthy', '"BROKEN" if healthy')
    played = play("release", "-e", f"source={source}")
    assert played.returncode != 0
    assert "is not healthy" in played.stdout
    assert f"Rolled back: release {before} is current and healthy again" in " ".join(played.stdout.split())
    assert current(host) == before
    assert (status(host)["status"], status(host)["revision"]) == ("ACTIVE", before)


def test_release_that_does_not_install_never_becomes_current(host: Host, source: Path) -> None:
    before, started = current(host), status(host)["started_at"]
    requirements = source / "requirements.txt"
    lines = requirements.read_text().splitlines()
    assert "--hash=sha256:" in lines[1]
    lines[1] = "    --hash=sha256:" + "0" * 64
    while "--hash" in lines[2]:
        del lines[2]
    lines[1] = lines[1].rstrip("\\")
    requirements.write_text("\n".join(lines) + "\n")
    played = play("release", "-e", f"source={source}")
    assert played.returncode != 0
    assert "hash" in played.stdout.lower()
    assert current(host) == before
    # Not even restarted
    assert status(host)["started_at"] == started


def test_new_release_serves_and_rollback_returns_to_the_last_good_one(host: Host, source: Path) -> None:
    before, beat = current(host), int(str(status(host)["heartbeat"]))
    change(source, '"name": "FluxHero", "version"', '"name": "FluxHero 2", "version"')
    played = play("release", "-e", f"source={source}")
    assert played.returncode == 0, played.stdout
    assert current(host) != before
    assert status(host)["revision"] == current(host)
    assert int(str(status(host)["heartbeat"])) >= beat
    played = play("rollback")
    assert played.returncode == 0, played.stdout
    assert (current(host), status(host)["revision"]) == (before, before)


def test_rollback_to_a_release_that_was_never_healthy_is_refused(host: Host) -> None:
    before = current(host)
    played = play("rollback", "-e", "app_rollback_to=unknown")
    assert played.returncode != 0
    assert f"Release unknown was never healthy on this host; {before} stays current" in " ".join(played.stdout.split())
    assert current(host) == before


def test_edited_environment_file_is_kept_until_the_settings_change(host: Host) -> None:
    before = host.file("/opt/fluxhero/.env").content_string
    value = 'it\'s \\ a "test" token # $HOME'
    try:
        deploy_with({"FLUXHERO_TRADE_RATE": 5, "API_TOKEN": value})
        program = "import dotenv; print(dotenv.dotenv_values('/opt/fluxhero/.env')['API_TOKEN'])"
        assert host.check_output("/opt/fluxhero/current/venv/bin/python -c %s", program) == value
        host.run_expect([0], "echo EDITED=1 >> /opt/fluxhero/.env")
        assert value not in deploy_with({"FLUXHERO_TRADE_RATE": 5, "API_TOKEN": value})
        assert host.file("/opt/fluxhero/.env").contains("EDITED=1")
        deploy_with({"FLUXHERO_TRADE_RATE": 4, "API_TOKEN": value})
        assert not host.file("/opt/fluxhero/.env").contains("EDITED=1")
        assert status(host)["trade_rate"] == 4.0
    finally:
        assert play("release", "-e", f"source={SAMPLE}").returncode == 0
    assert host.file("/opt/fluxhero/.env").content_string == before


def deploy_with(settings: dict[str, object]) -> str:
    """Deploy the sample service with other settings and return what was shown."""
    played = play("release", "--diff", "-e", json.dumps({"source": str(SAMPLE), "app_env": settings}))
    assert played.returncode == 0, played.stdout
    return played.stdout


def test_d77_front_end_on_an_old_node_is_refused_with_the_way_out(host: Host) -> None:
    before, started = current(host), status(host)["started_at"]
    played = play("too_old")
    assert played.returncode != 0
    told = " ".join(played.stdout.split())
    assert "of Debian 12 is too old: the front end needs" in told
    assert "app_node_source to bundled" in told
    assert (current(host), status(host)["started_at"]) == (before, started)
