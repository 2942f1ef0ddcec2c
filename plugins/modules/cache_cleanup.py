#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cache_cleanup
short_description: Remove old cache files that a proven backup holds
version_added: "0.2.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Removes files of the service's cache beyond limits of age and size, the oldest first. Only files that the service
    contract calls regenerable go, and never a directory.
  - A file stays when the newest proven generation does not hold it with the content that it has now, when it was
    changed or made after that generation began, while a process has it open, when it was used a short time ago, and
    when another name leads to it. Symbolic links are not followed.
  - A file that this generation does not list stays. Only one whose name no list can hold may go by age, never by size.
  - Without a proven generation within reach nothing goes, and the module fails saying so.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
attributes:
  check_mode:
    support: full
    details: Judges every file as a real run does, and removes none.
  diff_mode:
    support: full
    details: The files that go, as lines before.
  idempotent:
    support: full
options:
  config_file:
    description: The configuration of this host, written by the roles of this collection.
    type: path
    default: /etc/fluxmaint/config.json
  max_age_days:
    description: Remove files that were not modified for so many days, in place of the configured age.
    type: float
  max_bytes:
    description: Remove the oldest files until the regenerable ones have no more bytes, in place of the configured size.
    type: int
seealso:
  - module: fluxhero.maintenance.backup_generation_info
"""

EXAMPLES = r"""
- name: Show which cache files would go
  fluxhero.maintenance.cache_cleanup:
  check_mode: true
  register: cache

- name: Keep a month of cache files, and no more than 2 GB
  fluxhero.maintenance.cache_cleanup:
    max_age_days: 30
    max_bytes: 2000000000
"""

RETURN = r"""
directory:
  description: The cache.
  returned: success
  type: str
generation:
  description: The newest proven generation, by which files were judged; empty when no file was beyond a limit.
  returned: success
  type: str
target:
  description: The backup target that holds it.
  returned: success
  type: str
removed:
  description: Each file that was removed, or in check mode would be, with C(path), C(bytes) and C(reason).
  returned: success
  type: list
  elements: dict
kept:
  description: Each file beyond a limit that stays, with C(path), C(bytes) and C(reason).
  returned: success
  type: list
  elements: dict
freed_bytes:
  description: What was freed, or would be.
  returned: success
  type: int
total_bytes:
  description: What all regenerable files had before.
  returned: success
  type: int
left_bytes:
  description: What they have afterwards.
  returned: success
  type: int
problems:
  description: What an operator should know; also shown as warnings.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core import config as configuration
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.journal import Journal
from ansible_collections.fluxhero.maintenance.plugins.module_utils.service import cache_cleanup


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    config = configuration.load(Path(params["config_file"]))
    result = cache_cleanup.cleanup(
        config,
        max_age_days=params["max_age_days"],
        max_bytes=params["max_bytes"],
        dry_run=check_mode,
        journal=Journal(config.journal_file),
    )
    gone = "".join(f"{item['path']}  {item['bytes']}\n" for item in result["removed"])
    return {**result, "diff": {"before": gone, "after": ""}, "warnings": list(result["problems"])}


def main() -> None:
    run_module(
        {
            "config_file": {"type": "path", "default": "/etc/fluxmaint/config.json"},
            "max_age_days": {"type": "float"},
            "max_bytes": {"type": "int"},
        },
        work,
    )


if __name__ == "__main__":
    main()
