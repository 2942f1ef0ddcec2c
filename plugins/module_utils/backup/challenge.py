# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test age keys whose private halves are elsewhere: their holders decrypt what was encrypted to each of them alone.

`NAME.challenge.age` holds a random answer, encrypted; `NAME.challenge.json` its digest and, once the holder has sent
it, when that was. The answer itself is kept nowhere: who has this directory alone cannot give it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..core.clock import Clock, parse_utc, utc_text
from ..core.errors import InputError
from ..core.fsio import atomic_write, read_json, write_json
from ..core.run import require_tool, run
from .recipients import mistake

_TIMEOUT_S = 60


def settle(
    directory: Path,
    recipients: Mapping[str, str],
    answers: Mapping[str, str],
    *,
    valid_days: int,
    dry_run: bool = False,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Note right answers, and have a challenge wait for each other key.

    Args:
        recipients: public keys by the names of their holders.
        answers: what holders have read in their challenges, by name.
        valid_days: an older answer counts no longer, and its holder is asked anew.

    Returns:
        `changed`, and under `holders` by name `answered_at` (empty: the key is not tested) and `challenge`, the file.

    Raises InputError for an answer that is not the right one, and notes none then.
    """
    clock = clock or Clock()
    now = clock.now()
    asked = {name: _asked(directory, name, recipient) for name, recipient in recipients.items()}
    for name, answer in answers.items():
        _require_right(directory, name, answer, asked.get(name, {}))
    changed = False
    holders = {}
    for name, recipient in recipients.items():
        known, file = asked[name], _file(directory, name)
        answered_at = known.get("answered_at", "")
        if name in answers and not answered_at:
            answered_at = utc_text(now)
            changed = True
            if not dry_run:
                write_json(file.with_suffix(".json"), {**known, "answered_at": answered_at})
        if answered_at and now - parse_utc(answered_at) > timedelta(days=valid_days):
            answered_at, known = "", {}
        if not answered_at and not (known and file.is_file()):
            changed = True
            if not dry_run:
                _ask(file, recipient, utc_text(now))
        holders[name] = {"answered_at": answered_at, "challenge": str(file)}
    return {"changed": changed, "holders": holders}


def _file(directory: Path, name: str) -> Path:
    return directory / f"{name}.challenge.age"


def _asked(directory: Path, name: str, recipient: str) -> dict[str, Any]:
    """What is known of the challenge to this key; nothing when there is none, or it was for another key."""
    wrong = mistake(recipient)
    if wrong:
        raise InputError(f"the public key of {name} {wrong}", subject=recipient)
    file = _file(directory, name).with_suffix(".json")
    known = read_json(file) if file.exists() else {}
    return known if isinstance(known, dict) and known.get("recipient") == recipient else {}


def _require_right(directory: Path, name: str, answer: str, known: dict[str, Any]) -> None:
    if not known:
        raise InputError(
            "there is no challenge to this key that could be answered",
            subject=name,
            remedy="run it without this answer first, and have the holder decrypt the challenge that it makes",
        )
    if hashlib.sha256(answer.strip().encode()).hexdigest() != known["answer_sha256"]:
        raise InputError(
            f"the answer is not that of {_file(directory, name)}: it was copied wrongly, or is another challenge's",
            subject=name,
            untouched="everything; the key does not count as tested",
        )


def _ask(file: Path, recipient: str, now: str) -> None:
    answer = secrets.token_hex(16)
    command = [require_tool("age"), "--encrypt", "--armor", "--recipient", recipient]
    encrypted = run(command, input=answer.encode() + b"\n", timeout_s=_TIMEOUT_S).stdout
    # In this order: a challenge that is there can always be answered.
    digest = hashlib.sha256(answer.encode()).hexdigest()
    file.unlink(missing_ok=True)
    write_json(file.with_suffix(".json"), {"recipient": recipient, "answer_sha256": digest, "asked_at": now})
    atomic_write(file, encrypted)
