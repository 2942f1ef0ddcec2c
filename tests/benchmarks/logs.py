# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a week of logs: ours beside the guide's script, the shell's usual ways, and goaccess for its requests.

The log is mixed as a service's is: guide's text, loguru, JSON, requests, tracebacks, doubles; the same in each run.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

from .methods import Method, executable, shell

SIZES = {"100MB": 100_000_000, "1GB": 1_000_000_000}
ADDED = 1_000_000
_VERSION = 1  # raise it when the content changes
_LINES_PER_HOUR = 60_000
_BEGIN = datetime(2026, 1, 5, tzinfo=timezone.utc)
_SYMBOLS = ("AAPL", "AMD", "AMZN", "BAC", "GOOG", "INTC", "IWM", "JPM", "META", "MSFT", "NVDA", "QQQ", "SPY", "TLT")

# The guide's script: its commands, with other directories.
_GUIDE = r"""
set +o pipefail
grep "ERROR" "$LOG" | awk '{print $4}' | sort | uniq -c | sort -rn > "$OUT"
grep -c "WARNING" "$LOG" >> "$OUT"
grep "Trade execution failed" "$LOG" | wc -l >> "$OUT"
grep "API request failed" "$LOG" | wc -l >> "$OUT"
grep "ERROR" "$LOG" | sed 's/.*ERROR/ERROR/' | sort | uniq -c | sort -rn | head -10 >> "$OUT"
"""
# What comes nearest to fingerprints: numbers and ids of every line replaced, lines counted.
_SORT = r"""sed -E 's/[0-9a-f]{16}/I/g; s/[0-9]+/N/g' "$LOG" | sort | uniq -c | sort -rn > "$OUT" """
_ID = "[0-9a-f]" * 16  # awk has no `{16}` everywhere
_AWK = f"""
awk '{{ gsub(/{_ID}/, "I"); gsub(/[0-9]+/, "N"); n[$0]++ }} END {{ for (t in n) print n[t], t }}' "$LOG" > "$OUT"
"""
_GOACCESS = r"""
grep -F "uvicorn.access" "$LOG" | sed 's/ | INFO     | uvicorn.access:send:476 - / /' |
    goaccess - --log-format='%d %t.%^ %h:%^ - "%r" %s' --date-format=%Y-%m-%d --time-format=%H:%M:%S --no-progress \
        --no-global-config -o "$OUT" > /dev/null
"""


def ensure(directory: Path, size: str) -> Path:
    """The log of that size, made when it is not there yet."""
    path = directory / f"v{_VERSION}-{size}.log"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as stream:
            hour = 0
            while stream.tell() < SIZES[size]:
                stream.write(_hour(hour))
                hour += 1
        partial.rename(path)
    return path


_seed: list[bytes] = []


def _hour(number: int) -> bytes:
    """The lines of one hour, which differ from those of another one in their times."""
    if not _seed:
        _seed.append(("\n".join(_lines(random.Random(20260105))) + "\n").encode())
    moment = _BEGIN + timedelta(hours=number)
    text = _seed[0].replace(b"2026-01-05 00:", moment.strftime("%Y-%m-%d %H:").encode())
    return text.replace(b"2026-01-05T00:", moment.strftime("%Y-%m-%dT%H:").encode())


