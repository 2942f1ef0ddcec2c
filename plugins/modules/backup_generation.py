#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_generation
short_description: Take a backup generation and store it on every target
version_added: "0.1.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Takes hot snapshots of the databases that the host's configuration names, proves them, adds configuration, logs and
    cache files, and with O(kind=full) the deployed release; compresses, encrypts and signs them, stores them on each
    target, reads every object back, and commits the generation there last.
  - The service keeps running and writing.
  - What an earlier run could not store, because a target was down, is completed.
  - Every run takes a new generation, so it always reports a change.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
attributes:
  check_mode:
    support: full
    details: Returns RV(plan), with the state of each target. Nothing is written.
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Each run takes a new generation.
options:
  kind:
    description: V(full) adds the code behind the release link, unit files and the list of packages to V(daily).
    type: str
    choices: [daily, full]
    default: daily
  config_file:
    description: The configuration of this host, written by the roles of this collection.
    type: path
    default: /etc/fluxmaint/config.json
  accept_drift:
    description:
      - Take the databases as they are, even if a table lost more rows than the configured C(drift_limit) since the
        generation before. Look first why it did.
    type: bool
    default: false
  fail_on_degraded:
    description:
      - Fail when a target did not take the generation, or when a part that is not a database or configuration file
        could not be taken. The generation is stored on the other targets all the same.
    type: bool
    default: true
requirements:
  - age, zstd and ssh-keygen on the host
  - boto3 1.26 or newer on the host, for S3 targets (Debian package C(python3-boto3))
seealso:
  - module: fluxhero.maintenance.backup_generation_info
"""

EXAMPLES = r"""
- name: Take a generation before the update
  fluxhero.maintenance.backup_generation:
    kind: full
  register: taken

- name: Show where it is
  ansible.builtin.debug:
    msg: "{{ taken.id }} on {{ taken.targets }}"
"""

RETURN = r"""
plan:
  description: What would be backed up, and the state of each target.
  returned: in check mode
  type: dict
  contains:
    kind:
      description: As O(kind).
      type: str
    parts:
      description: Names of the parts, with their sources on this host.
      type: list
      elements: dict
    targets:
      description: V(reachable), or what is wrong, by name.
      type: dict
    waiting:
      description: Earlier generations that a target still lacks.
      type: list
      elements: str
id:
  description: The generation's id.
  returned: success, not in check mode
  type: str
  sample: 20261123T020000Z-7f3a2c
kind:
  description: As O(kind).
  returned: success, not in check mode
  type: str
service:
  description: Name of the service.
  returned: success, not in check mode
  type: str
host:
  description: Name of the host, as generations call it.
  returned: success, not in check mode
  type: str
result:
  description: V(ok) or V(degraded).
  returned: success, not in check mode
  type: str
started_at:
  description: When it was started, UTC.
  returned: success, not in check mode
  type: str
finished_at:
  description: When it was stored, UTC.
  returned: success, not in check mode
  type: str
duration_s:
  description: How long that took.
  returned: success, not in check mode
  type: float
bytes:
  description: Size of everything before compression.
  returned: success, not in check mode
  type: int
stored_bytes:
  description: Size of the encrypted objects.
  returned: success, not in check mode
  type: int
newest:
  description: The newest business timestamp in each database.
  returned: success, not in check mode
  type: dict
parts:
  description: Each part with its object's name, sizes, SHA-256 and number of files.
  returned: success, not in check mode
  type: list
  elements: dict
databases:
  description: Rows per table, newest business timestamp, snapshot method, and how long writers had to wait at most.
  returned: success, not in check mode
  type: dict
cache:
  description: Number of cache files, and of those that were not stored before.
  returned: success, not in check mode
  type: dict
release:
  description: The deployed release, its directory and revision.
  returned: success, not in check mode
  type: dict
targets:
  description: V(stored) or V(failed), by name of the target.
  returned: success, not in check mode
  type: dict
errors:
  description: Why a target failed, by its name.
  returned: success, not in check mode
  type: dict
problems:
  description: What could not be taken.
  returned: success, not in check mode
  type: list
  elements: str
caught_up:
  description: Earlier generations, with the state of each target after completing them.
  returned: success, not in check mode
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.backup import generation
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core import config as configuration
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.errors import StoreError
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.journal import Journal


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    config = configuration.load(Path(params["config_file"]))
    if check_mode:
        return {"changed": True, "plan": generation.plan(config, params["kind"])}
    result = generation.create(
        config, params["kind"], journal=Journal(config.journal_file), accept_drift=params["accept_drift"]
    )
    wrong = [*result["errors"].values(), *result["problems"]]
    if result["result"] != "ok" and params["fail_on_degraded"]:
        raise StoreError(f"generation {result['id']} is degraded: {'; '.join(wrong)}", **{**result, "changed": True})
    return {"changed": True, "warnings": wrong, **result}


def main() -> None:
    run_module(
        {
            "kind": {"type": "str", "choices": ["daily", "full"], "default": "daily"},
            "config_file": {"type": "path", "default": "/etc/fluxmaint/config.json"},
            "accept_drift": {"type": "bool", "default": False},
            "fail_on_degraded": {"type": "bool", "default": True},
        },
        work,
    )


if __name__ == "__main__":
    main()
