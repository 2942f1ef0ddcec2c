# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles make of the example inventory is a configuration that the engine accepts, in each profile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fluxmaint.core import config as configuration

PROJECT = Path(__file__).resolve().parents[3]
EXAMPLE = PROJECT / "inventories" / "example"
# The roles lend their variables; none of their tasks runs.
PRODUCTION = """
- hosts: production
  gather_facts: false
  connection: local
  roles:
    - {role: fluxhero.maintenance.agent, tags: never}
    - {role: fluxhero.maintenance.backup, tags: never}
    - {role: fluxhero.maintenance.database, tags: never}
  tasks:
"""
PLAYBOOK = (
    PRODUCTION
    + """\
    - ansible.builtin.copy:
        content: "{{ item.content | to_json }}"
        dest: "{{ directory }}/{{ item.name }}"
        mode: "0600"
      loop:
        - {name: config.json, content: "{{ __agent_config }}"}
        - {name: config.d/backup.json, content: {backup: "{{ __backup_section }}"}}
        - {name: config.d/database.json, content: "{{ __database_sections }}"}
"""
)
VERIFIER = """
- hosts: verifier
  gather_facts: false
  connection: local
  roles:
    - {role: fluxhero.maintenance.agent, tags: never}
    - {role: fluxhero.maintenance.backup_verify, tags: never}
  tasks:
    - ansible.builtin.copy:
        content: "{{ item.content | to_json }}"
        dest: "{{ directory }}/{{ item.name }}"
        mode: "0600"
      loop:
        - {name: config.json, content: "{{ __agent_config }}"}
        - {name: config.d/verify.json, content: {verify: "{{ __backup_verify_section }}"}}
        - {name: names, content: "{{ __backup_verify_names }}"}
"""
UNITS = (
    PRODUCTION
    + """\
    - ansible.builtin.template:
        src: "{{ item.src }}"
        dest: "{{ directory }}/{{ item.name }}"
        mode: "0600"
      vars:
        __database_job: "{{ item.job | default({}) }}"
      loop:
        - {name: backup, src: "{{ templates }}/backup/templates/fluxmaint-backup@.service"}
        - name: cleanup-cache
          src: "{{ templates }}/database/templates/job.service"
          job: "{{ __database_cache_cleanup_job }}"
        - name: export
          src: "{{ templates }}/database/templates/job.service"
          job: "{{ __database_export_job }}"
    - ansible.builtin.copy:
        content: "{{ __agent_config | to_json }}"
        dest: "{{ directory }}/config.json"
        mode: "0600"
"""
)


