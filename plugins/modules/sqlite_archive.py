#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sqlite_archive
short_description: Move old rows of a SQLite database into an archive for each month
version_added: "0.2.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Copies rows older than O(older_than_days) that the service contract calls closed into
    C(<name>_archive_<YYYYMM>.db), one file for each month of the rows, with the table and the indexes of the live
    database. With O(delete=true) it then deletes from the live database what an archive holds unchanged.
  - Chooses and copies from a hot snapshot, so that the service's writers do not wait. Deletes in transactions that keep
    them waiting for less than O(writer_wait_s).
  - At any moment, whatever happens, each row is in the live database, in an archive, or in both. Keys decide what an
    archive holds, so a second run, or one after a kill, adds nothing twice.
  - A row that changed after it was archived stays in both and is reported. So are rows whose time cannot be read, and
    rows of which another row has the key now.
    Rows that foreign keys refer to stay in the live database, and nothing is deleted where that would fire a trigger.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
attributes:
  check_mode:
    support: full
    details: Takes the snapshot, tells rows and bytes by month, and removes it again.
  diff_mode:
    support: full
    details: Tells the rows of each archive before and after.
  idempotent:
    support: full
options:
  names:
    description: Entries of C(service_archives) by their names; all of them without any.
    type: list
    elements: str
    default: []
  older_than_days:
    description: Rows are archived when their time is at least so many days ago.
    type: int
    default: 90
  delete:
    description: Delete from the live database what an archive holds.
    type: bool
    default: false
  replace_changed:
    description:
      - A person has decided that rows that changed after they were archived count as they are now. What the archive had
        is kept in its table C(fluxmaint_replaced).
    type: bool
    default: false
  accept_fewer:
    description:
      - A person has decided that archives which are gone, or hold fewer rows than were archived there, count as they
        are now. Without it, such an archive fails its table before anything is written or deleted.
    type: bool
    default: false
  accept_clock:
    description:
      - A person has looked at the clock of the host, and it is right. Without it the module fails when the journal is
        silent for more than 35 days, as it is after the clock has jumped ahead, and rows stay that are old only for the
        clock and not beside the newest row.
    type: bool
    default: false
  writer_wait_s:
    description: How long one deleting transaction may keep the service's writers waiting, in seconds.
    type: float
    default: 0.25
  timeout_s:
    description: The longest time that all of it may take, in seconds. The next run goes on.
    type: float
    default: 3600.0
  fail_on_degraded:
    description: Fail when something needs a person (RV(problems)). Without it they are warnings.
    type: bool
    default: false
  config_file:
    description: The configuration of this host, written by the roles of this collection.
    type: path
    default: /etc/fluxmaint/config.json
seealso:
  - module: fluxhero.maintenance.sqlite_archive_info
"""

EXAMPLES = r"""
- name: Show what would be archived
  fluxhero.maintenance.sqlite_archive:
  check_mode: true
  diff: true
  register: planned

- name: Archive trades older than half a year, and delete them from the live database
  fluxhero.maintenance.sqlite_archive:
    names: [trades]
    older_than_days: 180
    delete: true
"""

RETURN = r"""
result:
  description: V(ok), or V(degraded) when something needs a person.
  returned: success
  type: str
cutoff:
  description: Rows before this time were archived.
  returned: success
  type: str
  sample: "2026-08-25T04:00:00Z"
directory:
  description: Where the archives are.
  returned: success
  type: str
delete:
  description: As O(delete).
  returned: success
  type: bool
dry_run:
  description: Whether this was check mode.
  returned: success
  type: bool
archived:
  description: Rows that were added to archives; in check mode, that would be.
  returned: success
  type: int
deleted:
  description: Rows that were deleted from the live database; 0 in check mode.
  returned: success
  type: int
tables:
  description:
    - For each table how many rows were C(chosen), how many stay because their time is C(unreadable), they are
      C(without_key), or they are C(waiting), not old beside the C(newest) row; its C(months), and by month how many
      rows of archives have a key that another row of the database has now (C(reused)).
    - Each month has its C(file), C(rows_before), C(rows), C(added), C(bytes) of their values, C(held) already,
      C(rewritten), C(replaced), C(differs) and C(elsewhere) (see RV(problems)), C(deleted), C(kept) rows by reason, and
      C(longest_wait_s) of writers.
  returned: success
  type: list
  elements: dict
problems:
  description: What needs a person.
  returned: success
  type: list
  elements: str
notes:
  description: What is worth knowing and needs nobody. Also shown as warnings.
  returned: success
  type: list
  elements: str
duration_s:
  description: Seconds that all of it took.
  returned: success
  type: float
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core import config as configuration
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.errors import EngineError
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.journal import Journal
from ansible_collections.fluxhero.maintenance.plugins.module_utils.sqlite import archive


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    config = configuration.load(Path(params["config_file"]))
    result = archive.run(
        config,
        names=params["names"],
        older_than_days=params["older_than_days"],
        delete=params["delete"],
        replace_changed=params["replace_changed"],
        accept_fewer=params["accept_fewer"],
        accept_clock=params["accept_clock"],
        writer_wait_s=params["writer_wait_s"],
        timeout_s=params["timeout_s"],
        dry_run=check_mode,
        journal=None if check_mode else Journal(config.journal_file),
    )
    if result["problems"] and params["fail_on_degraded"]:
        raise EngineError(f"archiving needs a person: {'; '.join(result['problems'])}", **result)
    return {**result, "warnings": [*result["problems"], *result["notes"]], "diff": archive.difference(result)}


def main() -> None:
    run_module(
        {
            "names": {"type": "list", "elements": "str", "default": []},
            "older_than_days": {"type": "int", "default": archive.OLDER_THAN_DAYS},
            "delete": {"type": "bool", "default": False},
            "replace_changed": {"type": "bool", "default": False},
            "accept_fewer": {"type": "bool", "default": False},
            "accept_clock": {"type": "bool", "default": False},
            "writer_wait_s": {"type": "float", "default": archive.WRITER_WAIT_S},
            "timeout_s": {"type": "float", "default": archive.TIMEOUT_S},
            "fail_on_degraded": {"type": "bool", "default": False},
            "config_file": {"type": "path", "default": "/etc/fluxmaint/config.json"},
        },
        work,
    )


if __name__ == "__main__":
    main()
