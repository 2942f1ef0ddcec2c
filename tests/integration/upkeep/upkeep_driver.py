# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of upkeep in a process of its own, which ends by SIGKILL at a moment.

`with_engine.py upkeep_driver.py WORLD JOURNAL_MODE [MOMENT]`

A moment is a step as upkeep tells it. Each is noted in `moments.txt`. Prints the result, or the error, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fluxmaint.core.errors import EngineError
from upkeep_world import UpkeepWorld

directory, journal_mode, moment = Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""


def progress(step: str, facts: dict[str, object]) -> None:
    with open(directory / "moments.txt", "a") as moments:
        moments.write(f"{step}\n")
    if moment == step:
        os.kill(os.getpid(), signal.SIGKILL)


try:
    print(json.dumps(UpkeepWorld(directory, journal_mode).maintain(progress=progress)))
except EngineError as error:
    print(json.dumps(error.as_dict()))
    sys.exit(1)
