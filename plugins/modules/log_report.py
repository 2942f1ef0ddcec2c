#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: log_report
short_description: Read what is new in the service's logs, and tell what they say
version_added: "0.2.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Reads what is new in the logs that the host's configuration names, through rotation and compression, and adds it to
    totals by the hour. What was read once is never counted again.
  - Returns a report of a period from these totals - errors by type, messages with their numbers, routes, restarts,
    gaps.
  - Secrets in log lines are redacted.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
attributes:
  check_mode:
    support: full
    details:
      - Reads and writes nothing. Reports from the totals there are, and says in RV(unread) which files hold something
        new.
  diff_mode:
    support: none
    details: Totals grow; they have no readable difference.
  idempotent:
    support: full
    details:
      - A second run changes nothing unless something was logged in between.
      - With O(save=true) a report is always written.
options:
  config_file:
    description: The configuration of this host, written by the roles of this collection.
    type: path
    default: /etc/fluxmaint/config.json
  read:
    description: Read what is new first.
    type: bool
    default: true
  report:
    description: Return RV(report). Without it, logs are only read.
    type: bool
    default: true
  save:
    description:
      - Write the report as HTML, text and JSON to the directory of reports that the host's configuration names, and
        remove the oldest ones there. Needs O(report=true).
    type: bool
    default: false
  since:
    description:
      - The begin of the period, such as V(2026-11-23T02:00:00Z). The whole hour counts in which it lies.
      - Without it, seven days before O(until).
    type: str
  until:
    description: The end of the period, written as O(since). Without it, now.
    type: str
requirements:
  - zstd on the host, for logs that are compressed with it
"""

EXAMPLES = r"""
- name: Read what is new in the logs
  fluxhero.maintenance.log_report:
    report: false

- name: Tell what last week's logs say
  fluxhero.maintenance.log_report:
    since: "2026-11-16T00:00:00Z"
    until: "2026-11-23T00:00:00Z"
  register: logs

- name: Write the last seven days' report as HTML, text and JSON
  fluxhero.maintenance.log_report:
    save: true

- name: Show failed trades
  ansible.builtin.debug:
    var: logs.report.totals.failed_trades
"""

RETURN = r"""
files:
  description: The files of the report, by their formats.
  returned: when O(save=true) and not in check mode
  type: dict
  sample: {"html": "/var/lib/fluxmaint/reports/report-20261116T140000Z-20261123T150000Z.html",
           "json": "/var/lib/fluxmaint/reports/report-20261116T140000Z-20261123T150000Z.json",
           "txt": "/var/lib/fluxmaint/reports/report-20261116T140000Z-20261123T150000Z.txt"}
verdict:
  description:
    - What needs a look. C(kind) is V(quiet), V(look) or V(not known), and the same, or V(note), for each
      of the findings.
  returned: as RV(files)
  type: dict
  sample: {"kind": "look", "headline": "1 thing needs a look this week",
           "findings": [{"kind": "look", "text": "1 trade failed: +1, none the week before.", "anchor": "top"}]}
report:
  description:
    - The report, format 1 - period, totals of it and of the one before, hours, errors by type, messages, routes,
      restarts, and for each log what was read, what fits no known form, and what is missing.
  returned: when O(report=true) and logs were read before
  type: dict
  sample: {"format": 1, "totals": {"events": 120034, "errors": 12, "failed_trades": 2}}
sources:
  description: For each log what this run read of it, and why it could not read it.
  returned: when O(read=true) and not in check mode
  type: list
  elements: dict
  sample: [{"name": "fluxhero.log", "kind": "file", "events": 812, "unparsed": 0, "doubles_dropped": 0, "gaps": [],
            "errors": [], "bytes": 91233}]
unread:
  description: The files that hold something new, with the bytes of it; of a compressed file with its own size.
  returned: in check mode when O(read=true)
  type: list
  elements: dict
  sample: [{"name": "fluxhero.log", "path": "/opt/fluxhero/logs/fluxhero.log", "bytes": 91233}]
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core import config as configuration
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.clock import Clock, parse_utc
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.errors import InputError
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.journal import Journal
from ansible_collections.fluxhero.maintenance.plugins.module_utils.logs import reading, summary
from ansible_collections.fluxhero.maintenance.plugins.module_utils.logs.report import files


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    config = configuration.load(Path(params["config_file"]))
    since, until = (parse_utc(params[name]) if params[name] else None for name in ("since", "until"))
    if params["save"] and not params["report"]:
        raise InputError("without report there is nothing to save", untouched="everything")
    result: dict[str, Any] = {}
    if params["read"] and check_mode:
        unread = reading.unread(config)
        result.update(changed=bool(unread), unread=unread)
    elif params["read"]:
        found = reading.read(config)
        failed = [text for source in found["sources"] for text in source["errors"]]
        result.update(changed=found["changed"], sources=found["sources"], warnings=failed)
    if params["report"] and not (check_mode and not reading.database_file(config).exists()):
        result["report"] = summary.summarise(config, since=since, until=until)
        if params["save"]:
            result["changed"] = True
            if not check_mode:
                result.update(files.save(result["report"], config, Journal(config.journal_file, Clock())))
    return result


def main() -> None:
    run_module(
        {
            "config_file": {"type": "path", "default": "/etc/fluxmaint/config.json"},
            "read": {"type": "bool", "default": True},
            "report": {"type": "bool", "default": True},
            "save": {"type": "bool", "default": False},
            "since": {"type": "str"},
            "until": {"type": "str"},
        },
        work,
    )


if __name__ == "__main__":
    main()
