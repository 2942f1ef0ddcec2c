# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that commits at a steady rate and notes how long each commit took.

    python -m tests.benchmarks.writer DATABASE RATE NOTES

Prints `ready` after the first commit and ends when its standard input is closed. NOTES gets two doubles for
each commit: when it began (seconds of the monotonic clock, which all processes share) and how long it took.
"""

from __future__ import annotations

import random
import select
import sqlite3
import struct
import sys
import time

RECORD = struct.Struct("=dd")
# Longer than any method holds its lock: a wait is measured, it does not fail.
_BUSY_TIMEOUT_S = 120


def main() -> None:
    database, rate, notes = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    con = sqlite3.connect(f"file:{database}?mode=rw", uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    con.execute("PRAGMA synchronous=FULL")
    count = con.execute("SELECT max(id) FROM trades").fetchone()[0]
    pick = random.Random(7)
    commits = 0
    with open(notes, "wb") as output:
        started = time.monotonic()
        while not select.select([sys.stdin], [], [], 0)[0]:
            begun = time.monotonic()
            con.execute("BEGIN IMMEDIATE")
            con.execute("INSERT INTO heartbeat(at) VALUES (strftime('%Y-%m-%dT%H:%M:%fZ'))")
            con.execute("UPDATE trades SET pnl = pnl + 0.01 WHERE id = ?", (pick.randint(1, count),))
            con.execute("COMMIT")
            output.write(RECORD.pack(begun, time.monotonic() - begun))
            commits += 1
            if commits == 1:
                sys.stdout.write("ready\n")
                sys.stdout.flush()
            # After a long wait the lost commits are not made up for.
            due = started + commits / rate
            now = time.monotonic()
            if due > now:
                time.sleep(due - now)
            else:
                started = now - commits / rate
    con.close()


if __name__ == "__main__":
    main()
