# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One restore in a process of its own, which ends by SIGKILL at a moment.

`with_engine.py restore_driver.py WORLD JOURNAL_MODE [MOMENT]`

A moment is `event:name`, as the restore reports its progress, with `#2` for the second time that it comes.
Each moment is noted in `moments.txt`. Prints the result, or the error, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from fluxmaint.backup.restore_plan import Request
from fluxmaint.core.errors import EngineError
from restore_world import World

directory, journal_mode, moment = Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""
seen: list[str] = []


def progress(event: str, name: str) -> None:
    now = f"{event}:{Path(name).name}"
    seen.append(now)
    with open(directory / "moments.txt", "a") as moments:
        moments.write(f"{now}\n")
    if moment == now + ("#2" if seen.count(now) == 2 else ""):
        os.kill(os.getpid(), signal.SIGKILL)


request = Request(include=("databases", "config"), config_consent=True)
try:
    print(json.dumps(World(directory, journal_mode).run(request, progress=progress)))
except EngineError as error:
    print(json.dumps(error.as_dict()))
    sys.exit(1)
