#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_generation
short_description: Restore databases and files of a service from a backup generation
version_added: "0.1.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Fetches a generation, verifies its commit, signature and digests, decrypts and checks it, all before the service
    is touched. Then stops the units, moves what is there into a restore point, puts the verified files into place,
    proves them against the manifest, starts the units and waits for the health conditions of the service contract.
  - When a step fails after the service was stopped, the restore point is put back, the units that were running are
    started, and the module fails and reports both.
  - Works by a plan on the host that survives being killed at any point. The next run finishes or undoes an unfinished
    restore before it does anything else, see RV(resumed). That needs neither the identity nor the network.
  - On a host with systemd and C(fluxmaint), the restore runs in a unit of its own and does not depend on this
    connection.
  - Only places that the service contract of this host names are written.
notes:
  - A database is restored over a service that wrote until it was stopped, so this module reports a change each time it
    is used on a running service. It reports none when every place already holds the content of the generation.
  - The restore point holds the databases and configuration that were replaced. It is never deleted before later
    restores have succeeded, see O(restore_points).
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
attributes:
  check_mode:
    support: full
    details: Verifies commit, manifest and signature of the generation and returns the plan; decrypts nothing.
  diff_mode:
    support: full
    details: Lists the files that are put into place; of configuration files only the names of keys, never values.
  idempotent:
    support: partial
    details: A running service changes its databases, so that restoring them again is a change.
options:
  generation:
    description:
      - Id of the generation, or V(latest).
      - V(point-ID) puts back what the restore of that id has replaced, from the restore point on this host; see
        RV(restore_point), whose last part is the id. That needs neither the identity nor the network.
      - V(salvage-ID.CANDIDATE) puts a database into place that M(fluxhero.maintenance.sqlite_salvage) has made on this
        host. Name it in O(databases), too.
    type: str
    default: latest
  before:
    description: Take the newest generation that was started before this UTC time, such as V(2026-11-23T02:00:00Z).
    type: str
  host:
    description: Name of the host that made the generation, when it was not this one.
    type: str
  target:
    description: Name of the backup target to fetch from. The first configured target by default.
    type: str
  include:
    description:
      - Which parts to restore.
      - V(system) is the code of the release with its lock files, and the unit files; only generations of kind C(full)
        have it.
    type: list
    elements: str
    choices: [databases, config, cache, logs, system]
    default: [databases]
  databases:
    description: Names of databases. All of the contract by default.
    type: list
    elements: str
    default: []
  identity:
    description:
      - The age identity (private key) to decrypt with. It is written to the run directory of the host, which is in
        memory, and removed as soon as everything is decrypted.
      - Not needed when the generation was fetched to this host before, see O(stage_only).
    type: str
  identity_file:
    description: An age identity that is on the host already; it is left there.
    type: path
  allowed_signers_file:
    description: Public keys of hosts as C(ssh-keygen) takes them. The configured file by default.
    type: path
  signer:
    description: Who must have signed the generation. The configured signer by default.
    type: str
  config_consent:
    description:
      - Replace configuration files whose content differs. Without consent the module fails before the service is
        touched and names the keys that differ, because an old C(.env) would bring back keys that have been rotated.
    type: bool
    default: false
  halt_trading:
    description:
      - Create the contract's halt file before the units start, when a database is restored. The positions in it may be
        stale. Remove the file to resume, see RV(resume_trading).
    type: bool
    default: true
  start_units:
    description: Start the units and wait for health. Otherwise they stay stopped, and nothing is known of their health.
    type: bool
    default: true
  switch_release:
    description: Let the release link point to the restored release. Only with V(system) in O(include).
    type: bool
    default: false
  stage_only:
    description:
      - Only fetch, verify, decrypt and check the parts of O(include), and keep them for later calls with the same
        generation id, which need neither identity nor network. The service is not touched.
    type: bool
    default: false
  keep_stage:
    description: Keep what was fetched after success, for another call.
    type: bool
    default: false
  restore_points:
    description: How many restore points to keep on the host; older ones are removed after a success.
    type: int
    default: 3
  discard_replaced:
    description:
      - After success, keep neither what was replaced nor the restore point that was put back. For restores that were a
        test, so that the data of one host does not stay on another.
    type: bool
    default: false
  launcher:
    description:
      - V(systemd) runs the restore in a transient unit, V(inline) inside the module; V(auto) takes systemd where it
        runs and C(fluxmaint) is installed.
    type: str
    choices: [auto, systemd, inline]
    default: auto
  config_file:
    description: Configuration of the host's maintenance.
    type: path
    default: /etc/fluxmaint/config.json
seealso:
  - module: fluxhero.maintenance.backup_generation
  - module: fluxhero.maintenance.backup_generation_info
  - module: fluxhero.maintenance.sqlite_salvage
"""

EXAMPLES = r"""
- name: Put the newest databases back, from the off-site target
  fluxhero.maintenance.restore_generation:
    target: offsite
    identity: "{{ vault_age_identity }}"

- name: Restore one database and the configuration as they were yesterday
  fluxhero.maintenance.restore_generation:
    before: "2026-11-23T00:00:00Z"
    include: [databases, config]
    databases: [trades]
    config_consent: true
    identity: "{{ vault_age_identity }}"

- name: Fetch everything of the lost host once
  fluxhero.maintenance.restore_generation:
    host: production
    include: [databases, config, cache, logs, system]
    identity: "{{ vault_age_identity }}"
    stage_only: true
  register: fetched

