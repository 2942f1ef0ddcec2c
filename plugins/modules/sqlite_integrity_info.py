#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sqlite_integrity_info
short_description: Check a SQLite database and tell what is in it
version_added: "0.1.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Checks structure, indexes, constraints and foreign keys of a SQLite database, and returns schema digest, rows and
    size of each table, free pages, journal mode and hazards.
  - Opens the database read-only. It creates, changes and checkpoints nothing, and rolls no journal back.
  - Damage is a result (RV(ok) is false), not a failure. The module fails when the database cannot be read at all, or
    when RV(ok) is false and O(fail_on_damage=true).
  - A database without any table is not reported as sound, because there is nothing to prove.
notes:
  - In rollback-journal mode writers wait while a check reads the file. For a large live database, take a snapshot with
    M(fluxhero.maintenance.sqlite_backup) and check that. The module warns when the wait would matter.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
  - fluxhero.maintenance.attributes.info_module
options:
  path:
    description: The database, an existing SQLite file.
    type: path
    required: true
  level:
    description: V(full) runs C(integrity_check); V(quick) runs C(quick_check), which does not notice a damaged index.
    type: str
    choices: [quick, full]
    default: full
  content_digests:
    description:
      - Also compute a digest of the content of each table, which is the same in every copy of the database, whatever
        the backup method or page layout. Slow for large databases.
    type: bool
    default: false
  fail_on_damage:
    description: Fail when the database is not sound.
    type: bool
    default: false
  timeout_s:
    description: The longest time that the check, and so the wait of writers, may take, in seconds.
    type: float
    default: 3600.0
  busy_timeout_s:
    description: How long to wait for a writer that holds the database, in seconds.
    type: float
    default: 5.0
seealso:
  - module: fluxhero.maintenance.sqlite_backup
"""

EXAMPLES = r"""
- name: Check the snapshot of the trading database
  fluxhero.maintenance.sqlite_integrity_info:
    path: /var/lib/fluxmaint/staging/trades.db
    content_digests: true
    fail_on_damage: true
  register: checked

- name: Show the rows of each table
  ansible.builtin.debug:
    msg: "{{ checked.tables | dict2items | map(attribute='value.rows') | list }}"
"""

RETURN = r"""
path:
  description: The database.
  returned: success
  type: str
ok:
  description: Whether it has at least one table, and the check found no damage and no broken foreign key.
  returned: success
  type: bool
level:
  description: As O(level).
  returned: success
  type: str
messages:
  description: Damage, in SQLite's words; at most 100.
  returned: success
  type: list
  elements: str
foreign_key_violations:
  description: Rows whose parent is missing, at most 100.
  returned: success
  type: list
  elements: dict
  sample: [{"table": "trades", "rowid": 7, "parent": "positions", "constraint": 0}]
journal_mode:
  description: V(wal), or V(delete) for every kind of rollback journal.
  returned: success
  type: str
page_size:
  description: Page size in bytes.
  returned: success
  type: int
page_count:
  description: Number of pages.
  returned: success
  type: int
freelist_count:
  description: Number of free pages.
  returned: success
  type: int
free_ratio:
  description: Free pages as a fraction of all pages.
  returned: success
  type: float
bytes:
  description: Size of the file.
  returned: success
  type: int
schema_digest:
  description: SHA-256 over the schema, independent of the page layout.
  returned: success
  type: str
tables:
  description: For each table its rows, and the bytes of its pages and of its indexes (null where SQLite cannot tell).
  returned: success
  type: dict
  sample: {"trades": {"rows": 120034, "bytes": 13504512}}
content_digests:
  description: For each table its rows and the SHA-256 of its content.
  returned: when O(content_digests=true)
  type: dict
application_id:
  description: The C(application_id) of the database.
  returned: success
  type: int
user_version:
  description: The C(user_version) of the database.
  returned: success
  type: int
auto_vacuum:
  description: V(none), V(full) or V(incremental).
  returned: success
  type: str
encoding:
  description: Text encoding of the database.
  returned: success
  type: str
sqlite_version:
  description: Version of the SQLite library used.
  returned: success
  type: str
duration_s:
  description: Seconds that the check took.
  returned: success
  type: float
hazards:
  description: What may go wrong although the data is sound; each begins with a fixed word. Also shown as warnings.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.errors import IntegrityError
from ansible_collections.fluxhero.maintenance.plugins.module_utils.sqlite import fingerprint, integrity


def work(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    path = Path(params["path"])
    report = integrity.check(
        path, params["level"], timeout_s=params["timeout_s"], busy_timeout_s=params["busy_timeout_s"]
    )
    if params["fail_on_damage"] and not report.ok:
        raise IntegrityError("the database is not sound", subject=str(path), report=report.as_dict())
    result = {**report.as_dict(), "warnings": list(report.hazards)}
    if params["content_digests"]:
        result["content_digests"] = fingerprint.content_digests(path, timeout_s=params["timeout_s"])
    return result


def main() -> None:
    run_module(
        {
            "path": {"type": "path", "required": True},
            "level": {"type": "str", "choices": list(integrity.LEVELS), "default": "full"},
            "content_digests": {"type": "bool", "default": False},
            "fail_on_damage": {"type": "bool", "default": False},
            "timeout_s": {"type": "float", "default": 3600.0},
            "busy_timeout_s": {"type": "float", "default": 5.0},
        },
        work,
    )


if __name__ == "__main__":
    main()