def rendered(directory: Path, play: str = PLAYBOOK, **variables: Any) -> configuration.Config:
    """The configuration of the example's production host, or of that in another play, with some variables set."""
    (directory / "config.d").mkdir(parents=True)
    playbook = directory / "render.yml"
    playbook.write_text(play)
    vault = yaml.safe_load((EXAMPLE / "group_vars" / "all" / "vault.yml.example").read_text())
    values = {**dict.fromkeys(vault, "filled-in"), "directory": str(directory), **variables}
    played = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("--inventory", str(EXAMPLE / "hosts.yml"), "--extra-vars", json.dumps(values)),
            *("--extra-vars", json.dumps({"ansible_python_interpreter": sys.executable})),
            str(playbook),
        ],
        env={**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    return configuration.load(directory / "config.json")


def test_guide_profile(tmp_path: Path) -> None:
    config = rendered(tmp_path / "guide")
    assert [str(database.path) for database in config.databases] == ["/opt/fluxhero/data/trades.db"]
    assert config.units == ["fluxhero-backend.service", "fluxhero-frontend.service"]
    assert config.health.liveness and config.health.liveness.json == {"status": "ACTIVE"}
    assert config.halt_file == Path("/opt/fluxhero/data/HALT")
    assert config.archives and config.archives.directory == Path("/opt/fluxhero/data/archive")
    archived = [(item.name, item.database, item.table) for item in config.archives.tables]
    assert archived == [("trades", "trades", "trades")]
    assert config.cache and config.cache.regenerable == ["*.parquet"]
    exports = config.require_exports()
    assert (str(exports.directory), exports.time_zone) == ("/opt/fluxhero/exports", "America/New_York")
    assert [(item.name, item.database, item.format) for item in exports.queries] == [("trades", "trades", "csv")]
    backup = config.require_backup()
    assert backup.signer == "fluxhero@production"
    assert [target.name for target in backup.targets] == ["offsite", "near"]
    offsite, near = backup.targets
    assert isinstance(offsite, configuration.TargetS3)
    assert offsite.credentials_file == Path("/etc/fluxmaint/keys/offsite.json")
    assert isinstance(near, configuration.TargetPath)
    assert near.require_mount
    assert config.upkeep is not None
    assert config.upkeep.window == configuration.Window(["Sun"], "03:00", 7200)
    assert config.upkeep.stop_units is True


def test_upstream_profile(tmp_path: Path) -> None:
    config = rendered(tmp_path / "upstream", service_profile="upstream")
    assert [str(database.path) for database in config.databases] == ["/opt/fluxhero/data/system.db"]
    assert "live_trades" in config.databases[0].tables
    assert config.health.liveness and config.health.liveness.url == "http://127.0.0.1:8000/health"
    assert config.health.websocket and config.health.websocket.headers == {
        "Authorization": "env-file:/opt/fluxhero/.env:API_TOKEN"
    }
    assert config.logs and config.logs.directory == Path("/opt/fluxhero/data/logs")
    assert config.cache and "archive/*.parquet" in config.cache.patterns
    assert config.cache.regenerable == ["cache/*.parquet"]  # nothing can make the archive again
    assert [item.name for item in config.require_exports().queries] == ["live_trades"]
    assert config.archives and [item.table for item in config.archives.tables] == ["live_trades", "paper_trades"]
    assert config.halt_file is None


@pytest.mark.parametrize(
    ("variables", "what"),
    [
        ({"service_root": "/srv/flux"}, "every path follows the root"),
        ({"service_frontend_enabled": False}, "nothing of the front end is left"),
        (
            {"service_cache_dir": "", "service_health_websocket": {}, "service_archives": []},
            "what is empty is not asked for",
        ),
    ],
)
def test_one_variable_is_enough(tmp_path: Path, variables: dict[str, Any], what: str) -> None:
    config = rendered(tmp_path / "own", **variables)
    if "service_root" in variables:
        assert "/opt/fluxhero" not in (tmp_path / "own" / "config.json").read_text(), what
    elif "service_frontend_enabled" in variables:
        assert "frontend" not in (tmp_path / "own" / "config.json").read_text().replace('"frontend": null', ""), what
    else:
        assert config.cache is None and config.health.websocket is None and config.archives is None, what


def test_what_reaches_the_targets_does_so_in_one_environment(tmp_path: Path) -> None:
    proxy = {"https_proxy": "http://proxy.example:3128", "NO_PROXY": "localhost,.example"}
    rendered(tmp_path / "units", UNITS, templates=str(PROJECT / "roles"), backup_environment=proxy)
    wanted = ['Environment="NO_PROXY=localhost,.example"', 'Environment="https_proxy=http://proxy.example:3128"']
    for unit, expected in (("backup", wanted), ("cleanup-cache", wanted), ("export", [])):
        lines = (tmp_path / "units" / unit).read_text().splitlines()
        assert sorted(line for line in lines if line.startswith("Environment=")) == expected, unit
        assert all(lines.index(line) > lines.index("[Service]") for line in expected)


def test_a_verifier_reads_with_one_key_and_writes_proofs_with_another(tmp_path: Path) -> None:
    other = {"service": "other", "host": "elsewhere"}
    config = rendered(tmp_path / "verifier", VERIFIER, backup_verify_others=[other])
    verify = config.require_verify()
    assert isinstance(verify.target, configuration.TargetS3)
    keys = Path("/etc/fluxmaint/keys")
    assert (verify.target.name, verify.target.credentials_file) == ("offsite", keys / "verifier.json")
    assert verify.proof_credentials_file == keys / "verifier-proofs.json"
    assert (verify.identity_file, verify.signing_key_file) == (keys / "verifier.key", keys / "verifier_ed25519")
    assert verify.verifier == "staging"
    assert [(item.service, item.host, item.signer) for item in verify.origins] == [
        ("fluxhero", "production", "fluxhero@production"),
        ("other", "elsewhere", "other@elsewhere"),
    ]
    assert json.loads((tmp_path / "verifier" / "names").read_text()) == ["fluxhero@staging", "other@staging"]
    changes = {"backup_verify_older": 3, "backup_verify_evidence_days": 90}
    alone = rendered(tmp_path / "alone", VERIFIER, backup_verify_proof_credentials={}, **changes)
    assert alone.require_verify().evidence_days == 90
    assert alone.require_verify().proof_credentials_file is None
    assert (alone.require_verify().older, len(alone.require_verify().origins)) == (3, 1)
