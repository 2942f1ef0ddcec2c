# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things lie in a store, and how generations are named."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

from ..core.config import NAME
from ..core.errors import InputError

MANIFEST = "MANIFEST.json"
SIGNATURE = "MANIFEST.json.sig"
INSTRUCTIONS = "RESTORE.txt"
COMMIT = "COMMIT"
# Further ahead than clocks that are kept in time can be: suspicious.
FUTURE = timedelta(days=1)
_TIME = "%Y%m%dT%H%M%SZ"
_ID = re.compile(r"([0-9]{8}T[0-9]{6}Z)-([0-9a-f]{6})")


def new_id(now: datetime) -> str:
    """A fresh generation id: the UTC time, which never repeats as local times do, and a random suffix."""
    return f"{now.astimezone(timezone.utc).strftime(_TIME)}-{secrets.token_hex(3)}"


def is_id(text: str) -> bool:
    """Whether `text` has the form of a generation id."""
    try:
        id_time(text)
    except InputError:
        return False
    return True


def id_time(generation: str) -> datetime:
    """When the generation was started. Raises InputError for anything that is not an id."""
    found = _ID.fullmatch(generation)
    try:
        return datetime.strptime(found.group(1) if found else "", _TIME).replace(tzinfo=timezone.utc)
    except ValueError:
        raise InputError(
            f"{generation!r} is not a generation id like 20261123T020000Z-7f3a2c", subject=generation
        ) from None


def base(service: str, host: str) -> str:
    """Prefix of all that belongs to one service on one host. Raises InputError for what can be no such name."""
    for what, name in (("service", service), ("host", host)):
        if not NAME.fullmatch(name):
            raise InputError(
                f"{name!r} cannot be the name of a {what}: it holds only letters, digits, '-', '_' and '.'",
                subject=name,
                untouched="everything",
                remedy=f"name the {what} as its configuration does",
            )
    return f"{service}/{host}/"


def generations(service: str, host: str) -> str:
    """Prefix of all generations."""
    return f"{base(service, host)}generations/"


def generation(service: str, host: str, identity: str) -> str:
    """Prefix of one generation."""
    return f"{generations(service, host)}{identity}/"


def cache(service: str, host: str) -> str:
    """Prefix of the cache files."""
    return f"{base(service, host)}cache/"


def cache_object(sha256: str, recipients: Iterable[str]) -> str:
    """Name of a cache file, relative to `base`: its content's digest and that of the recipients' fingerprints.

    Encrypted to other recipients it is another object, so that a change of keys leaves nothing behind that
    only the old ones can decrypt.
    """
    readers = hashlib.sha256("\n".join(sorted(recipients)).encode()).hexdigest()[:12]
    return f"cache/{sha256}-{readers}.zst.age"


def is_cache_object(name: str, sha256: str) -> bool:
    """Whether a cache file of this content may have that name; without recipients it is of an older writer."""
    return re.fullmatch(rf"cache/{re.escape(sha256)}(-[0-9a-f]{{12}})?\.zst\.age", name) is not None


def proofs(service: str, host: str) -> str:
    """Prefix of all proofs."""
    return f"{base(service, host)}proofs/"


def proof_parts(name: str) -> tuple[datetime, str] | None:
    """When the proof of that name, without its prefix, was written, and by whom; None when it is no proof's."""
    stamp, _separator, verifier = name.partition("-")
    written = f"{stamp}-000000"
    if not is_id(written) or not verifier.endswith(".json"):
        return None
    return id_time(written), verifier[: -len(".json")]


def proof(service: str, host: str, identity: str, at: datetime, verifier: str) -> str:
    """Key of one proof; its signature has `.sig` added."""
    return f"{proofs(service, host)}{identity}/{at.astimezone(timezone.utc).strftime(_TIME)}-{verifier}.json"
