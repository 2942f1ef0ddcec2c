# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Public age keys: whether one is well-formed, and which generations are encrypted to which.

A recipient is written in Bech32 (BIP 173): a mistyped or cut one fails its checksum here, by name, and not in the
middle of a backup.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from ..core.errors import EngineError
from ..store.base import Store
from . import catalog, layout
from .manifest import MANIFEST_LIMIT, Manifest

_LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_PREFIX = "age"
_LENGTH = 62  # "age1", 52 letters for 32 bytes, 6 for the checksum


def mistake(recipient: str) -> str:
    """What is wrong with a public age X25519 key; empty when it is well-formed."""
    if recipient.upper().startswith("AGE-SECRET-KEY-"):
        return "is a private key: it belongs into the safe, not here"
    if not recipient.startswith(f"{_PREFIX}1"):
        return "does not begin with age1"
    if len(recipient) != _LENGTH:
        return f"has {len(recipient)} characters, not {_LENGTH}"
    data = [_LETTERS.find(letter) for letter in recipient[len(_PREFIX) + 1 :]]
    if -1 in data:
        return f"holds {recipient[len(_PREFIX) + 1 + data.index(-1)]!r}, which no such key does"
    if _polymod([*_expanded(_PREFIX), *data]) != 1:
        return "is mistyped: its checksum is wrong"
    return ""


def fingerprint(recipient: str) -> str:
    """A short name for a recipient, by which people compare keys."""
    return "SHA256:" + hashlib.sha256(recipient.encode()).hexdigest()[:32]


def usage(store: Store, service: str, host: str) -> dict[str, Any]:
    """Which generations of a host in this store can be decrypted by whom.

    Returns:
        By fingerprint of a recipient: `generations` (how many), `oldest` and `newest` (ids). Under `unreadable` the ids
        whose manifest cannot be read.
    """
    recipients: dict[str, dict[str, Any]] = {}
    unreadable = []
    for item in catalog.list_generations(store, service, host):
        if item.state != catalog.COMMITTED:
            continue
        key = layout.generation(service, host, item.id) + layout.MANIFEST
        try:
            manifest = Manifest.from_bytes(store.get_bytes(key, MANIFEST_LIMIT), subject=key)
        except EngineError:
            unreadable.append(item.id)
            continue
        for name in manifest.recipients:
            known = recipients.setdefault(name, {"generations": 0, "oldest": item.id, "newest": item.id})
            known["generations"] += 1
            known["oldest"] = min(known["oldest"], item.id)
            known["newest"] = max(known["newest"], item.id)
    return {"recipients": recipients, "unreadable": unreadable}


def _expanded(prefix: str) -> list[int]:
    return [ord(letter) >> 5 for letter in prefix] + [0] + [ord(letter) & 31 for letter in prefix]


def _polymod(values: Iterable[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            checksum ^= generator if top >> bit & 1 else 0
    return checksum
