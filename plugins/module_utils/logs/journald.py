# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd's journal as lines: what `journalctl -o export` writes, entry by entry."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from ..core.clock import from_timestamp
from ..core.errors import CommandError, IntegrityError
from ..core.run import last_words, require_tool
from .forms import JOURNAL, MOST_LINE, Following, Kind, parse

_FIELDS = ("MESSAGE", "PRIORITY", "_SYSTEMD_UNIT", "UNIT")
_LEVELS = ("CRITICAL", "CRITICAL", "CRITICAL", "ERROR", "WARNING", "INFO", "INFO", "DEBUG")
_MOST_FIELD = 4 * MOST_LINE


@dataclass(frozen=True)
class Entry:
    """One entry: where it stands in the journal, its time in microseconds since 1970, its lines as a log has them."""

    cursor: str
    time_us: int
    lines: list[bytes]


def entries(stream: IO[bytes]) -> Iterator[Mapping[str, bytes]]:
    """The entries of the journal's export format, with the fields that matter here.

    A field too long to hold is cut. An entry without an end, because the stream was cut off, is left out.
    Raises IntegrityError for what is not in that format.
    """
    entry: dict[str, bytes] = {}
    while True:
        line = stream.readline(_MOST_FIELD)
        if not line:
            return
        if line == b"\n":
            if entry:
                yield entry
            entry = {}
            continue
        name, separator, value = line.partition(b"=")
        if separator:
            while not value.endswith(b"\n") and (more := stream.readline(_MOST_FIELD)):
                value = value[:_MOST_FIELD] + more[-1:]
            value = value[:-1]
        else:
            value = _binary(stream)
        text = name.strip().decode("ascii", "replace")
        if text in _FIELDS or text.startswith("__"):
            entry[text] = value


def _binary(stream: IO[bytes]) -> bytes:
    """A field with its length before it: eight bytes, the least first."""
    size = int.from_bytes(stream.read(8), "little")
    value = stream.read(min(size, _MOST_FIELD))
    left = size - len(value)
    while left > 0 and (skipped := stream.read(min(left, 1 << 20))):
        left -= len(skipped)
    if stream.read(1) != b"\n":
        raise IntegrityError("what journalctl wrote is not the journal's export format")
    return value


class Lines:
    """Turns entries into lines of a log. One for each journal, because a traceback is several entries."""

    def __init__(self) -> None:
        self._following = Following()

    def of(self, entry: Mapping[str, bytes]) -> Entry:
        """The lines of an entry: those with a time of their own as they are, others with the journal's time."""
        try:
            microseconds = int(entry.get("__REALTIME_TIMESTAMP", b"0"))
            priority = int(entry.get("PRIORITY", b"6"))
        except ValueError:
            microseconds, priority = 0, 6
        level = _LEVELS[priority] if 0 <= priority < len(_LEVELS) else "INFO"
        unit = (entry.get("UNIT") or entry.get("_SYSTEMD_UNIT") or b"").replace(b" ", b"_") or b"systemd"
        moment = from_timestamp(microseconds / 1e6).strftime("%Y-%m-%dT%H:%M:%S").encode()
        time = moment + b".%06dZ" % (microseconds % 1_000_000)
        lines = []
        for whole in entry.get("MESSAGE", b"").split(b"\n"):
            line = whole[:MOST_LINE]
            read = parse(line)
            if read.bare:
                self._following.head()
                named = (read.logger or JOURNAL).encode()
                lines.append(b"%s | %s | %s:: - %s" % (time, read.level.encode(), named, read.text))
            elif read.kind is Kind.HEAD:
                self._following.head()
                lines.append(line)
            elif self._following.belongs(read.kind, line):
                lines.append(line)
            else:
                self._following.head()
                lines.append(b"%s | %s | %s:: - %s" % (time, level.encode(), unit, line))
        cursor = entry.get("__CURSOR", b"").decode("ascii", "replace")
        return Entry(cursor, microseconds, lines)


@contextlib.contextmanager
def read_unit(unit: str, cursor: str, *, since_s: int, timeout_s: float) -> Iterator[Iterator[Entry]]:
    """The entries of a unit from the one at `cursor` on, that one included; without a cursor, all since a time.

    Raises CommandError with what journalctl says, and PreconditionError without journalctl.
    """
    where = [f"--cursor={cursor}"] if cursor else [f"--since=@{since_s}"]
    argv = [
        require_tool("journalctl", "systemd"), "--quiet", "--no-pager", "--all", "--output=export", f"--unit={unit}",
        f"--output-fields={','.join(_FIELDS)}", *where,
    ]  # fmt: skip
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said) as process:
            watchdog = threading.Timer(timeout_s, process.kill)
            watchdog.start()
            try:
                if process.stdout is not None:
                    lines = Lines()
                    yield (lines.of(entry) for entry in entries(process.stdout))
                    if not process.stdout.read(1) and process.wait() != 0:
                        said.seek(0)
                        raise CommandError(
                            f"journalctl ended with status {process.returncode}: {last_words(said.read())}",
                            subject=unit,
                            returncode=process.returncode,
                        )
            finally:
                watchdog.cancel()
                process.kill()
