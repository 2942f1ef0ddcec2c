# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell when a state becomes worse, once a day while it lasts, and when it is well again; not at each look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ..core.clock import parse_utc, utc_text
from ..core.errors import InputError
from ..core.fsio import read_json, write_json
from .event import RECOVERED, STATE

_AGAIN = timedelta(hours=24)


def due(before: Mapping[str, Any], codes: Sequence[str], now: datetime) -> str:
    """Which event to raise for the reasons with these codes, or nothing.

    Args:
        before: `codes` and `told_at` of the last event; empty when there has been none, or all was well.
    """
    if not codes:
        return RECOVERED if before.get("codes") else ""
    if set(codes) - set(before.get("codes", [])):
        return STATE
    return STATE if now - parse_utc(str(before["told_at"])) >= _AGAIN else ""


def last_told(path: Path) -> dict[str, Any]:
    """What was told last. A damaged note is as good as none: people hear of it once more."""
    try:
        note = read_json(path) if path.exists() else {}
        if isinstance(note, dict) and isinstance(note.get("codes"), list):
            parse_utc(str(note.get("told_at")))
            return note
    except InputError:
        pass
    return {}


def note(path: Path, codes: Sequence[str], now: datetime) -> None:
    """Remember what has been told."""
    write_json(path, {"codes": sorted(codes), "told_at": utc_text(now)}, 0o640)
