#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_status_info
short_description: Tell in one word how the backups of a host are, and why
version_added: "0.2.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Looks at the targets, the signatures of the proofs, the journal, the schedule and the restores of the host that the
    module runs on, as C(fluxmaint status) does.
  - Only a generation that another machine has restored and proven counts as proven.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
  - fluxhero.maintenance.attributes.info_module
options:
  config_file:
    description: The configuration of the host.
    type: path
    default: /etc/fluxmaint/config.json
requirements:
  - boto3 1.26 or newer on the host, for S3 targets (Debian package C(python3-boto3))
seealso:
  - module: fluxhero.maintenance.backup_generation_info
"""

EXAMPLES = r"""
- name: Look at the backups
  fluxhero.maintenance.backup_status_info:
  register: backups

- name: Require that they can be relied on
  ansible.builtin.assert:
    that: backups.result == 'ok'
    fail_msg: "{{ backups.reasons | map(attribute='text') | join('; ') }}"
"""

RETURN = r"""
result:
  description:
    - V(ok); V(degraded) when something is missing, such as a target or a proof; V(overdue) when the newest or newest
      proven generation is older than allowed; V(failed) when the last backup failed, no target can be reached, or a
      restore or the upkeep of a database is unfinished.
  returned: success
  type: str
reasons:
  description: Why it is not V(ok), worst first.
  returned: success
  type: list
  elements: dict
  contains:
    code:
      description: A word that stays the same while the reason lasts.
      type: str
    severity:
      description: V(degraded), V(overdue) or V(failed).
      type: str
    text:
      description: The reason for people.
      type: str
service:
  description: The service.
  returned: success
  type: str
host:
  description: The host.
  returned: success
  type: str
time:
  description: When this was looked at, UTC.
  returned: success
  type: str
last_backup:
  description:
    - C(id), C(time) and C(result) of the last backup of this host that is over, or null.
    - The C(result) is C(ok), C(degraded), C(failed), or C(interrupted) for one that was killed or lost its power;
      that one has the time of its start and no id.
  returned: success
  type: dict
newest:
  description:
    - Id of the newest committed generation on any target that is signed and whole, or empty.
  returned: success
  type: str
newest_age_s:
  description: Its age in seconds, or null.
  returned: success
  type: int
newest_proven:
  description: Id of the newest proven generation on any target, or empty.
  returned: success
  type: str
newest_proven_age_s:
  description: Its age in seconds, or null.
  returned: success
  type: int
newest_proven_at:
  description: When it was proven last, UTC, or empty.
  returned: success
  type: str
newest_proven_by:
  description: Who has proven it.
  returned: success
  type: list
  elements: str
max_age_s:
  description: How old the newest generation may be, in seconds.
  returned: success
  type: float
max_proven_age_s:
  description: How old the newest proven generation may be, in seconds.
  returned: success
  type: float
schedule:
  description: When systemd makes the next generations, C(kind) and C(at) in UTC, soonest first.
  returned: success
  type: list
  elements: dict
due_by:
  description: When the newest generation becomes too old, UTC, or empty.
  returned: success
  type: str
targets:
  description: Each target by its name, as M(fluxhero.maintenance.backup_generation_info) tells them.
  returned: success
  type: dict
generations:
  description: Every generation, as M(fluxhero.maintenance.backup_generation_info) tells them.
  returned: success
  type: list
  elements: dict
lost:
  description:
    - By target, the ids of generations that this host has stored there, that retention keeps, and that are gone.
  returned: success
  type: dict
makes_backups:
  description: Whether this host makes backups; one that only verifies does not.
  returned: success
  type: bool
verification:
  description: On a verifier, what its last run has found; else null.
  returned: success
  type: dict
lease:
  description: Who holds the lease of the host, or null.
  returned: success
  type: dict
unfinished_restore:
  description: Id of the restore that is running or was interrupted, or null.
  returned: success
  type: str
running_restore:
  description: Whether a restore is running now.
  returned: success
  type: bool
upkeep:
  description:
    - What upkeep of the databases has left. Whether it is C(running) now. The vacuum that is C(unfinished), or null,
      with its C(database), C(path), C(way), C(step), the C(units) that ran before and C(since) when it stands there, or
      an C(error) alone when the record of it cannot be read. C(files) beside the databases, with C(path), C(bytes) and
      whether the file is C(kept) because the database was damaged afterwards.
  returned: success
  type: dict
held_units:
  description: Units that a restore, or upkeep of a database, keeps from starting.
  returned: success
  type: list
  elements: str
text:
  description: The same as text for people.
  returned: success
  type: str
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core import config as configuration
from ansible_collections.fluxhero.maintenance.plugins.module_utils.service import backup_status


def work(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    facts = backup_status.status(configuration.load(Path(params["config_file"])))
    return {**facts, "text": backup_status.text(facts)}


def main() -> None:
    run_module({"config_file": {"type": "path", "default": "/etc/fluxmaint/config.json"}}, work)


if __name__ == "__main__":
    main()
