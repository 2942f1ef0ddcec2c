#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_executable
short_description: Install the maintenance engine as one executable file
version_added: "0.1.0"
description:
  - Builds the engine of this collection into one executable zip file on the controller, and copies it to the host.
  - The same version of the collection gives the same bytes, so a second run changes nothing.
  - Needs only C(python3) on the host.
author:
  - FluxHero maintenance contributors (@fluxhero)
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
  - fluxhero.maintenance.attributes.flow
attributes:
  action:
    support: full
  check_mode:
    support: full
  diff_mode:
    support: none
    details: The file is binary.
  idempotent:
    support: full
options:
  dest:
    description: Where the executable goes.
    type: path
    default: /usr/local/bin/fluxmaint
  owner:
    description: Its owner.
    type: str
    default: root
  group:
    description: Its group.
    type: str
    default: root
  mode:
    description: Its permissions.
    type: str
    default: "0755"
"""

EXAMPLES = r"""
- name: Install fluxmaint
  fluxhero.maintenance.engine_executable:
"""

RETURN = r"""
dest:
  description: Where the executable is.
  returned: success
  type: str
  sample: /usr/local/bin/fluxmaint
"""
