"""A service that writes: numbered transactions over several tables, as fast as asked, until told to stop.

Usage: sqlite_writer.py DATABASE RATE BUSY_TIMEOUT_S [--exclusive] [--vacuum] [--sync MODE]
Prints `ready` after the first commit. Ends when its standard input is closed; then prints a JSON report.

Transaction k writes seq(k), three rows of item for k, two scattered rows of board, and k into tally, and
every fifth deletes and re-adds a block of filler, so that the file grows and shrinks.
A snapshot is a prefix of the commits exactly when `sqlite_lab.require_prefix` holds.
"""

from __future__ import annotations

import argparse
import json
import random
import select
import sqlite3
import sys
import time

BOARD_ROWS = 2000

SCHEMA = """
CREATE TABLE seq(k INTEGER PRIMARY KEY);
CREATE TABLE item(k INTEGER, part INTEGER, note TEXT, PRIMARY KEY(k, part)) WITHOUT ROWID;
CREATE TABLE board(id INTEGER PRIMARY KEY, k INTEGER NOT NULL, pad TEXT);
CREATE INDEX board_k ON board(k);
CREATE TABLE move(k INTEGER, id INTEGER);
CREATE TABLE tally(one INTEGER PRIMARY KEY CHECK (one = 1), k INTEGER NOT NULL);
CREATE TABLE filler(block INTEGER, data BLOB);
INSERT INTO tally VALUES (1, 0);
"""


def prepare(con: sqlite3.Connection, pad: int = 200) -> None:
    """Create the writer's tables; `pad` sets the size of the board's 2,000 rows."""
    con.executescript(SCHEMA)
    con.executemany("INSERT INTO board VALUES (?, 0, ?)", ((n, "x" * pad) for n in range(1, BOARD_ROWS + 1)))
    con.commit()


def transaction(con: sqlite3.Connection, k: int, pick: random.Random) -> None:
    con.execute("BEGIN IMMEDIATE")
    con.execute("INSERT INTO seq VALUES (?)", (k,))
    con.executemany("INSERT INTO item VALUES (?, ?, ?)", ((k, part, f"note {k}") for part in range(3)))
    for row in pick.sample(range(1, BOARD_ROWS + 1), 2):
        con.execute("UPDATE board SET k = ? WHERE id = ?", (k, row))
        con.execute("INSERT INTO move VALUES (?, ?)", (k, row))
    if k % 5 == 0:
        con.execute("DELETE FROM filler WHERE block < ?", (k - 20,))
        con.execute("INSERT INTO filler VALUES (?, randomblob(30000))", (k,))
    con.execute("UPDATE tally SET k = ?", (k,))
    con.execute("COMMIT")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("database")
    parser.add_argument("rate", type=float)
    parser.add_argument("busy_timeout_s", type=float)
    parser.add_argument("--exclusive", action="store_true")
    parser.add_argument("--vacuum", action="store_true")
    parser.add_argument("--sync", default="FULL")
    options = parser.parse_args()
    con = sqlite3.connect(f"file:{options.database}?mode=rw", uri=True, timeout=options.busy_timeout_s)
    con.isolation_level = None
    if options.exclusive:
        con.execute("PRAGMA locking_mode=EXCLUSIVE")
    con.execute(f"PRAGMA synchronous={options.sync}")
    pick = random.Random(1)
    k = con.execute("SELECT k FROM tally").fetchone()[0]
    commits, failures, waits = 0, [], []
    started = time.monotonic()
    while not select.select([sys.stdin], [], [], 0)[0]:
        begun = time.monotonic()
        try:
            if options.vacuum and commits % 10 == 9:
                con.execute("VACUUM")
            transaction(con, k + 1, pick)
            k += 1
        except sqlite3.OperationalError as error:
            failures.append(str(error))
            if con.in_transaction:
                con.execute("ROLLBACK")
        waits.append(time.monotonic() - begun)
        commits += 1
        if commits == 1:
            print("ready", flush=True)
        if options.rate:
            time.sleep(max(0.0, started + commits / options.rate - time.monotonic()))
    con.close()
    waits.sort()
    print(
        json.dumps(
            {
                "last": k,
                "commits": commits,
                "failures": failures,
                "median_s": waits[len(waits) // 2],
                "p99_s": waits[int(len(waits) * 0.99)],
                "max_s": waits[-1],
            }
        )
    )


if __name__ == "__main__":
    main()
