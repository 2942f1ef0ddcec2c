#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_check_info
short_description: Ask a running service whether it keeps its contract
version_added: "0.2.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Looks once at everything that the contract promises of a running service. The units run, the endpoints answer as
    they should, every named query of each database has an answer, the invariants hold, and the rows are there.
  - Databases are opened read-only and are not created.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
  - fluxhero.maintenance.attributes.info_module
options:
  config_file:
    description: The configuration of the host that this module runs on.
    type: path
    default: /etc/fluxmaint/config.json
  least_rows:
    description: For each database its tables, with the number of rows that must be there at least.
    type: dict
    default: {}
  fail_on_failure:
    description: Fail when a promise is not kept.
    type: bool
    default: true
seealso:
  - module: fluxhero.maintenance.service_preflight_info
"""

EXAMPLES = r"""
- name: Require that the service works and no trade is missing
  fluxhero.maintenance.service_check_info:
    least_rows:
      trades: {trades: 1000}
"""

RETURN = r"""
ok:
  description: Whether every promise is kept.
  returned: success
  type: bool
failures:
  description: What is not as promised, one sentence each.
  returned: always
  type: list
  elements: str
units:
  description: The units that run.
  returned: always
  type: list
  elements: str
conditions:
  description: The answers of the endpoints.
  returned: always
  type: list
  elements: dict
databases:
  description: For each database the answers to its named queries, its invariants, and its rows per table.
  returned: always
  type: dict
  sample: {"trades": {"queries": {"open_positions": 2}, "invariants": [], "rows": {"trades": 1000}}}
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core import config as configuration
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.errors import PreconditionError
from ansible_collections.fluxhero.maintenance.plugins.module_utils.service import contract_check, units


def work(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    config = configuration.load(Path(params["config_file"]))
    found = contract_check.check(
        config, active=units.SystemdService(config).active, least_rows=params["least_rows"]
    )
    if params["fail_on_failure"] and not found["ok"]:
        listed = "; ".join(found["failures"])
        facts = {key: value for key, value in found.items() if key != "ok"}
        raise PreconditionError(f"the service does not keep its contract: {listed}", subject=config.service, **facts)
    return found


def main() -> None:
    run_module(
        {
            "config_file": {"type": "path", "default": "/etc/fluxmaint/config.json"},
            "least_rows": {"type": "dict", "default": {}},
            "fail_on_failure": {"type": "bool", "default": True},
        },
        work,
    )


if __name__ == "__main__":
    main()
