#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_key_challenge
short_description: Have the holders of private age keys show that they can decrypt
version_added: "0.2.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - For each public key, writes a random answer into C(NAME.challenge.age), encrypted to that key alone. Its holder
    decrypts it with C(age -d -i ITS.key NAME.challenge.age) and sends back what that prints.
  - Notes right answers with their time in C(NAME.challenge.json), where only the digest of an answer is kept. A wrong
    one fails, and nothing is noted.
  - Meant to run on the controller.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
options:
  directory:
    description: Directory of the challenges. It must exist.
    type: path
    required: true
  recipients:
    description: Public age keys by the names of their holders.
    type: dict
    required: true
  answers:
    description: What holders have read in their challenges, by name.
    type: dict
    default: {}
  valid_days:
    description: For how many days an answer counts. Then the holder is asked anew.
    type: int
    default: 400
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
requirements:
  - age
seealso:
  - module: fluxhero.maintenance.backup_recipients_info
"""

EXAMPLES = r"""
- name: Have the holder of the escrow key test it
  fluxhero.maintenance.backup_key_challenge:
    directory: /media/stick/keys
    recipients:
      escrow: age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq
    answers:
      escrow: 0123456789abcdef0123456789abcdef
  delegate_to: localhost
"""

RETURN = r"""
holders:
  description: By name, C(answered_at), empty when the key is not tested, and C(challenge), the file to decrypt.
  returned: success
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.backup import challenge


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    recipients, answers = ({name: str(text) for name, text in params[key].items()} for key in ("recipients", "answers"))
    return challenge.settle(
        Path(params["directory"]), recipients, answers, valid_days=params["valid_days"], dry_run=check_mode
    )


def main() -> None:
    run_module(
        {
            "directory": {"type": "path", "required": True},
            "recipients": {"type": "dict", "required": True},
            "answers": {"type": "dict", "default": {}},
            "valid_days": {"type": "int", "default": 400},
        },
        work,
    )


if __name__ == "__main__":
    main()
