# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which generations a recovery takes data and code from: the role's own expressions, templated by Ansible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLE = Path(__file__).resolve().parents[3] / "roles" / "disaster_recovery"


def generation(day: int, kind: str, state: str = "committed") -> dict[str, str]:
    return {
        "id": f"202611{day:02}T020000Z-abcdef",
        "kind": kind,
        "state": state,
        "started_at": f"2026-11-{day:02}T02:00:00Z",
    }


def named(day: int) -> str:
    return generation(day, "")["id"]


# A week: full on the 15th and the 22nd, daily else; one of the 24th was cut off. Newest first, as the module says it.
WEEK = [
    generation(24, "full", "orphan"),
    generation(23, "daily"),
    generation(22, "full"),
    *(generation(day, "daily") for day in range(21, 15, -1)),
    generation(15, "full"),
    generation(14, "daily"),
]
# name: (generations, disaster_recovery_generation, disaster_recovery_before, data, code)
CASES: dict[str, tuple[list[dict[str, str]], str, str, str, str]] = {
    "latest is daily": (WEEK, "latest", "", named(23), named(22)),
    "latest is full": (WEEK[2:], "latest", "", named(22), named(22)),
    "six days after the full one": (WEEK[3:], "latest", "", named(21), named(15)),
    "code is not newer than the data": (WEEK, named(18), "", named(18), named(15)),
    "a full one by its id": (WEEK, named(15), "", named(15), named(15)),
    "before a time": (WEEK, "latest", "2026-11-20T02:00:00Z", named(19), named(15)),
    "no full one": (WEEK[-1:], "latest", "", named(14), ""),
    "nothing before": (WEEK, "latest", "2026-11-01T00:00:00Z", "", ""),
    "nothing": ([], "latest", "", "", ""),
    "cut off": (WEEK, named(24), "", named(24), named(24)),
    "not listed": (WEEK, "20261101T020000Z-000000", "", "20261101T020000Z-000000", "20261101T020000Z-000000"),
}


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """For each case the ids of data and code."""
    folder = tmp_path_factory.mktemp("choice")
    answers = folder / "answers.json"
    tasks: list[dict[str, Any]] = [
        {
            "ansible.builtin.set_fact": {
                "answers": "{{ answers | default([]) + [[__disaster_recovery_data_id, __disaster_recovery_code_id]] }}"
            },
            "vars": {
                "__disaster_recovery_backups": {"generations": "{{ item[0] }}"},
                "disaster_recovery_generation": "{{ item[1] }}",
                "disaster_recovery_before": "{{ item[2] }}",
            },
            "loop": [list(case[:3]) for case in CASES.values()],
        },
        {"ansible.builtin.copy": {"content": "{{ answers | to_json }}", "dest": str(answers), "mode": "0600"}},
    ]
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "vars_files": [str(ROLE / "vars" / "main.yml")],
        "tasks": tasks,
    }
    playbook = folder / "play.yml"
    playbook.write_text(yaml.safe_dump([play]), encoding="utf-8")
    command = [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", playbook]
    environment = {**os.environ, "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"), "ANSIBLE_REMOTE_TEMP": str(folder / "tmp")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return dict(zip(CASES, json.loads(answers.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("name", CASES)
def test_d12_newest_data_and_the_code_before_it(chosen: dict[str, list[str]], name: str) -> None:
    assert chosen[name] == list(CASES[name][3:])
