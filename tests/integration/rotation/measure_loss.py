# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many lines does a rotation lose? Measured beside each other: copytruncate, and a log that is opened again.

    .lab/venv/bin/python -m tests.integration.rotation.measure_loss [LINES_PER_SECOND [BYTES [ROTATIONS]]]

Each writer writes at that rate, and its log is rotated whenever it has so many bytes. `0` lines: as fast as it can.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WRITER = Path(__file__).with_name("log_writer.py")
ENTRY = """{log} {{
    size 1
    rotate 1000
    dateext
    dateformat -%Y%m%d-%s
    {way}
}}
"""


def measure(kind: str, rate: int, size: int, rotations: int, top: Path) -> tuple[int, int, float]:
    """Lines written, lines lost, and the longest time that logrotate took, in seconds."""
    log, conf = top / f"{kind}.log", top / f"{kind}.conf"
    writer = subprocess.Popen([sys.executable, WRITER, kind, log, str(rate)], stdout=subprocess.PIPE)
    reopen = f"create 0640\n    postrotate\n        kill -{int(signal.SIGUSR1)} {writer.pid}\n    endscript"
    conf.write_text(ENTRY.format(log=log, way="copytruncate" if kind == "own" else reopen))
    longest = 0.0
    for _round in range(rotations):
        while not log.exists() or log.stat().st_size < size:
            time.sleep(0.01)
        begin = time.monotonic()
        subprocess.run(["logrotate", "--force", "--state", top / f"{kind}.state", conf], check=True)
        longest = max(longest, time.monotonic() - begin)
        time.sleep(1.01)  # archives are named by the second
    writer.terminate()
    written = int(writer.communicate()[0])
    kept = {line for path in top.glob(f"{kind}.log*") for line in path.read_bytes().splitlines()}
    return written, written - len(kept), longest


def main() -> None:
    given = [int(word) for word in sys.argv[1:]]
    rate, size, rotations = [*given, *(2000, 1_000_000, 8)[len(given) :]]
    with tempfile.TemporaryDirectory(dir=os.getcwd()) as top:
        for kind, way in (("own", "copytruncate"), ("signal", "opened again")):
            written, lost, longest = measure(kind, rate, size, rotations, Path(top))
            sys.stdout.write(
                f"{way}: {lost} of {written} lines lost in {rotations} rotations, {lost / rotations:.1f} each;"
                f" logrotate took up to {longest:.3f} s\n"
            )


if __name__ == "__main__":
    main()
