#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sqlite_size_info
short_description: Tell how large the service's SQLite databases are, how fast they grow, and when the disk is full
version_added: "0.2.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Measures each table and index of the databases of the service contract. On a live database writers wait a quarter
    of a second at the most; when that is not enough, a private snapshot is measured instead.
  - Growth is told from the sizes that C(fluxmaint size --record) and upkeep have noted in the maintenance journal. It
    is unknown, and null, until there is a note that is a day old.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
  - fluxhero.maintenance.attributes.info_module
options:
  databases:
    description: Names of databases of the service contract; all of them without it.
    type: list
    elements: str
    default: []
  config_file:
    description: The configuration of this host, written by the roles of this collection.
    type: path
    default: /etc/fluxmaint/config.json
seealso:
  - module: fluxhero.maintenance.sqlite_maintenance
"""

EXAMPLES = r"""
- name: Measure the databases
  fluxhero.maintenance.sqlite_size_info:
  register: sizes

- name: Stop while there are thirty days left
  ansible.builtin.assert:
    that: item.days_until_full is none or item.days_until_full > 30
  loop: "{{ sizes.databases }}"
"""

RETURN = r"""
result:
  description: V(ok), or V(degraded) when a database could not be measured.
  returned: success
  type: str
databases:
  description: Each database; one that could not be measured has C(name), C(path) and C(error) alone.
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
    bytes:
      description: The file and its write-ahead log.
      type: int
    page_size:
      description: Page size in bytes.
      type: int
    page_count:
      description: Number of pages.
      type: int
    freelist_count:
      description: Number of free pages.
      type: int
    free_ratio:
      description: Free pages as a fraction of all pages.
      type: float
    used_bytes:
      description: Bytes in pages that are not free.
      type: int
    free_page_bytes:
      description: Bytes in pages that are free.
      type: int
    auto_vacuum:
      description: V(none), V(full) or V(incremental).
      type: str
    journal_mode:
      description: V(wal), or V(delete) for every kind of rollback journal.
      type: str
    disk_free_bytes:
      description: Free bytes of its file system.
      type: int
    objects:
      description:
        - Each table and index, the largest first - C(name), C(table), C(kind), C(bytes), C(pages), C(unused_bytes),
          C(fill), C(gaps) (pages that do not follow the one before), C(rows) of tables.
        - Null when they could not be told; RV(databases[].no_objects) says why.
      type: list
      elements: dict
    no_objects:
      description: Why there are no C(objects); else empty.
      type: str
    fragmentation:
      description: Fraction of pages that do not follow the one before; null without C(objects).
      type: float
    fill:
      description: Fraction of the bytes in the pages that are used; null without C(objects).
      type: float
    measured:
      description: V(live) or V(snapshot).
      type: str
    growth_bytes_per_day:
      description: How fast the bytes in use grow; null while that is unknown.
      type: int
    growth_unknown:
      description: Why the growth is unknown; else empty.
      type: str
    days_until_full:
      description: When the file system is full at this rate; null while that is unknown, or when nothing grows.
      type: float
time:
  description: When it was measured, in UTC.
  returned: success
  type: str
text:
  description: The same as a table and a plot for people.
  returned: success
  type: str
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core import config as configuration
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.journal import Journal
from ansible_collections.fluxhero.maintenance.plugins.module_utils.service import size_report


def work(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    config = configuration.load(Path(params["config_file"]))
    facts = size_report.report(config, journal=Journal(config.journal_file), databases=params["databases"])
    warnings = [f"{item['name']}: {item['error']['message']}" for item in facts["databases"] if "error" in item]
    return {**facts, "text": size_report.text(facts), "warnings": warnings}


def main() -> None:
    run_module(
        {
            "databases": {"type": "list", "elements": "str", "default": []},
            "config_file": {"type": "path", "default": "/etc/fluxmaint/config.json"},
        },
        work,
    )


if __name__ == "__main__":
    main()
