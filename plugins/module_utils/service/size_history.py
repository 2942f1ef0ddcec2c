# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the maintenance journal remembers of the databases: their sizes over time, and what upkeep has found."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..core.clock import parse_utc
from ..core.errors import InputError
from ..core.journal import Journal
from ..sqlite.size import Sizes
from ..sqlite.upkeep import Memory

OPERATION = "size"
UPKEEP = "maintain"


class History:
    """The journal, read once."""

    def __init__(self, journal: Journal) -> None:
        self._notes: list[tuple[datetime, str, dict[str, Any]]] = []
        for entry in journal.read():
            databases = entry.get("databases")
            if (
                entry["operation"] not in (OPERATION, UPKEEP)
                or entry["event"] != "end"
                or not isinstance(databases, dict)
            ):
                continue
            try:
                moment = parse_utc(entry["time"])
            except InputError:
                continue
            self._notes += [(moment, name, note) for name, note in databases.items() if isinstance(note, dict)]

    def samples(self, database: str) -> list[tuple[datetime, int]]:
        """When a database had how many bytes in use."""
        return [
            (moment, note["used_bytes"])
            for moment, name, note in self._notes
            if name == database and isinstance(note.get("used_bytes"), int)
        ]

    def memory(self, database: str) -> Memory:
        """What earlier upkeep of a database has noted; the newest note of each kind."""
        rows: dict[str, int] = {}
        known: dict[str, Any] = {}
        speeds: dict[str, float] = {}
        for _moment, name, note in self._notes:
            if name == database:
                rows.update(note.get("analyzed_rows") or {})
                known.update({key: note[key] for key in ("fragmentation", "fill") if note.get(key) is not None})
                speeds.update(note.get("seconds_per_byte") or {})
        return Memory(rows, known.get("fragmentation"), known.get("fill"), speeds)


def note(sizes: Sizes) -> dict[str, int]:
    """What the journal keeps of a measurement."""
    return {"bytes": sizes.bytes, "used_bytes": sizes.used_bytes}
