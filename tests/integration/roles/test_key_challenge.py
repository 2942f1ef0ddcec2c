# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key ceremony has the holder of a key that is elsewhere test it, and reports what became of that."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.backup import recipients

PROJECT = Path(__file__).resolve().parents[3]
pytestmark = [
    pytest.mark.skipif(not shutil.which("age"), reason="the command age is needed"),
    pytest.mark.skipif(Path("/etc/fluxmaint/config.d/backup.json").exists(), reason="this host makes backups"),
]
# Before a host makes backups, the ceremony works on the controller alone.
PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  roles:
    - role: fluxhero.maintenance.backup_keys
"""


def ceremony(top: Path, public: str, **variables: Any) -> tuple[int, str, str]:
    """Its exit code, what it said, and the line of the report about the escrow key."""
    (top / "ceremony.yml").write_text(PLAYBOOK)
    values = {
        "backup_keys_dir": str(top / "keys"),
        "backup_keys_names": ["operator"],
        "backup_keys_public": {"escrow": public},
        "ansible_python_interpreter": sys.executable,
        **variables,
    }
    played = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("--inventory", "localhost,", "--extra-vars", json.dumps(values), str(top / "ceremony.yml")),
        ],
        env={**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    said = " ".join((played.stdout + played.stderr).replace("''", "'").split())
    line = re.search(r"escrow: private key not at hand.*?(?=Copy each \.key)", said)
    return played.returncode, said, line.group() if line else ""


def test_the_ceremony_tests_a_key_that_is_elsewhere(tmp_path: Path) -> None:
    key = tmp_path / "escrow.key"
    subprocess.run(["age-keygen", "-o", key], check=True, capture_output=True)
    public = subprocess.run(["age-keygen", "-y", key], check=True, capture_output=True, text=True).stdout.strip()
    file = tmp_path / "keys/escrow.challenge.age"
    code, said, line = ceremony(tmp_path, public)
    assert code == 0, said
    assert f"NOT TESTED: let its holder run age -d -i ITS.key {file} and run this with what" in line, said
    answer = subprocess.run(["age", "-d", "-i", key, file], check=True, capture_output=True, text=True).stdout
    code, said, line = ceremony(tmp_path, public, backup_keys_answers={"escrow": answer[:-2]})
    assert code != 0 and "was copied wrongly" in said and not line, said
    needed = {recipients.fingerprint(public): {"generations": 1, "oldest": "20261123T0", "newest": "20261123T1"}}
    code, said, line = ceremony(
        tmp_path, public, backup_keys_answers={"escrow": answer}, __backup_keys_needed={"recipients": needed}
    )
    assert code == 0 and "NOT TESTED" not in line, said
    assert "its holder has decrypted what was encrypted to it alone, answered 20" in line, said
    assert "; generation 20261123T1 is encrypted to it" in line
