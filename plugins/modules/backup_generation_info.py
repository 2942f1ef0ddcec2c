#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_generation_info
short_description: Tell which backup generations the targets hold
version_added: "0.1.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Lists the generations of a host on each configured target, with age, size, whether they are committed, and who has
    proven them by restoring them.
  - Generations that were never committed are listed with the state V(orphan). They are no backups.
  - A target that cannot be reached is told in RV(targets) and as a warning. The module fails when none can.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
  - fluxhero.maintenance.attributes.info_module
options:
  config_file:
    description: The configuration of the host that this module runs on.
    type: path
    default: /etc/fluxmaint/config.json
  target:
    description: Only this target.
    type: str
    default: ""
  service:
    description: Name of the service; that of the configuration when empty.
    type: str
    default: ""
  host:
    description: Name of the host whose generations are meant; that of the configuration when empty.
    type: str
    default: ""
  verify_proofs:
    description:
      - Read the proofs, and count only those whose signature is good.
      - Read manifests, too, from the newest on until one is good. Those before it are V(suspect) and count for nothing.
    type: bool
    default: false
requirements:
  - boto3 1.26 or newer on the host, for S3 targets (Debian package C(python3-boto3))
seealso:
  - module: fluxhero.maintenance.backup_generation
"""

EXAMPLES = r"""
- name: List the generations on all targets
  fluxhero.maintenance.backup_generation_info:
  register: backups

- name: Require a proven generation from the last two days
  ansible.builtin.assert:
    that: backups.generations | selectattr('proven_by') | selectattr('age_s', 'lt', 172800) | list | length > 0
"""

RETURN = r"""
service:
  description: Whose generations are listed.
  returned: success
  type: str
host:
  description: Whose generations are listed.
  returned: success
  type: str
targets:
  description: Each target by its name.
  returned: success
  type: dict
  contains:
    reachable:
      description: Whether it answered.
      type: bool
    error:
      description: Why not.
      type: str
    committed:
      description: Number of committed generations.
      type: int
    orphans:
      description: Number of generations without COMMIT.
      type: int
    suspect:
      description: Number of generations that do not verify; with O(verify_proofs) only.
      type: int
    newest:
      description: Id of the newest committed generation, or empty.
      type: str
    newest_proven:
      description: Id of the newest proven generation, or empty.
      type: str
generations:
  description: Every generation, newest first.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The generation's id.
      type: str
    targets:
      description: Names of the targets that hold it, committed.
      type: list
      elements: str
    missing_on:
      description: Names of the targets in reach that do not.
      type: list
      elements: str
    orphan_on:
      description: Names of the targets that hold it without COMMIT.
      type: list
      elements: str
    suspect_on:
      description: Names of the targets on which it does not verify; with O(verify_proofs) only.
      type: list
      elements: str
    error:
      description: Why it does not verify there, or empty.
      type: str
    kind:
      description: V(daily) or V(full).
      type: str
    state:
      description: V(committed), V(orphan) or V(suspect).
      type: str
    started_at:
      description: When it was started, UTC.
      type: str
    age_s:
      description: Seconds since then.
      type: int
    bytes:
      description: Size of its own objects; cache files are shared between generations.
      type: int
    objects:
      description: Number of its own objects.
      type: int
    proven_by:
      description: Names of the verifiers that have proven it.
      type: list
      elements: str
    proven_at:
      description: Time of the newest of these proofs, UTC, or empty.
      type: str
newest:
  description: Id of the newest committed generation on any target, or empty.
  returned: success
  type: str
newest_proven:
  description: Id of the newest proven generation on any target, or empty.
  returned: success
  type: str
problems:
  description: What is wrong with targets and generations.
  returned: success
  type: list
  elements: str
table:
  description: The same as text for people.
  returned: success
  type: str
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.backup import overview
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core import config as configuration


def work(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    facts = overview.overview(
        configuration.load(Path(params["config_file"])),
        target=params["target"],
        service=params["service"],
        host=params["host"],
        verify_proofs=params["verify_proofs"],
    )
    return {**facts, "table": overview.table(facts), "warnings": list(facts["problems"])}


def main() -> None:
    run_module(
        {
            "config_file": {"type": "path", "default": "/etc/fluxmaint/config.json"},
            "target": {"type": "str", "default": ""},
            "service": {"type": "str", "default": ""},
            "host": {"type": "str", "default": ""},
            "verify_proofs": {"type": "bool", "default": False},
        },
        work,
    )


if __name__ == "__main__":
    main()
