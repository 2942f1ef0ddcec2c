#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_archive
short_description: Identify a source tree and pack it for a host
version_added: "0.1.0"
description:
  - Computes one digest over a directory of source code, which names a release.
  - Packs the directory into one archive with normalised owners, modes and times, when O(dest) is given.
  - The digest covers paths, contents, executable bits and links, not times or owners, so two checkouts of the same
    source are the same release.
author:
  - FluxHero maintenance contributors (@fluxhero)
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: The archive is binary.
  idempotent:
    support: partial
    details: The archive is written each time O(dest) is given.
options:
  path:
    description: The directory to read.
    type: path
    required: true
  exclude:
    description:
      - Shell patterns of what is no part of the release.
      - A pattern without a slash matches a name at any depth, one with a slash a path from O(path).
    type: list
    elements: str
    default: []
  dest:
    description: Where the archive goes, a C(.tar.gz) file in an existing directory.
    type: path
"""

EXAMPLES = r"""
- name: Identify the source on the controller
  fluxhero.maintenance.release_archive:
    path: /srv/checkout/fluxhero
    exclude: [.git, node_modules]
  delegate_to: localhost
  register: source
"""

RETURN = r"""
digest:
  description: SHA-256 over the tree, in hexadecimal.
  returned: success
  type: str
  sample: 2b2c1f6b6b0a0f8dd3aa3a3d6c9ee2ad2f8c4f2b8f1f5c8d7f7f7c0f3e1d9a55
files:
  description: Number of files and links in the tree.
  returned: success
  type: int
  sample: 57
bytes:
  description: Their size.
  returned: success
  type: int
  sample: 262144
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.updates import release_archive

ARGUMENT_SPEC = {
    "path": {"type": "path", "required": True},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "dest": {"type": "path"},
}


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    tree = release_archive.describe(Path(params["path"]), params["exclude"])
    if params["dest"] and not check_mode:
        release_archive.pack(Path(params["path"]), Path(params["dest"]), params["exclude"])
    return {"changed": bool(params["dest"]), "digest": tree.digest, "files": tree.files, "bytes": tree.bytes}


def main() -> None:
    run_module(ARGUMENT_SPEC, work)


if __name__ == "__main__":
    main()
