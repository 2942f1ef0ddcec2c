# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run playbooks against the lab's hosts, for what a scenario's converge cannot show: refusals and failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]


def play(playbook: str, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run a playbook, a path below the project or a collection's name; the caller judges its return code."""
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("--inventory", "inventories/lab/hosts.yml", "--extra-vars", json.dumps(variables)),
            *arguments,
            playbook,
        ],
        cwd=PROJECT,
        env={**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def words(played: subprocess.CompletedProcess[str]) -> str:
    """What a playbook printed, free of line breaks, so that messages can be found in it."""
    return " ".join(played.stdout.replace("''", "'").split())
