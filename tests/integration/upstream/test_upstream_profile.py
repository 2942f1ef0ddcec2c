# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profile `upstream` end to end: what the roles render is checked, run, backed up and restored on a running service."""

from __future__ import annotations

import dataclasses
import grp
import json
import os
import pwd
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fluxmaint.backup import restore
from fluxmaint.backup.restore_plan import Request
from fluxmaint.backup.restore_source import StoreSource
from fluxmaint.core.clock import Clock
from fluxmaint.core.config import Config, load
from fluxmaint.core.errors import PreconditionError
from fluxmaint.core.journal import Journal
from fluxmaint.service import preflight, probe

from tests.lab import sample
from tests.support.world import make_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PROJECT = Path(__file__).resolve().parents[3]
UNIT = "fluxhero-backend.service"
TOKEN = "token-of-the-test"
ROLES = """
- hosts: localhost
  connection: local
  gather_facts: false
  roles:
    # Checks the types of the contract; the others lend their variables, none of their tasks runs.
    - {role: fluxhero.maintenance.service}
    - {role: fluxhero.maintenance.agent, tags: never}
    - {role: fluxhero.maintenance.backup, tags: never}
    - {role: fluxhero.maintenance.app, tags: never}
  tasks:
"""
RENDER = """
    - fluxhero.maintenance.engine_executable:
        dest: "{{ directory }}/fluxmaint"
        owner: "{{ service_user }}"
        group: "{{ service_group }}"
    - ansible.builtin.template:
        src: "{{ project }}/roles/app/templates/backend.service.j2"
        dest: "{{ directory }}/{{ service_backend_unit }}"
        mode: "0644"
    - ansible.builtin.copy:
        content: "{{ __agent_config | combine({'state_dir': directory ~ '/state', 'run_dir': directory ~ '/run'}) }}"
        dest: "{{ directory }}/config.json"
        mode: "0600"
        validate: "{{ directory }}/fluxmaint config check --config %s"
    - ansible.builtin.copy:
        content: "{{ {'backup': __backup_section} }}"
        dest: "{{ directory }}/config.d/backup.json"
        mode: "0600"
        validate: >-
          {{ directory }}/fluxmaint config check --config {{ directory }}/config.json --candidate backup.json=%s
    - ansible.builtin.copy:
        content: "{{ service_release_links }}"
        dest: "{{ directory }}/links.json"
        mode: "0600"
"""
PREFLIGHT = """
    - fluxhero.maintenance.service_preflight_info:
        config_file: "{{ directory }}/config.json"
        needs: "{{ __service_needs }}"
        units: false
      register: found
    - ansible.builtin.copy:
        content: "{{ found }}"
        dest: "{{ directory }}/preflight.json"
        mode: "0600"
"""
RECOVERY = """
    - ansible.builtin.include_role:
        name: fluxhero.maintenance.disaster_recovery
        tasks_from: preflight
      vars:
        disaster_recovery_source_host: production
        disaster_recovery_target: local
        disaster_recovery_identity_file: "{{ directory }}/keys/operator.key"
"""

pytestmark = pytest.mark.skipif(
    not (shutil.which("age") and shutil.which("zstd")), reason="the commands age and zstd are needed"
)


