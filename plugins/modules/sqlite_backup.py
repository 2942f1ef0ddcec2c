#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sqlite_backup
short_description: Take a consistent snapshot of a SQLite database while its service writes
version_added: "0.1.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Takes a snapshot of a SQLite database on the managed host, while other processes go on reading and writing.
  - In rollback-journal mode the file is copied without a lock, and only one last comparison at memory speed is done
    under a C(SHARED) lock. In WAL mode writers do not wait at all. Where the file system can share blocks, they are
    shared instead of copied.
  - The snapshot is one file that stands alone, in the journal mode of its source, with mode C(0600). It is written
    under another name, proven, brought to the disk and only then renamed.
  - It always ends within O(timeout_s), or fails saying why. After a failure nothing has the name O(dest), or still
    the file that had it.
  - The database is never created, checkpointed or changed. One exception, as for any program that opens it - when a
    crash left a journal that belongs to it, SQLite rolls that back first.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
attributes:
  check_mode:
    support: full
    details: Checks source, destination and space, and writes nothing.
  diff_mode:
    support: none
    details: A database has no readable difference.
  idempotent:
    support: none
    details: Every run takes a new snapshot, so every run reports a change.
options:
  src:
    description: The database, an existing SQLite file. Symbolic links are followed.
    type: path
    required: true
  dest:
    description: The snapshot, a file in an existing directory, which is not the source.
    type: path
    required: true
  timeout_s:
    description: The longest time that the backup may take, in seconds, waiting for other processes included.
    type: float
    default: 600.0
  force:
    description: Replace O(dest) when it exists. Without it the module fails.
    type: bool
    default: false
  verify:
    description:
      - How far the snapshot is proven before it gets its name.
      - V(open) compares size, page count, schema and versions with the source.
      - V(quick) also runs C(quick_check), V(full) also C(integrity_check). Both check foreign keys.
    type: str
    choices: [open, quick, full]
    default: quick
  digest:
    description: Compute the SHA-256 of the snapshot.
    type: bool
    default: true
  rows:
    description: Count the rows of each table of the snapshot.
    type: bool
    default: true
seealso:
  - module: fluxhero.maintenance.sqlite_integrity_info
"""

EXAMPLES = r"""
- name: Take a snapshot of the trading database
  fluxhero.maintenance.sqlite_backup:
    src: /opt/fluxhero/data/trades.db
    dest: /var/lib/fluxmaint/staging/trades.db
    timeout_s: 120
    verify: full
    force: true
  register: snapshot

- name: Show how long trades had to wait
  ansible.builtin.debug:
    var: snapshot.lock_held_s
"""

RETURN = r"""
path:
  description: The snapshot; in check mode, where it would be.
  returned: success
  type: str
  sample: /var/lib/fluxmaint/staging/trades.db
method:
  description: V(pre-copy) for rollback-journal databases, V(wal-copy) for WAL, V(reflink) where blocks could be shared.
  returned: when not in check mode
  type: str
  sample: pre-copy
passes:
  description: How often the source was read.
  returned: when not in check mode
  type: int
  sample: 3
duration_s:
  description: Seconds from the start to the durable, proven file.
  returned: when not in check mode
  type: float
lock_held_s:
  description: Seconds during which writers could not commit; 0 in WAL mode.
  returned: when not in check mode
  type: float
bytes:
  description: Size of the snapshot.
  returned: when not in check mode
  type: int
page_size:
  description: Page size in bytes.
  returned: when not in check mode
  type: int
page_count:
  description: Number of pages.
  returned: when not in check mode
  type: int
journal_mode:
  description: V(wal), or V(delete) for every kind of rollback journal.
  returned: when not in check mode
  type: str
sha256:
  description: SHA-256 of the snapshot file; empty when O(digest=false).
  returned: when not in check mode
  type: str
schema_digest:
  description: Digest of the schema, equal to that of the source.
  returned: when not in check mode
  type: str
sqlite_version:
  description: Version of the SQLite library used.
  returned: when not in check mode
  type: str
application_id:
  description: The C(application_id) of the database.
  returned: when not in check mode
  type: int
user_version:
  description: The C(user_version) of the database.
  returned: when not in check mode
  type: int
rows:
  description: Rows per table; empty when O(rows=false).
  returned: when not in check mode
  type: dict
  sample: {"trades": 120034, "positions": 12}
verified:
  description: How far the snapshot was proven, as O(verify).
  returned: when not in check mode
  type: str
notes:
  description: What an operator should know; also shown as warnings.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.sqlite import hot_backup


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    source, destination = Path(params["src"]), Path(params["dest"])
    if check_mode:
        _source, target, notes = hot_backup.inspect(source, destination, overwrite=params["force"])
        return {"changed": True, "path": str(target), "notes": notes, "warnings": list(notes)}
    snapshot = hot_backup.backup(
        source,
        destination,
        timeout_s=params["timeout_s"],
        overwrite=params["force"],
        verify=params["verify"],
        digest=params["digest"],
        rows=params["rows"],
    )
    return {"changed": True, **snapshot.as_dict(), "warnings": list(snapshot.notes)}


def main() -> None:
    run_module(
        {
            "src": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "timeout_s": {"type": "float", "default": 600.0},
            "force": {"type": "bool", "default": False},
            "verify": {"type": "str", "choices": list(hot_backup.VERIFY_LEVELS), "default": "quick"},
            "digest": {"type": "bool", "default": True},
            "rows": {"type": "bool", "default": True},
        },
        work,
    )


if __name__ == "__main__":
    main()
