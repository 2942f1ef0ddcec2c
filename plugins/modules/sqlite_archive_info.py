#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sqlite_archive_info
short_description: Tell what the archives of a SQLite database hold, and ask them together with it
version_added: "0.2.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Lists the archives that M(fluxhero.maintenance.sqlite_archive) has made, proves that each holds what was written,
    and names those that are damaged.
  - With O(query) it runs one SELECT over the live database and its archives, as if rows had never been moved. It runs
    on a private snapshot beside which the archives' rows are read, so writers do not wait, and any number of archives
    can be asked. The state directory needs room for both.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
  - fluxhero.maintenance.attributes.info_module
options:
  content:
    description: Read every archive to prove it. Without it only names and headings are looked at.
    type: bool
    default: true
  query:
    description: One SELECT to run over the live database and its archives.
    type: str
  database:
    description: Name of the database that O(query) asks; needed where the contract has several.
    type: str
    default: ""
  since:
    description: The first month of which O(query) reads archives, such as V(202601).
    type: str
    default: ""
  until:
    description: The last month of which O(query) reads archives.
    type: str
    default: ""
  max_rows:
    description: At most so many rows of O(query) come back.
    type: int
    default: 1000
  timeout_s:
    description: The longest time that the proof, or the query, may take, in seconds.
    type: float
    default: 600.0
  config_file:
    description: The configuration of this host, written by the roles of this collection.
    type: path
    default: /etc/fluxmaint/config.json
seealso:
  - module: fluxhero.maintenance.sqlite_archive
"""

EXAMPLES = r"""
- name: Prove the archives
  fluxhero.maintenance.sqlite_archive_info:
  register: archives
  failed_when: not archives.ok

- name: Ask for the profit of each year
  fluxhero.maintenance.sqlite_archive_info:
    content: false
    query: SELECT substr(timestamp, 1, 4) AS year, sum(pnl) FROM trades GROUP BY year
"""

RETURN = r"""
ok:
  description: Whether every archive is what was written, and only its owner can read it.
  returned: success
  type: bool
directory:
  description: Where the archives are.
  returned: success
  type: str
checked:
  description: V(content), or V(names) with O(content=false).
  returned: success
  type: str
tables:
  description: >-
    For each table its C(files), with C(month), C(path), C(rows), C(bytes), C(sha256) of the rows, C(replaced) rows that
    are kept beside them, rows of which the key was C(reused) by another row when rows were archived last, C(ok) and
    perhaps C(problem), and the sum of their C(rows) and C(bytes).
  returned: success
  type: list
  elements: dict
problems:
  description: What needs a person. Also shown as warnings.
  returned: success
  type: list
  elements: str
notes:
  description: What is worth knowing and needs nobody. Also shown as warnings.
  returned: success
  type: list
  elements: str
answer:
  description:
    - C(columns), C(rows), whether there are more (C(truncated)), and the C(archives) that were read.
    - C(reused) counts archived rows whose key another row of the database has now, both are in C(rows); C(changed)
      those that changed in the database after they were archived, which count as they are there. C(notes) says it in
      words.
  returned: when O(query) is given
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core import config as configuration
from ansible_collections.fluxhero.maintenance.plugins.module_utils.sqlite import archive_query


def work(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    config = configuration.load(Path(params["config_file"]))
    result = archive_query.info(config, content=params["content"], timeout_s=params["timeout_s"])
    if params["query"] is not None:
        options = {key: params[key] for key in ("database", "since", "until", "max_rows", "timeout_s")}
        result["answer"] = archive_query.query(config, params["query"], **options).as_dict()
    notes = [*result["notes"], *result.get("answer", {}).get("notes", [])]
    return {**result, "warnings": [*result["problems"], *notes]}


def main() -> None:
    run_module(
        {
            "content": {"type": "bool", "default": True},
            "query": {"type": "str"},
            "database": {"type": "str", "default": ""},
            "since": {"type": "str", "default": ""},
            "until": {"type": "str", "default": ""},
            "max_rows": {"type": "int", "default": archive_query.MOST_ROWS},
            "timeout_s": {"type": "float", "default": archive_query.TIMEOUT_S},
            "config_file": {"type": "path", "default": "/etc/fluxmaint/config.json"},
        },
        work,
    )


if __name__ == "__main__":
    main()