class Host:
    """A host in a directory: the sample service in a release, run as the rendered unit says.

    Implements `restore.ServiceControl`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "opt" / "fluxhero"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])

    @property
    def config(self) -> Config:
        return load(self.directory / "config.json")

    def play(self, tasks: str) -> None:
        """Run tasks with the roles' own variables."""
        done = self.played(tasks)
        assert done.returncode == 0, done.stdout + done.stderr

    def played(self, tasks: str) -> subprocess.CompletedProcess[str]:
        """The same, and the caller judges; the inventory says no more than an operator would."""
        playbook = self.directory / "play.yml"
        playbook.write_text(ROLES + tasks)
        variables = {
            "ansible_python_interpreter": sys.executable,
            "directory": str(self.directory),
            "project": str(PROJECT),
            "service_profile": "upstream",
            # The double's package is called otherwise than upstream's.
            "service_backend_app": "fluxhero.backend.main:app",
            "service_root": str(self.root),
            "service_user": pwd.getpwuid(os.getuid()).pw_name,
            "service_group": grp.getgrgid(os.getgid()).gr_name,
            "service_backend_port": self.port,
            "service_frontend_enabled": False,
            "service_system_paths": [str(self.directory / UNIT)],
            "backup_targets": [{"name": "local", "type": "path", "path": str(self.directory / "target")}],
            "backup_signer": "fluxhero@production",
            "backup_staging_dir": str(self.directory / "state" / "staging"),
            "__backup_keys_dir": str(self.directory / "keys"),
        }
        return subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                *("--inventory", "localhost,", "--extra-vars", json.dumps(variables), str(playbook)),
            ],
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(self.directory / "collections"),
                "ANSIBLE_FORCE_COLOR": "0",
            },
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def fluxmaint(self, *words: str) -> Any:
        """Run the executable that the roles install."""
        argv = [str(self.directory / "fluxmaint"), *words, "--json", "--config", str(self.directory / "config.json")]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return json.loads(done.stdout)

    def restore(self, request: Request) -> dict[str, Any]:
        config = self.config
        source = StoreSource(config, host=config.host, identity_file=self.directory / "keys" / "operator.key")
        journal = Journal(config.journal_file)
        return restore.run(config, request, source=source, service=self, clock=Clock(), journal=journal)

    def ask(self, sql: str, *values: object) -> Any:
        """The first value of a read-only query on the service's database."""
        path = self.config.databases[0].path
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(sql, values).fetchone()[0]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "it takes too long"
            time.sleep(0.1)

    def deploy(self) -> None:
        """Lay out a release as the role app does, with the links of the profile."""
        release = self.root / "releases" / "r1"
        shutil.copytree(
            sample.SOURCE / "fluxhero",
            release / "fluxhero",
            ignore=shutil.ignore_patterns("frontend", "__pycache__"),
        )
        (release / "REVISION").write_text("r1\n")
        (release / "venv").symlink_to(sample.VENV)
        (self.root / "current").symlink_to("releases/r1")
        (self.root / "data" / "logs").mkdir(parents=True)
        settings = self.root / ".env"
        settings.write_text(f"FLUXHERO_PROFILE=upstream\nFLUXHERO_TRADE_RATE=20\nAPI_TOKEN={TOKEN}\n")
        settings.chmod(0o640)
        for name in json.loads((self.directory / "links.json").read_text()):
            (release / name).symlink_to(self.root / name)

    # -- ServiceControl ----------------------------------------------------------------------------------------

    def active(self) -> list[str]:
        running = self._process is not None and self._process.poll() is None
        return [UNIT] if running else []

    def hold(self) -> None:
        pass

    def release(self) -> None:
        pass

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def start(self, units: Sequence[str]) -> None:
        if not units or self.active():
            return
        lines = (self.directory / UNIT).read_text().splitlines()
        unit = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("Environment="))
        environment = [shlex.split(line)[0].split("=", 2)[1:] for line in lines if line.startswith("Environment=")]
        kind, _colon, log = unit["StandardOutput"].partition(":")
        assert kind == "append"
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                shlex.split(unit["ExecStart"]),
                cwd=unit["WorkingDirectory"],
                env={"PATH": os.environ["PATH"], **dict(environment)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def wait_healthy(self) -> dict[str, Any]:
        return probe.wait_healthy(self.config.health, Clock())


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    sample.ensure()
    made = Host(tmp_path_factory.mktemp("host"))
    for name in ("config.d", "state", "run", "target", "collections/ansible_collections/fluxhero"):
        (made.directory / name).mkdir(parents=True)
    (made.directory / "collections/ansible_collections/fluxhero/maintenance").symlink_to(PROJECT)
    (made.directory / "target" / ".fluxmaint-target").touch()
    make_keys(made.directory / "keys")
    made.play(RENDER)
    made.deploy()
    made.start([UNIT])
    try:
        made.wait_healthy()
        made.wait_for(lambda: bool(made.ask("SELECT count(*) FROM live_trades")))
        yield made
    finally:
        made.stop()


def test_preflight_holds_on_the_running_service_and_tells_of_uncovered_settings(host: Host) -> None:
    local = host.root / "frontend" / ".env.local"
    local.parent.mkdir()
    local.write_text("NEXT_PUBLIC_API_URL=http://127.0.0.1\n")
    host.play(PREFLIGHT)
    found = json.loads((host.directory / "preflight.json").read_text())
    assert found["ok"] is True
    probes = {item["name"]: item for item in found["facts"]["probes"]}
    assert {name: item["status"] for name, item in probes.items()} == {"liveness": 200, "websocket": 101}
    assert probes["liveness"]["url"].endswith("/health")
    assert found["facts"]["databases"]["system"]["journal_mode"] == "delete"
    assert found["facts"]["uncovered_settings"] == [str(local)]
    assert [text for text in found["hazards"] if str(local) in text]
    assert TOKEN not in json.dumps(found)


def test_prices_without_the_token_are_a_mismatch(host: Host) -> None:
    websocket = host.config.health.websocket
    assert websocket is not None
    health = dataclasses.replace(host.config.health, websocket=dataclasses.replace(websocket, headers={}))
    findings = preflight.check(dataclasses.replace(host.config, health=health), unit_state=None)
    assert len(findings.mismatches) == 1
    assert "/ws/prices" in findings.mismatches[0] and "403" in findings.mismatches[0]


def test_the_emergency_stop_that_is_not_there_is_no_success(host: Host) -> None:
    url = f"http://127.0.0.1:{host.port}/api/emergency_stop"
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10)
    answer.value.close()
    assert answer.value.code == 404
    liveness = host.config.health.liveness
    assert liveness is not None
    result = probe.check_http("stop", dataclasses.replace(liveness, url=url), Clock())
    assert (result.ok, result.status) == (False, 404)
    assert host.config.halt_file is None


