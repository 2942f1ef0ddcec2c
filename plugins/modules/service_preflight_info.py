#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_preflight_info
short_description: Compare the service contract with the host
version_added: "0.1.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Verifies that what the service contract says about this host is true - accounts, directories, databases with their
    tables and columns, queries (compiled, not run), units, health endpoints, tools, versions and free space - and
    returns every mismatch at once.
  - Finds SQLite databases below the service's root that the contract does not name. A database that nobody backs up is
    a mismatch, unless the contract lists it as ignored.
  - Hazards that do not contradict the contract are warnings, each with its remedy.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
  - fluxhero.maintenance.attributes.info_module
options:
  contract:
    description:
      - The contract, in the form of the host's maintenance configuration. By default it is read from O(config_file).
    type: dict
  config_file:
    description: Configuration of the host's maintenance.
    type: path
    default: /etc/fluxmaint/config.json
  needs:
    description: Tools and free space that the enabled roles need on this host.
    type: list
    elements: dict
    default: []
    suboptions:
      command:
        description: Name of an executable that has to be there. Either this or O(needs[].path).
        type: str
      min_version:
        description: Lowest version that does, as C(COMMAND --version) tells it.
        type: str
      path:
        description: Directory whose file system needs O(needs[].free_bytes).
        type: path
      free_bytes:
        description: Bytes that have to be free.
        type: int
      for:
        description: What needs it, for the message.
        type: str
      remedy:
        description: What to do when it is lacking, for the message.
        type: str
  units:
    description: Ask systemd for the units.
    type: bool
    default: true
  endpoints:
    description: Ask the health endpoints, each once. Switch it off where the service is not deployed yet.
    type: bool
    default: true
  fail_on_mismatch:
    description: Fail when there is a mismatch.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Verify that the contract holds on this host
  fluxhero.maintenance.service_preflight_info:
    needs:
      - command: node
        min_version: "20.9"
        for: front end
        remedy: install a newer Node.js, or set service_frontend_enabled to false
      - path: /var/lib/fluxmaint
        free_bytes: 2000000000
        for: staging of backups
"""

RETURN = r"""
ok:
  description: Whether the contract holds.
  returned: success
  type: bool
mismatches:
  description: Everything that is not as the contract says.
  returned: always
  type: list
  elements: str
  sample: ["unit fluxhero-backend.service: systemd says not-found; correct service_units"]
hazards:
  description: Hazards with their remedies; also shown as warnings.
  returned: always
  type: list
  elements: str
facts:
  description: What was looked at - databases with journal mode and size, tools with versions, answers of endpoints.
  returned: always
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core import config as configuration
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.errors import PreconditionError
from ansible_collections.fluxhero.maintenance.plugins.module_utils.service import preflight, units


def work(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    contract = params["contract"]
    config = configuration.parse(contract) if contract else configuration.load(Path(params["config_file"]))
    findings = preflight.check(
        config,
        [preflight.Need.from_dict(need) for need in params["needs"]],
        unit_state=units.SystemdService(config).load_state if params["units"] else None,
        endpoints=params["endpoints"],
    )
    result = {"mismatches": findings.mismatches, "hazards": findings.warnings, "facts": findings.facts}
    if params["fail_on_mismatch"] and not findings.ok:
        listed = "".join(f"\n- {mismatch}" for mismatch in findings.mismatches)
        raise PreconditionError(
            f"the contract of {config.service} does not hold on this host:{listed}", subject=config.service, **result
        )
    return {"ok": findings.ok, **result, "warnings": list(findings.warnings)}


def main() -> None:
    run_module(
        {
            "contract": {"type": "dict"},
            "config_file": {"type": "path", "default": "/etc/fluxmaint/config.json"},
            "needs": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "command": {"type": "str"},
                    "min_version": {"type": "str"},
                    "path": {"type": "path"},
                    "free_bytes": {"type": "int"},
                    "for": {"type": "str"},
                    "remedy": {"type": "str"},
                },
                "required_one_of": [("command", "path")],
                "mutually_exclusive": [("command", "path")],
                "required_by": {"path": "free_bytes", "min_version": "command"},
            },
            "units": {"type": "bool", "default": True},
            "endpoints": {"type": "bool", "default": True},
            "fail_on_mismatch": {"type": "bool", "default": True},
        },
        work,
    )


if __name__ == "__main__":
    main()
