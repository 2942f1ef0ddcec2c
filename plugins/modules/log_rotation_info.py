#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: log_rotation_info
short_description: Tell how logs are written, and who rotates them
version_added: "0.2.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Finds out for each log of the service contract which files it is, which processes have them open for writing and
    how, which entries of the system's logrotate name them, and when they were last rotated.
  - Finds what stands in the way of rotating a log without losing lines - a second rotator (another entry, files that
    C(RotatingFileHandler), C(TimedRotatingFileHandler) or loguru have left, such a handler in the service's code), a
    writer that does not append, a writer that still writes to a renamed file, a reload of a unit that has none.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
  - fluxhero.maintenance.attributes.info_module
options:
  logs:
    description: The logs, as C(service_logs) in the service contract describes them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the log; each has its own.
        type: str
        required: true
      path:
        description: The file, absolute; may be a pattern. Empty for the writer V(journal).
        type: str
        default: ""
      writer:
        description:
          - How it is written. V(own) and V(append) keep one descriptor open, the service's own or that of systemd's
            C(StandardOutput=append:). V(watch) notices by itself that the file was renamed
            (C(WatchedFileHandler)), V(signal) opens it again on a signal, V(reload) on a reload of the unit.
          - V(self) rotates by itself. V(journal) writes to systemd's journal alone.
        type: str
        choices: [own, append, watch, signal, reload, self, journal]
        required: true
      unit:
        description: The unit that writes it; needed for V(signal) and V(reload).
        type: str
        default: ""
      signal:
        description: For V(signal) - the signal, such as V(SIGUSR1).
        type: str
        default: ""
      user:
        description: The user that owns the file, when it is not the service's.
        type: str
        default: ""
      group:
        description: The group that owns the file, when it is not the service's.
        type: str
        default: ""
  code:
    description: Directory of the service's code, searched for handlers that rotate. Without it no code is searched.
    type: path
  exclude:
    description: Names of directories in O(code) that do not hold the service's own code.
    type: list
    elements: str
    default: []
  obsolete:
    description: Files of the system's logrotate that are about to go, and do not count.
    type: list
    elements: path
    default: []
  state_file:
    description: State of the logrotate that rotates these logs.
    type: path
    default: /var/lib/fluxmaint/logrotate.state
  record_file:
    description: What the last rotation has noted.
    type: path
    default: /var/lib/fluxmaint/rotation.json
  fail_on_refusal:
    description: Fail when a log cannot be rotated safely.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Look at the service's logs
  fluxhero.maintenance.log_rotation_info:
    logs:
      - name: backend
        path: /opt/fluxhero/logs/*.log
        writer: own
        unit: fluxhero-backend.service
  register: rotation

- name: Show who writes them
  ansible.builtin.debug:
    msg: "{{ rotation.logs | map(attribute='files') | flatten | map(attribute='writers') | flatten }}"
"""

RETURN = r"""
ok:
  description: Whether each log can be rotated without losing lines to a second rotator or a writer that was not told.
  returned: success
  type: bool
logs:
  description: >-
    Each log with its files - size, writers (process, unit, whether it appends), archives, last rotation - and the
    entries of the system's logrotate that name it.
  returned: success
  type: list
  elements: dict
  sample:
    - name: backend
      path: /opt/fluxhero/logs/*.log
      writer: own
      files:
        - path: /opt/fluxhero/logs/fluxhero.log
          bytes: 81920
          writers: [{"pid": 812, "command": "uvicorn", "unit": "fluxhero-backend.service", "append": true}]
          archives: 3
          newest_archive: /opt/fluxhero/logs/fluxhero.log-20261123-1795437439
          last_rotated: "2026-11-23T02:00:00Z"
      stanzas: []
findings:
  description: What stands in the way, or should be known, each with a fixed word (C(code)) and its remedy.
  returned: always
  type: list
  elements: dict
sources:
  description: Places in the service's code and settings that rotate a log, as C(file:line (what)).
  returned: success
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core import config as configuration
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.clock import Clock
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.errors import PreconditionError
from ansible_collections.fluxhero.maintenance.plugins.module_utils.logs import rotation


def work(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    places = rotation.Places(
        state_file=Path(params["state_file"]),
        record_file=Path(params["record_file"]),
        code=Path(params["code"]) if params["code"] else None,
        exclude=params["exclude"],
        obsolete=[Path(path) for path in params["obsolete"]],
    )
    facts = rotation.look(configuration.parse_log_files(params["logs"]), places, clock=Clock())
    found = facts.as_dict()
    if params["fail_on_refusal"] and facts.refusals:
        listed = "".join(f"\n- {finding}" for finding in facts.refusals)
        raise PreconditionError(f"these logs cannot be rotated safely:{listed}", untouched="the logs", **found)
    notes = [str(finding) for finding in facts.findings]
    return {"ok": not facts.refusals, **found, "warnings": notes}


def main() -> None:
    run_module(
        {
            "logs": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "path": {"type": "str", "default": ""},
                    "writer": {"type": "str", "choices": list(configuration.WRITERS), "required": True},
                    "unit": {"type": "str", "default": ""},
                    "signal": {"type": "str", "default": ""},
                    "user": {"type": "str", "default": ""},
                    "group": {"type": "str", "default": ""},
                },
            },
            "code": {"type": "path"},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "obsolete": {"type": "list", "elements": "path", "default": []},
            "state_file": {"type": "path", "default": "/var/lib/fluxmaint/logrotate.state"},
            "record_file": {"type": "path", "default": "/var/lib/fluxmaint/rotation.json"},
            "fail_on_refusal": {"type": "bool", "default": False},
        },
        work,
    )


if __name__ == "__main__":
    main()
