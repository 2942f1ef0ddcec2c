"""The guide's script deletes by age: thirty days of failures and the last good backup is gone. Ours never deletes."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from fluxmaint.core.clock import Clock
from fluxmaint.core.errors import EngineError

if TYPE_CHECKING:
    from tests.support.world import World


class Later(Clock):
    """The system's clock, some days on."""

    def __init__(self, days: int) -> None:
        self._days = timedelta(days=days)

    def now(self) -> datetime:
        return datetime.now(timezone.utc) + self._days


def stored(world: World) -> dict[str, int]:
    return {str(path): path.stat().st_ino for path in world.store.rglob("*") if path.is_file()}


def test_d02_backups_that_fail_for_a_month_leave_the_last_good_one(world: World) -> None:
    world.create("full")
    good = stored(world)
    shutil.move(world.database, world.database.with_suffix(".away"))
    for day in range(1, 40, 6):
        with pytest.raises(EngineError, match=r"trades\.db"):
            world.create("daily", clock=Later(day))
    assert stored(world) == good


def test_d03_a_new_backup_deletes_no_older_one(world: World) -> None:
    first = world.create("full", clock=Later(0))
    good = stored(world)
    second = world.create("daily", clock=Later(400))
    assert first["id"] != second["id"]
    assert good.items() <= stored(world).items()
