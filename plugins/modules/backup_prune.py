#!/usr/bin/python
# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_prune
short_description: Delete from a bucket the backup generations that retention no longer keeps
version_added: "0.2.0"
author: FluxHero maintenance contributors (@fluxhero)
description:
  - Meant to run on the controller, with credentials that may delete and that no host has. Targets that are directories
    are pruned by C(fluxmaint prune) on their host.
  - Keeps every generation of the last days, then one a week, then one a month; the newest one, the newest proven one
    and the newest full one always. Deletes nothing unless a newer generation is proven, and held by another target
    too where there are others.
  - Only manifests and proofs whose signatures are good count. Generations that do not verify are named and left alone.
  - What the bucket's object lock retains is told, and deleted by a later run.
  - Removes what was never completed, cache files that no generation lists, stray proofs and unfinished uploads, each
    after a grace time by the store's own clock. It is safe while a backup is being made.
extends_documentation_fragment:
  - fluxhero.maintenance.attributes
options:
  name:
    description: Name of the target.
    type: str
    required: true
  endpoint:
    description: URL of the store, as this machine reaches it.
    type: str
    required: true
  region:
    description: Region of the bucket.
    type: str
    default: us-east-1
  bucket:
    description: The bucket.
    type: str
    required: true
  prefix:
    description: Prefix of all object keys.
    type: str
    default: ""
  access_key:
    description: Access key of an identity that may list versions, read and delete.
    type: str
    required: true
  secret_key:
    description: Its secret.
    type: str
    required: true
  service:
    description: Name of the service.
    type: str
    required: true
  host:
    description: Name of the host whose generations are meant.
    type: str
    required: true
  signer:
    description: Who signs its manifests, as in the list of allowed signers.
    type: str
    required: true
  allowed_signers_file:
    description: The public signing keys of all hosts, which say who signs manifests and proofs.
    type: path
    required: true
  elsewhere:
    description:
      - The other targets by their names, each with the ids of the committed generations that it holds, as
        M(fluxhero.maintenance.backup_generation_info) tells them. An unreachable target has an empty list.
      - Leave it out only where the bucket is the only target.
    type: dict
    default: {}
  retention:
    description:
      - The policy - C(keep_days) (30), C(keep_weekly) (8), C(keep_monthly) (12), C(orphan_grace_days) (2),
        C(cache_grace_days) (2).
    type: dict
    default: {}
  journal_file:
    description: A maintenance journal on this machine to note everything in. Its directory must exist.
    type: path
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
requirements:
  - boto3 1.26 or newer
  - ssh-keygen
seealso:
  - module: fluxhero.maintenance.backup_generation_info
"""

EXAMPLES = r"""
- name: Prune the off-site bucket
  fluxhero.maintenance.backup_prune:
    name: offsite
    endpoint: https://s3.example.com
    bucket: backups
    access_key: "{{ vault_pruner_access_key }}"
    secret_key: "{{ vault_pruner_secret_key }}"
    service: fluxhero
    host: production
    signer: fluxhero@production
    allowed_signers_file: "{{ inventory_dir }}/allowed_signers"
    elsewhere:
      near: "{{ backups.generations | selectattr('targets', 'contains', 'near') | map(attribute='id') }}"
  delegate_to: localhost
"""

RETURN = r"""
result:
  description: V(ok), or V(degraded) when RV(problems) needs a person.
  returned: success
  type: str
kept:
  description: Generations that stay, each with its C(id) and C(reason).
  returned: success
  type: list
  elements: dict
deleted:
  description: Generations that were deleted, or would be, each with C(id), C(reason), C(bytes) and C(objects).
  returned: success
  type: list
  elements: dict
locked:
  description: Generations that are due and that the store retains, each with C(id) and C(reason).
  returned: success
  type: list
  elements: dict
suspect:
  description: Ids of committed generations that do not verify. They are left alone.
  returned: success
  type: list
  elements: str
orphans:
  description: Ids of generations that were never completed - C(deleted), C(waiting) for their grace time, C(locked).
  returned: success
  type: dict
cache:
  description: Cache files - C(deleted) with C(bytes), C(waiting) for their grace time, C(kept).
  returned: success
  type: dict
proofs:
  description: Proofs without a generation - C(deleted), C(waiting) for their grace time.
  returned: success
  type: dict
uploads:
  description: Unfinished uploads - C(aborted), C(waiting) for their grace time.
  returned: success
  type: dict
problems:
  description: What needs a person.
  returned: success
  type: list
  elements: str
table:
  description: The same as text for people.
  returned: success
  type: str
"""

from pathlib import Path
from typing import Any

from ansible_collections.fluxhero.maintenance.plugins.module_utils.ansible import run_module
from ansible_collections.fluxhero.maintenance.plugins.module_utils.backup import prune
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.config import parse_retention
from ansible_collections.fluxhero.maintenance.plugins.module_utils.core.journal import Journal
from ansible_collections.fluxhero.maintenance.plugins.module_utils.store.s3 import S3Store


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    policy = parse_retention(params["retention"])
    store = S3Store(
        params["name"],
        endpoint=params["endpoint"],
        region=params["region"],
        bucket=params["bucket"],
        prefix=params["prefix"],
        credentials=(params["access_key"], params["secret_key"]),
    )
    result = prune.prune(
        store,
        params["service"],
        params["host"],
        policy=policy,
        allowed_signers_file=Path(params["allowed_signers_file"]),
        signer=params["signer"],
        others=[prune.ListWitness(ids) for ids in params["elsewhere"].values()],
        dry_run=check_mode,
        journal=Journal(Path(params["journal_file"])) if params["journal_file"] and not check_mode else None,
    )
    return {**result, "table": prune.table(result), "warnings": list(result["problems"])}


def main() -> None:
    run_module(
        {
            "name": {"type": "str", "required": True},
            "endpoint": {"type": "str", "required": True},
            "region": {"type": "str", "default": "us-east-1"},
            "bucket": {"type": "str", "required": True},
            "prefix": {"type": "str", "default": ""},
            "access_key": {"type": "str", "required": True, "no_log": False},
            "secret_key": {"type": "str", "required": True, "no_log": True},
            "service": {"type": "str", "required": True},
            "host": {"type": "str", "required": True},
            "signer": {"type": "str", "required": True},
            "allowed_signers_file": {"type": "path", "required": True},
            "elsewhere": {"type": "dict", "default": {}},
            "retention": {"type": "dict", "default": {}},
            "journal_file": {"type": "path"},
        },
        work,
    )


if __name__ == "__main__":
    main()
