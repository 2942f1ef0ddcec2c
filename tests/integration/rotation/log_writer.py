# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes numbered lines to a log in one of the ways that services do, until it is asked to end.

    python log_writer.py KIND FILE LINES_PER_SECOND

On SIGTERM it prints how many lines it has written. `0` writes as fast as it can; a negative number writes nothing
but one line for each SIGUSR2.
"""

from __future__ import annotations

import logging
import logging.handlers
import signal
import sys
import time
from pathlib import Path


def handler_of(kind: str, file: Path) -> logging.Handler:
    if kind == "own":
        return logging.FileHandler(file)
    if kind == "truncating":  # opened for writing, not for appending
        return logging.FileHandler(file, mode="w")
    if kind == "watch":
        return logging.handlers.WatchedFileHandler(file)
    if kind == "rotating":
        return logging.handlers.RotatingFileHandler(file, maxBytes=4000, backupCount=3)
    if kind == "stdout":
        return logging.StreamHandler(sys.stdout)
    if kind in ("signal", "closing"):
        return logging.FileHandler(file)
    raise SystemExit(f"unknown kind {kind}")


def main() -> None:
    kind, file, rate = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    handler = handler_of(kind, file)
    wanted, asked, reopen = [True], [0], [False]
    if kind in ("signal", "closing"):
        signal.signal(signal.SIGUSR1, lambda *_args: reopen.__setitem__(0, True))
    signal.signal(signal.SIGTERM, lambda *_args: wanted.clear())
    signal.signal(signal.SIGUSR2, lambda *_args: asked.__setitem__(0, asked[0] + 1))
    log = logging.getLogger("writer")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    written, begin, due = 0, time.monotonic(), 1
    while wanted:
        while written < due:
            log.info("line %08d of the writer", written)
            written += 1
        if reopen[0]:
            reopen[0] = False
            handler.close()
            log.removeHandler(handler)
            if kind == "signal":
                handler = handler_of(kind, file)
                log.addHandler(handler)
        due = asked[0] + 1 if rate < 0 else int((time.monotonic() - begin) * rate) if rate else written + 100
        if rate:
            time.sleep(0.002)
    if kind != "stdout":
        sys.stdout.write(f"{written}\n")


if __name__ == "__main__":
    main()
