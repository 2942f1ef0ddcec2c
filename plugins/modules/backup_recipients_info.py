#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_recipients_info
short_description: Tell which backup generations are encrypted to which keys
version_added: "0.2.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Reads the manifests of all generations of a host on one target, and counts them by the fingerprints of the public
    keys that they are encrypted to. An old private key must be kept as long as a generation needs it.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
  - fluxhero.maintenance.attributes.info_module
options:
  config_file:
    description: The configuration of the host that this module runs on.
    type: path
    default: /etc/fluxmaint/config.json
  target:
    description: The target; the first one configured when empty.
    type: str
    default: ""
  host:
    description: Name of the host whose generations are meant; that of the configuration when empty.
    type: str
    default: ""
requirements:
  - boto3 1.26 or newer on the host, for S3 targets (Debian package C(python3-boto3))
"""

EXAMPLES = r"""
- name: Look which keys are still needed
  fluxhero.maintenance.backup_recipients_info:
  register: needed
"""

RETURN = r"""
target:
  description: Name of the target.
  returned: success
  type: str
recipients:
  description: By fingerprint of a public key, C(generations) (how many), and the ids of the C(oldest) and C(newest).
  returned: success
  type: dict
unreadable:
  description: Ids of committed generations whose manifest cannot be read.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.backup import recipients
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core import config as configuration
from ansible_collections.fluxhero.maintenance.plugins.module_utils.store.open import open_store


def work(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    config = configuration.load(Path(params["config_file"]))
    backup = config.require_backup()
    target = backup.target(params["target"]) if params["target"] else backup.targets[0]
    found = recipients.usage(open_store(target), config.service, params["host"] or config.host)
    return {"target": target.name, **found}


def main() -> None:
    run_module(
        {
            "config_file": {"type": "path", "default": "/etc/fluxmaint/config.json"},
            "target": {"type": "str", "default": ""},
            "host": {"type": "str", "default": ""},
        },
        work,
    )


if __name__ == "__main__":
    main()