def test_a_recovery_says_first_that_nothing_could_halt_trading(host: Host) -> None:
    done = host.played(RECOVERY)
    assert done.returncode == 2
    told = " ".join(done.stdout.split())
    assert "nothing can keep the recovered service from trading" in told and "Nothing was changed" in told


def test_backup_and_restore_in_place(host: Host) -> None:
    config = host.config
    archived = host.root / "data" / "archive" / "trades_2025.parquet"
    archived.write_bytes(b"PAR1 trades that nothing can make again PAR1")
    cached = host.root / "data" / "cache"
    host.wait_for(lambda: bool(list(cached.glob("*.parquet"))))
    made = host.fluxmaint("backup", "--kind", "full")
    assert made["result"] == "ok", made
    assert {"db-system", "config", "logs", "system"} <= {part["name"] for part in made["parts"]}
    settings = (host.root / ".env").read_bytes()

    beats = host.ask("SELECT count(*) FROM heartbeat")
    host.wait_for(lambda: bool(host.ask("SELECT count(*) FROM heartbeat") >= beats + 2))
    lost = host.ask("SELECT at FROM heartbeat ORDER BY n DESC LIMIT 1")
    archived.unlink()
    parts = ("databases", "config", "cache")
    (host.root / ".env").write_bytes(settings.replace(TOKEN.encode(), b"rotated"))
    # There is no latch that could keep it from trading: that has to be said.
    with pytest.raises(PreconditionError, match="no halt file"):
        host.restore(Request(made["id"], include=parts, config_consent=True))
    assert host.active() and not archived.exists()
    result = host.restore(Request(made["id"], include=parts, config_consent=True, halt_trading=False))
    assert (result["result"], result["digests_equal"]) == ("restored", True)
    assert host.active() and (host.root / ".env").read_bytes() == settings
    assert archived.read_bytes().startswith(b"PAR1 trades")
    # The restored service trades on, from the data of the backup.
    assert host.ask("SELECT count(*) FROM heartbeat WHERE at = ?", lost) == 0
    trades = host.ask("SELECT count(*) FROM live_trades")
    host.wait_for(lambda: bool(host.ask("SELECT count(*) FROM live_trades") > trades))
    assert preflight.check(config, unit_state=None).ok
