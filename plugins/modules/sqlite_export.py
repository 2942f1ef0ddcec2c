#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sqlite_export
short_description: Export the result of a query from a SQLite database as CSV or Parquet
version_added: "0.2.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Writes the result of one query into a file that others can keep, while other processes go on writing the database.
  - CSV is that of RFC 4180, in UTF-8. NULL is an empty field, the empty text is V(""). Parquet has the types of the
    values.
  - Beside O(dest) lie C(<dest>.json), which tells rows, SHA-256, query, period and cut-off, and C(<dest>.sha256) for
    C(sha256sum -c). All are complete and on the disk before the first gets its name. A run that is killed leaves the
    old file or the new one, and no digest of another file; the next run into that directory finishes what is missing.
  - The query can only read, within O(timeout_s). In WAL mode it reads the live database, for which no writer waits; in
    rollback-journal mode it reads a private snapshot, which is removed afterwards.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
attributes:
  check_mode:
    support: full
    details: Runs the query and tells rows and digest; leaves no file behind.
  diff_mode:
    support: full
    details: The records of the old and of the new file.
  idempotent:
    support: full
    details: A file with the same content stays as it is.
options:
  src:
    description: The database, an existing SQLite file. Symbolic links are followed.
    type: path
    required: true
  dest:
    description: The file, in an existing directory, to whose owner and group it will belong.
    type: path
    required: true
  query:
    description: One SELECT. Anything that could write, attach a file or call a PRAGMA is refused before it runs.
    type: str
  query_file:
    description: A file on the managed host with the query.
    type: path
  name:
    description: Name of the query, for the record.
    type: str
    default: ""
  format:
    description: V(parquet) needs pyarrow on the managed host.
    type: str
    choices: [csv, parquet]
    default: csv
  month:
    description:
      - A calendar month of O(time_zone), as V(2026-10), V(previous) or V(current).
      - The query must then compare its time with C(:begin) and C(:end), UTC texts such as C(2026-10-01T04:00:00), or
        with C(:begin_unix) and C(:end_unix), seconds since 1970. The begin belongs to the month, the end does not.
    type: str
  time_zone:
    description: The time zone whose midnights are the borders of months, such as V(America/New_York).
    type: str
    default: UTC
  local_times:
    description: Columns whose times are written in O(time_zone). Stored times that name no zone are UTC.
    type: list
    elements: str
    default: []
  blobs:
    description: How blobs are written in CSV, and in columns of Parquet that hold other values too.
    type: str
    choices: [hex, base64]
    default: hex
  spreadsheet:
    description:
      - Quote every text, and put an apostrophe before each that a spreadsheet would take for a formula. Numbers stay
        numbers. Only for CSV.
    type: bool
    default: false
  require_rows:
    description: Fail when the query gives no row.
    type: bool
    default: false
  accept_fewer:
    description: Replace an export of the same finished month that had more rows.
    type: bool
    default: false
  timeout_s:
    description: The longest time that the export may take, in seconds.
    type: float
    default: 600.0
  max_wait_s:
    description: Refuse to take a snapshot for which writers may have to wait longer than this, in seconds.
    type: float
    default: 5.0
  file_mode:
    description: Permissions of the new files, in octal.
    type: str
    default: "0640"
requirements:
  - pyarrow on the managed host, for O(format=parquet)
  - the package tzdata on the managed host, for a O(time_zone) other than UTC
seealso:
  - module: fluxhero.maintenance.sqlite_backup
"""

EXAMPLES = r"""
- name: Export last month's trades for external archival
  fluxhero.maintenance.sqlite_export:
    src: /opt/fluxhero/data/trades.db
    dest: /opt/fluxhero/exports/trades_202610.csv
    name: trades
    query: SELECT * FROM trades WHERE timestamp >= :begin AND timestamp < :end ORDER BY timestamp, id
    month: "2026-10"
    time_zone: America/New_York
    require_rows: true

- name: Export open positions for a spreadsheet
  fluxhero.maintenance.sqlite_export:
    src: /opt/fluxhero/data/trades.db
    dest: /opt/fluxhero/exports/positions.csv
    query: SELECT * FROM positions WHERE status = 'open' ORDER BY id
    spreadsheet: true
"""

RETURN = r"""
path:
  description: The file; in check mode, where it would be.
  returned: success
  type: str
  sample: /opt/fluxhero/exports/trades_202610.csv
rows:
  description: Rows of the result.
  returned: success
  type: int
bytes:
  description: Size of the file.
  returned: success
  type: int
sha256:
  description: SHA-256 of the file.
  returned: success
  type: str
columns:
  description: Each column with its C(name) and the C(sqlite_types) of its values, of Parquet also its C(type).
  returned: success
  type: list
  elements: dict
period:
  description: The C(month) with C(begin) and C(end) in UTC; nothing without O(month).
  returned: success
  type: dict
complete:
  description: Whether the month was over when the database was read; nothing without O(month).
  returned: success
  type: bool
cut_off:
  description: What was committed before this time is in the file, UTC.
  returned: success
  type: str
read:
  description: Read C(from) V(live) or V(snapshot), the journal mode, and for how long writers could not commit.
  returned: success
  type: dict
notes:
  description: What an operator should know; also shown as warnings.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.clock import Clock
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.fsio import json_bytes
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.period import month
from ansible_collections.fluxhero.maintenance.plugins.module_utils.sqlite import export


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    wanted = export.Export(
        source=Path(params["src"]),
        sql=params["query"] or export.read_sql(Path(params["query_file"])),
        destination=Path(params["dest"]),
        name=params["name"],
        format=params["format"],
        period=month(params["month"], params["time_zone"], Clock().now()) if params["month"] else None,
        blobs=params["blobs"],
        spreadsheet=params["spreadsheet"],
        local_times=params["local_times"],
        time_zone=params["time_zone"],
        require_rows=params["require_rows"],
        accept_fewer=params["accept_fewer"],
        mode=export.parse_mode(params["file_mode"]),
    )
    result = export.run(wanted, timeout_s=params["timeout_s"], max_wait_s=params["max_wait_s"], dry_run=check_mode)
    before, after = result.pop("before"), result.pop("after")
    diff = {"before": json_bytes(before).decode(), "after": json_bytes(after).decode()}
    return {**result, "diff": diff, "warnings": list(result["notes"])}


def main() -> None:
    run_module(
        {
            "src": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "query": {"type": "str"},
            "query_file": {"type": "path"},
            "name": {"type": "str", "default": ""},
            "format": {"type": "str", "choices": list(export.FORMATS), "default": "csv"},
            "month": {"type": "str"},
            "time_zone": {"type": "str", "default": "UTC"},
            "local_times": {"type": "list", "elements": "str", "default": []},
            "blobs": {"type": "str", "choices": list(export.BLOBS), "default": "hex"},
            "spreadsheet": {"type": "bool", "default": False},
            "require_rows": {"type": "bool", "default": False},
            "accept_fewer": {"type": "bool", "default": False},
            "timeout_s": {"type": "float", "default": 600.0},
            "max_wait_s": {"type": "float", "default": 5.0},
            "file_mode": {"type": "str", "default": "0640"},
        },
        work,
        mutually_exclusive=[("query", "query_file")],
        required_one_of=[("query", "query_file")],
    )


if __name__ == "__main__":
    main()
