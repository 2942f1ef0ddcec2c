# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys of the lab: SSH, age identities, S3 access keys. Made once, kept until `make clean`."""

from __future__ import annotations

import json
import secrets

from . import names
from .steps import SetupError, output_of


def ensure_keys() -> None:
    """Create the keys that are missing; existing ones stay, because running hosts know them."""
    names.KEYS.mkdir(parents=True, exist_ok=True)
    names.KEYS.chmod(0o700)
    if not names.SSH_KEY.is_file():
        _must(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "fluxhero-lab", "-f", str(names.SSH_KEY)])
    age = names.KEYS / "age"
    age.mkdir(exist_ok=True)
    for identity in names.AGE_IDENTITIES:
        key = age / f"{identity}.key"
        if not key.is_file():
            _must(["age-keygen", "-o", str(key)])
            key.chmod(0o600)
        key.with_suffix(".pub").write_text(_must(["age-keygen", "-y", str(key)]), encoding="utf-8")
    there = json.loads(names.S3_KEYS.read_text(encoding="utf-8")) if names.S3_KEYS.is_file() else {}
    if not set(new_s3_keys()) <= set(there):
        names.S3_KEYS.touch(mode=0o600)
        names.S3_KEYS.write_text(json.dumps({**new_s3_keys(), **there}, indent=2) + "\n", encoding="utf-8")


def new_s3_keys() -> dict[str, object]:
    """Where the lab's bucket is, with fresh access keys for each identity."""
    pairs = {
        name: {"access_key": secrets.token_hex(10).upper(), "secret_key": secrets.token_urlsafe(30)}
        for name in names.S3_IDENTITIES
    }
    return {"endpoint": names.S3_ENDPOINT, "region": "us-east-1", "bucket": names.BUCKET, **pairs}


def _must(argv: list[str]) -> str:
    output = output_of(argv)
    if output is None:
        raise SetupError(f"{' '.join(argv[:1])} failed while the lab's keys were made")
    return output
