# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small service: writes a numbered heartbeat, and beside the database what it has been promised by SQLite.

Arguments: database, journal mode, file of acknowledged numbers, halt file. It ends on SIGTERM as a crash would: the
`-wal`, or a hot `-journal`, stays beside the database. It refuses to run on a database marked as `bad`.
"""

import os
import signal
import sqlite3
import sys
import time

database, journal_mode, acknowledged, halt = sys.argv[1:5]
connection = sqlite3.connect(f"file:{database}?mode=rw", uri=True, isolation_level=None)
connection.execute(f"PRAGMA journal_mode={journal_mode}")
connection.execute("PRAGMA wal_autocheckpoint=0")
if connection.execute("SELECT value FROM origin").fetchone()[0] == "bad":
    sys.exit("this database is bad")
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
with open(acknowledged, "a") as ledger:
    while not stopping:
        connection.execute("BEGIN IMMEDIATE")
        number = connection.execute("SELECT coalesce(max(n), 0) + 1 FROM heartbeat").fetchone()[0]
        connection.execute("INSERT INTO heartbeat VALUES (?)", (number,))
        if not os.path.exists(halt):
            connection.execute("INSERT INTO trades(n) VALUES (?)", (number,))
        connection.execute("COMMIT")
        origin = connection.execute("SELECT value FROM origin").fetchone()[0]
        ledger.write(f"{origin} {number}\n")
        ledger.flush()
        time.sleep(0.01)
# In the middle of a transaction that has reached the file, so that the journal is hot.
connection.execute("PRAGMA cache_size=1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE filler SET body = randomblob(2000)")
os._exit(0)
