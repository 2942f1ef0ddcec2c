# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a row as old as the clock says? A clock that has jumped ahead makes all rows old.

Two witnesses know better. The data: no row counts as old that is not old beside the newest one. And the journal, for a
clock that a service has already used: where it is silent for longer than a host is left alone, nobody has lived through
that time. A host that was off looks the same; then a person says that the clock is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from ..core.clock import parse_utc, utc_text
from ..core.errors import InputError, PreconditionError

ACCEPTED = "clock_accepted"
# A host that archives has a timer that does so monthly, if it has no other.
LONGEST_SILENCE = timedelta(days=35)


def require_lived_through(
    entries: Iterable[Mapping[str, Any]], since: datetime, now: datetime, *, subject: str
) -> None:
    """Raise PreconditionError when a journal is silent for too long between `since` and `now`.

    Entries that were written while the clock was ahead, before it was set back, prove nothing. What is older than a
    person's word does not count, nor does the time before the journal began.
    """
    later = now
    for entry in reversed(list(entries)):
        try:
            at = parse_utc(entry["time"])
        except InputError:
            continue
        if at > later:
            continue
        if later - at > LONGEST_SILENCE:
            raise PreconditionError(
                f"nothing was noted here for {(later - at).days} days, from {utc_text(at)} to {utc_text(later)}: the"
                " clock jumped ahead, or the host was off. With a wrong clock young rows would be archived",
                subject=subject,
                untouched="the archives and the database",
                remedy=f"look at the clock, which says {utc_text(now)}; where it is right, run it once with"
                " --accept-clock",
            )
        if at <= since or entry.get("step") == ACCEPTED:
            return
        later = at
