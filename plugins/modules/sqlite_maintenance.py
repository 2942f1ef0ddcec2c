#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sqlite_maintenance
short_description: Keep the service's SQLite databases small and fast, when that is due
version_added: "0.2.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Decides from facts what is due for each database of the service - free pages, how much they are scattered and
    filled, growth, statistics that no longer fit - and does it. What the limits are, when the maintenance window is and
    whether the service may be stopped, is in the section C(upkeep) of the host's configuration, which the role
    P(fluxhero.maintenance.database#role) writes.
  - Statistics are made, and free pages given back where C(auto_vacuum) is incremental, in transactions so short that
    the service goes on.
  - A database is written anew only within the maintenance window and with the lease of the host. When its writers would
    wait for longer than they can, the units are stopped for it where the operator allows that; else it is left as it
    is, and RV(databases) says why.
  - A copy of the database is checked first. A damaged database is not touched. After a vacuum the content digests of
    all tables must be what they were, and SQLite's full check must find nothing; else the state from before is put
    back, with the units stopped. The units that ran before run again afterwards, also after a failure.
  - What a killed run has left is finished or undone first.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
attributes:
  check_mode:
    support: full
    details: Returns what would be done, with the predicted wait of writers, time and space.
  diff_mode:
    support: full
    details: Shows the bytes and the share of free pages of each database before and after; in check mode, as predicted.
  idempotent:
    support: full
options:
  databases:
    description: Names of databases of the service contract; all of them without it.
    type: list
    elements: str
    default: []
  ignore_window:
    description: Go on as if the maintenance window were open. The units are stopped only where that is allowed.
    type: bool
    default: false
  config_file:
    description: The configuration of this host, written by the roles of this collection.
    type: path
    default: /etc/fluxmaint/config.json
seealso:
  - module: fluxhero.maintenance.sqlite_size_info
  - module: fluxhero.maintenance.sqlite_integrity_info
"""

EXAMPLES = r"""
- name: Keep the databases small and fast
  fluxhero.maintenance.sqlite_maintenance:
  register: upkeep

- name: Write one database anew now, outside of the maintenance window
  fluxhero.maintenance.sqlite_maintenance:
    databases: [trades]
    ignore_window: true
"""

RETURN = r"""
result:
  description: V(ok), V(degraded) when something is due and refused, or V(planned) in check mode.
  returned: success
  type: str
databases:
  description: Each database.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name in the service contract.
      type: str
    path:
      description: The database file.
      type: str
    actions:
      description:
        - What was, or would be, done - C(kind) is V(analyze), V(incremental_vacuum) or V(vacuum); C(why); C(way) is
          V(waiting) while the service runs, or V(stopped); predicted C(wait_s), C(duration_s), C(space_bytes) and
          C(frees_bytes).
      type: list
      elements: dict
    left:
      description:
        - What was not done - C(kind); C(state) is V(waits) for the maintenance window, V(refused) or V(futile); C(why).
      type: list
      elements: dict
    facts:
      description: What that was decided from.
      type: dict
    done:
      description: What was done, with how long it took. Not in check mode.
      type: list
      elements: dict
    after:
      description: Bytes, free pages and fragmentation afterwards, when something was done.
      type: dict
resumed:
  description: An interrupted vacuum that was finished or undone first; null when there was none.
  returned: success, not in check mode
  type: dict
text:
  description: The same for people.
  returned: success
  type: str
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core import config as configuration
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.journal import Journal
from ansible_collections.fluxhero.maintenance.plugins.module_utils.service import units, upkeep_job, upkeep_text


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    config = configuration.load(Path(params["config_file"]))
    act = upkeep_job.plan if check_mode else upkeep_job.run
    result = act(
        config,
        service=units.SystemdService(config),
        journal=Journal(config.journal_file),
        databases=params["databases"],
        ignore_window=params["ignore_window"],
    )
    warnings = [
        f"{item['name']}: {left['kind']} is refused: {left['why']}"
        for item in result["databases"]
        for left in item.get("left", [])
        if left["state"] == "refused"
    ]
    warnings += [f"{item['name']}: {item['error']['message']}" for item in result["databases"] if "error" in item]
    before, after = upkeep_text.difference(result)
    return {
        **result,
        "text": upkeep_text.text(result),
        "warnings": warnings,
        "diff": {"before": before, "after": after},
    }


def main() -> None:
    run_module(
        {
            "databases": {"type": "list", "elements": "str", "default": []},
            "ignore_window": {"type": "bool", "default": False},
            "config_file": {"type": "path", "default": "/etc/fluxmaint/config.json"},
        },
        work,
    )


if __name__ == "__main__":
    main()
