#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sqlite_salvage
short_description: Make what can be had back of a damaged SQLite database, beside it
version_added: "0.2.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Keeps the damaged set (the database with its C(-wal), C(-shm) and C(-journal)) as it is, on the disk, with digests.
    The original is only read, never opened by SQLite, never changed.
  - Then makes up to four candidates in the same directory. V(generation) is the newest proven generation; V(recover) is
    what C(.recover) of the C(sqlite3) command finds, where that can do it; V(rows) is what the pages still hold, read
    page by page around the damage; V(merged) is the generation with the newer rows of those.
  - Checks each candidate as a restored backup is checked, and reports for each table how many rows it has saved, lost
    and doubtful.
  - Puts nothing into place. M(fluxhero.maintenance.restore_generation) does that with a generation named
    C(salvage-ID.CANDIDATE).
notes:
  - C(.recover) of Debian 12 makes an empty database and reports success. There it is refused, with the reason.
  - A row that differs from the generation may have been changed by the service or by the damage. It is doubtful.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
attributes:
  check_mode:
    support: full
    details: Tells the files of the set, the generation, the candidates and the room that is needed.
  diff_mode:
    support: none
    details: Makes new files only.
  idempotent:
    support: full
    details: A finished salvage of the same bytes in O(dest) comes back unchanged; anything else in O(dest) is refused.
options:
  database:
    description: Name of the database in the service contract.
    type: str
    required: true
  dest:
    description: A new or empty directory for the damaged set and everything that is made of it.
    type: path
    required: true
  identity:
    description:
      - The age identity (private key) to decrypt the generation with. It is written to the run directory of the host,
        which is in memory, and removed at the end.
      - Without an identity, rows are compared with the counts of the manifest alone.
    type: str
  identity_file:
    description: An age identity that is on the host already; it is left there.
    type: path
  generation:
    description: Id of a generation, V(proven) for the newest proven one, V(none) to use none.
    type: str
    default: proven
  target:
    description: Name of the only backup target to fetch from. Any that holds the generation by default.
    type: str
  timeout_s:
    description: Limit for everything, in seconds.
    type: float
    default: 7200.0
  config_file:
    description: Configuration of the host's maintenance.
    type: path
    default: /etc/fluxmaint/config.json
seealso:
  - module: fluxhero.maintenance.restore_generation
  - module: fluxhero.maintenance.sqlite_integrity_info
"""

EXAMPLES = r"""
- name: See what can be had back
  fluxhero.maintenance.sqlite_salvage:
    database: trades
    dest: /var/lib/fluxmaint/salvage/trades
    identity: "{{ vault_age_identity }}"
  register: salvaged

- name: Put the generation with the newer rows into place
  fluxhero.maintenance.restore_generation:
    generation: "salvage-{{ salvaged.id }}.merged"
    databases: [trades]
"""

RETURN = r"""
result:
  description: V(salvaged), V(unchanged), or V(planned) in check mode.
  returned: success
  type: str
id:
  description: Id of the salvage.
  returned: when not in check mode
  type: str
database:
  description: Name of the database.
  returned: success
  type: str
path:
  description: The database file.
  returned: success
  type: str
directory:
  description: Where everything is.
  returned: success
  type: str
set:
  description: The files of the damaged set; with digests when not in check mode.
  returned: success
  type: list
  elements: raw
generation:
  description: The generation to compare with, who has proven it when, and why its content cannot be had.
  returned: success
  type: dict
candidates:
  description: What was made, by name.
  returned: success
  type: dict
  contains:
    available:
      description: Whether there is such a candidate.
      type: bool
    reason:
      description: Why there is none; empty when there is.
      type: str
    usable:
      description: Whether it passes every check that a restored backup passes.
      type: bool
    problems:
      description: What it does not pass.
      type: list
      elements: str
    file:
      description: The database.
      type: str
    sha256:
      description: Its digest.
      type: str
    tables:
      description: >-
        Rows of each table: C(rows) in the candidate, C(in_generation), of those C(saved) with the same content and
        C(lost), C(doubtful), and C(newer) than the generation; null where nobody can tell.
      type: dict
    added:
      description: Of V(merged), the newer rows of each table.
      type: dict
    left_out:
      description: Of V(merged), newer rows of each table that refer to a row that is lost or doubtful.
      type: dict
recommended:
  description: Name of the candidate that has most for certain; empty when none is usable.
  returned: when not in check mode
  type: str
damage:
  description: What is wrong with the pages of each table.
  returned: when not in check mode
  type: dict
notes:
  description: What an operator should know; also shown as warnings.
  returned: when not in check mode
  type: list
  elements: str
untouched:
  description: Whether inode, size and time of change of the original were the same at the end; a service may write.
  returned: when not in check mode
  type: bool
table:
  description: The report as text for people.
  returned: when not in check mode
  type: str
needed_bytes:
  description: Room that is needed.
  returned: in check mode
  type: int
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.backup import salvage
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core import config as configuration
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.journal import Journal
from ansible_collections.fluxhero.maintenance.plugins.module_utils.service import restore_job


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    config = configuration.load(Path(params["config_file"]))
    given = Path(params["identity_file"]) if params["identity_file"] else None
    kept = restore_job.keep_identity(config, params["identity"]) if params["identity"] and not check_mode else None
    try:
        request = salvage.Request(
            database=params["database"],
            to=Path(params["dest"]),
            identity_file=kept or given,
            generation=params["generation"],
            target=params["target"] or "",
            timeout_s=params["timeout_s"],
        )
        if check_mode:
            return salvage.plan(config, request, decrypts=bool(params["identity"] or given))
        config.state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        report = salvage.run(config, request, journal=Journal(config.journal_file))
    finally:
        if kept is not None:
            kept.unlink(missing_ok=True)
    return {**report, "table": salvage.table(report), "warnings": list(report["notes"])}


def main() -> None:
    run_module(
        {
            "database": {"type": "str", "required": True},
            "dest": {"type": "path", "required": True},
            "identity": {"type": "str", "no_log": True},
            "identity_file": {"type": "path", "no_log": False},
            "generation": {"type": "str", "default": "proven"},
            "target": {"type": "str"},
            "timeout_s": {"type": "float", "default": 7200.0},
            "config_file": {"type": "path", "default": "/etc/fluxmaint/config.json"},
        },
        work,
        mutually_exclusive=[("identity", "identity_file")],
    )


if __name__ == "__main__":
    main()