- name: Put its code and units into place, from what was fetched
  fluxhero.maintenance.restore_generation:
    generation: "{{ fetched.generation_id }}"
    include: [system]
    start_units: false
    keep_stage: true
"""

RETURN = r"""
result:
  description: V(restored), V(unchanged), V(staged), or V(planned) in check mode.
  returned: success
  type: str
generation_id:
  description: The generation.
  returned: success
  type: str
kind:
  description: V(daily) or V(full).
  returned: success
  type: str
host:
  description: The host that made the generation.
  returned: when not in check mode
  type: str
started_at:
  description: When the generation was started, UTC.
  returned: success
  type: str
release:
  description: Directory of the release that was deployed when the generation was made.
  returned: success
  type: str
revision:
  description: Revision of that release.
  returned: success
  type: str
files:
  description: The files, with the action V(create), V(replace) or V(keep).
  returned: when something was, or in check mode would be, restored
  type: list
  elements: dict
  sample: [{"part": "databases", "path": "/opt/fluxhero/data/trades.db", "action": "replace", "bytes": 1048576}]
left_out:
  description: What the generation holds and this host's contract does not name, with the reason.
  returned: success
  type: list
  elements: str
digests_equal:
  description: Whether every file in place, and each table that the manifest has a digest of, has that digest.
  returned: when restored
  type: bool
content_digests_equal:
  description: Whether the tables have the content digests of the manifest; null when it has none.
  returned: when restored
  type: bool
tables:
  description: For each database what was compared.
  returned: when restored
  type: dict
phases:
  description: Steps and how long each took.
  returned: when not in check mode
  type: list
  elements: dict
  sample: [{"name": "stage", "seconds": 2.1}, {"name": "stop", "seconds": 0.8}]
restore_point:
  description: Directory that holds what was replaced.
  returned: when restored
  type: str
previous:
  description: The units that ran, and the files that were there.
  returned: when restored
  type: dict
units:
  description: The units that were started.
  returned: when restored
  type: list
  elements: str
health:
  description: Evidence of the health conditions.
  returned: when restored
  type: dict
config_diff:
  description: Configuration files with other content, and the names of keys that were added, removed or changed.
  returned: when restored, or in check mode
  type: list
  elements: dict
halt_file:
  description: The halt file that keeps the service from trading; empty when there is none.
  returned: when restored
  type: str
resume_trading:
  description: What to do so that the service trades again.
  returned: when restored
  type: str
fetched_bytes:
  description: Bytes that had to be fetched, after decryption.
  returned: when not in check mode
  type: int
resumed:
  description: The result of an unfinished restore that was finished or undone first.
  returned: when there was one
  type: dict
steps:
  description: The steps of the plan.
  returned: in check mode
  type: list
  elements: str
unfinished:
  description: Id of a restore that is unfinished and would be finished or undone first; empty when there is none.
  returned: in check mode
  type: str
request:
  description: What was asked for.
  returned: when not in check mode
  type: dict
id:
  description: Id of this restore, which is the name of its restore point.
  returned: when not in check mode
  type: str
cause:
  description: What made the restore fail.
  returned: failure, after the service was touched
  type: dict
rolled_back:
  description: Whether everything is as it was before.
  returned: failure, after the service was touched
  type: bool
where:
  description: Where each file that was there before is now.
  returned: failure, after the service was touched
  type: list
  elements: dict
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.backup.restore_plan import INCLUDE, Request
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core import config as configuration
from ansible_collections.fluxhero.maintenance.plugins.module_utils.service import restore_job

REQUEST_OPTIONS = {
    "generation": {"type": "str", "default": "latest"},
    "before": {"type": "str"},
    "host": {"type": "str"},
    "target": {"type": "str"},
    "include": {"type": "list", "elements": "str", "choices": list(INCLUDE), "default": ["databases"]},
    "databases": {"type": "list", "elements": "str", "default": []},
    "config_consent": {"type": "bool", "default": False},
    "halt_trading": {"type": "bool", "default": True},
    "start_units": {"type": "bool", "default": True},
    "switch_release": {"type": "bool", "default": False},
    "stage_only": {"type": "bool", "default": False},
    "keep_stage": {"type": "bool", "default": False},
    "restore_points": {"type": "int", "default": 3},
    "discard_replaced": {"type": "bool", "default": False},
}


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    config = configuration.load(Path(params["config_file"]))
    request = Request.from_dict({key: params[key] for key in REQUEST_OPTIONS if params[key] is not None})
    job = restore_job.Job(
        request,
        identity_file=Path(params["identity_file"]) if params["identity_file"] else None,
        allowed_signers_file=Path(params["allowed_signers_file"]) if params["allowed_signers_file"] else None,
        signer=params["signer"] or "",
    )
    if check_mode:
        result = restore_job.preview(config, job)
    else:
        launcher = restore_job.choose_launcher(params["launcher"], Path(params["config_file"]))
        result = restore_job.launch(config, job, launcher, identity=params["identity"])
    return {**result, "diff": restore_job.diff(result)}


def main() -> None:
    run_module(
        {
            **REQUEST_OPTIONS,
            "identity": {"type": "str", "no_log": True},
            "identity_file": {"type": "path", "no_log": False},
            "allowed_signers_file": {"type": "path"},
            "signer": {"type": "str"},
            "launcher": {"type": "str", "choices": ["auto", "systemd", "inline"], "default": "auto"},
            "config_file": {"type": "path", "default": "/etc/fluxmaint/config.json"},
        },
        work,
        mutually_exclusive=[("identity", "identity_file")],
    )


if __name__ == "__main__":
    main()
