# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`.recover` of the sqlite3 command line, where there is one that can.

It reads the file through the virtual table `sqlite_dbpage`. Debian 12 builds its command line without: `.recover` then
writes a schema without rows, says so nowhere but in a comment, and ends with status 0.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..core.errors import CommandError, PreconditionError, TimeoutExceeded
from ..core.fsio import fsync_file, private_umask
from ..core.run import last_words, run
from . import connect
from .connect import Deadline
from .fingerprint import quoted

COMMAND = "sqlite3"
LOST_AND_FOUND = "lost_and_found"
_QUESTION = "SELECT count(*) FROM pragma_module_list WHERE name = 'sqlite_dbpage'"


def refusal(command: str = COMMAND) -> str:
    """Why `.recover` cannot be used on this host; empty when it can."""
    if shutil.which(command) is None:
        return f"the command {command} is not installed"
    version = run([command, "-batch", "-version"], timeout_s=30, check=False).text.partition(" ")[0].strip()
    asked = run([command, "-batch", ":memory:", _QUESTION], timeout_s=30, check=False)
    if asked.returncode == 0 and asked.text.strip() == "1":
        return ""
    return f"{command} {version} lacks sqlite_dbpage: its .recover would make an empty database and report success"


def recover(copy: Path, destination: Path, *, deadline: Deadline, command: str = COMMAND) -> int:
    """Make the new database `destination` of the private file `copy`; free pages, with deleted rows, are left out.

    Returns how many rows were found that belong to no table; they are in the table `lost_and_found`.

    Raises:
        PreconditionError: `.recover` cannot be used here.
        CommandError: it failed, or gave nothing.
    """
    because = refusal(command)
    if because:
        raise PreconditionError(because, subject=command)
    with private_umask(), tempfile.TemporaryFile() as said:
        home = {**os.environ, "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}  # nobody's .sqliterc
        reading = subprocess.Popen(
            [command, "-batch", str(copy), ".recover --ignore-freelist"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            env=home,
        )
        writing = subprocess.Popen(
            [command, "-batch", str(destination)],
            stdin=reading.stdout,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=home,
        )
        if reading.stdout is not None:
            reading.stdout.close()  # so that the reader hears when the writer is gone
        try:
            statuses = [process.wait(max(deadline.left_s, 0.001)) for process in (writing, reading)]
        except subprocess.TimeoutExpired:
            raise TimeoutExceeded("not finished in time, while .recover ran", subject=str(copy)) from None
        finally:
            for process in (reading, writing):
                if process.poll() is None:
                    process.kill()
                    process.wait()
        said.seek(0)
        words = last_words(said.read())
    if not connect.is_sqlite(destination) or statuses[1] != 0:
        raise CommandError(f".recover has given no database: {words or 'it said nothing'}", subject=command)
    with (
        contextlib.closing(connect.connect(destination, timeout_s=0, mode="rw")) as con,
        connect.sqlite_errors(destination),
    ):
        con.execute("PRAGMA journal_mode = DELETE")
        found = con.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'lost\\_and\\_found%' ESCAPE '\\'"
        ).fetchall()
        lost = sum(int(con.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()[0]) for (name,) in found)  # noqa: S608
        if con.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0] == len(found):
            raise CommandError(f".recover has given no table: {words or 'it said nothing'}", subject=command)
    fsync_file(destination)
    return lost