def _lines(pick: random.Random) -> list[str]:
    found: list[str] = []
    for number in range(_LINES_PER_HOUR):
        now = _BEGIN + timedelta(seconds=3600 * number / _LINES_PER_HOUR)
        time = now.strftime("%Y-%m-%d %H:%M:%S.") + f"{now.microsecond // 1000:03d}"
        symbol, kind = pick.choice(_SYMBOLS), pick.random()
        if kind < 0.35:
            side, quantity, price = pick.choice(("BUY", "SELL")), pick.randint(1, 400), pick.uniform(8, 900)
            text = f"Trade executed: {side} {quantity} {symbol} at {price:.2f}, pnl {pick.gauss(0, 80):.2f}"
            found.append(f"{time} | INFO     | backend.trading:trade_once:98 - {text}")
        elif kind < 0.65:
            path = pick.choice(("status", "positions", f"candles/{symbol}", f"trades/{pick.randint(1, 99999)}"))
            status = pick.choice((200,) * 40 + (404, 429, 500))
            text = f'127.0.0.1:{pick.randint(30000, 60000)} - "GET /api/{path} HTTP/1.1" {status}'
            found.append(f"{time} | INFO     | uvicorn.access:send:476 - {text}")
        elif kind < 0.85:
            document = {"timestamp": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "level": "INFO", "logger": "backend.market"}
            document["level"] = pick.choice(("INFO",) * 18 + ("WARNING", "ERROR"))
            document["message"] = f"Quote for {symbol} took {pick.randint(1, 900)} ms"
            found.append(json.dumps({**document, "symbol": symbol, "price": round(pick.uniform(8, 900), 2)}))
        elif kind < 0.95:
            text = f"Position {pick.randint(1, 99999)} of {symbol} at {pick.uniform(0, 9):.3f} sigma"
            if kind > 0.91:
                text += f", order {pick.getrandbits(64):016x}"
            found.append(f"{time.replace('.', ',')} - backend.risk - {pick.choice(('INFO', 'WARNING'))} - {text}")
        elif kind < 0.99:
            line = f"{time} | ERROR    | backend.trading:trade_once:93 - Trade execution failed: database is locked"
            found += [line] * pick.choice((1, 1, 1, 2))
        else:
            text = f"API request failed: POST /api/orders/{pick.randint(1, 9999)}: refused"
            found.append(f"{time} | ERROR    | backend.main:failed:150 - {text}")
            found += ["Traceback (most recent call last):", f'  File "main.py", line {pick.randint(1, 400)}, in answer']
            found += ["    call()", f"ConnectionError: refused by {symbol}"]
    return found


class Logs:
    """One log, and a host that reads it."""

    def __init__(self, source: Path, work: Path) -> None:
        self._work = work
        self.log = work / "logs" / "fluxhero.log"
        self.log.parent.mkdir(parents=True)
        shutil.copyfile(source, self.log)
        (work / "state").mkdir()
        document = {
            "format": 1,
            "service": "fluxhero",
            "host": "bench",
            "root": str(work),
            "user": "root",
            "group": "root",
            "units": [],
            "databases": [{"name": "trades", "path": str(work / "trades.db")}],
            "logs": {"directory": str(self.log.parent)},
            "health": {},
            "state_dir": str(work / "state"),
            "run_dir": str(work / "run"),
        }
        (work / "config.json").write_text(json.dumps(document), encoding="utf-8")
        (work / "fluxmaint").write_bytes(executable())
        self._rounds = 0

    def whole(self) -> list[Method]:
        """Everything, by each method."""
        out: dict[str, Path | str] = {"LOG": self.log, "LC_ALL": "C"}  # bytes, as ours: faster for them than UTF-8
        ways = {
            "guide's script": _GUIDE,
            "sed | sort | uniq -c": _SORT,
            "awk": _AWK,
            "goaccess, requests alone": _GOACCESS,
        }
        suffixes = {**dict.fromkeys(ways, ".txt"), "goaccess, requests alone": ".json"}
        found = [self._ours(self._forget)]
        for number, (name, script) in enumerate(ways.items()):
            output = self._work / f"out-{number}{suffixes[name]}"
            found.append(Method(name, shell(script, **out, OUT=output), output, quiet=True))
        return found

    def again(self) -> list[Method]:
        """What was added since the last time: 1 MB."""
        return [self._ours(self._add), *(method for method in self.whole() if method.name.startswith("guide"))]

    def _ours(self, prepare: Callable[[], None]) -> Method:
        command = [sys.executable, "-I", str(self._work / "fluxmaint"), "logs", "read", "--quiet"]
        config = ["--config", str(self._work / "config.json")]
        return Method("ours", [*command, *config], self._work / "state", prepare=prepare, quiet=True)

    def _forget(self) -> None:
        (self._work / "state").mkdir(exist_ok=True)

    def _add(self) -> None:
        """One more megabyte behind what was read."""
        shutil.copytree(self._work / "state-before", self._work / "state")
        self._rounds += 1
        with self.log.open("ab") as stream:
            stream.write(_hour(1000 + self._rounds)[:ADDED].rpartition(b"\n")[0] + b"\n")

    def remember(self) -> None:
        """Keep what has been read, for `again`."""
        shutil.copytree(self._work / "state", self._work / "state-before")
