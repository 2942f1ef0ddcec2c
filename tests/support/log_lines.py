# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random logs of every form, with what real ones have: doubles, tracebacks, rubbish, several hours."""

from __future__ import annotations

import json
import random
from datetime import datetime, timedelta, timezone

_SYMBOLS = ("AAPL", "MSFT", "TLT", "BTC/USD")
_LEVELS = ("DEBUG", "INFO", "INFO", "WARNING", "ERROR", "CRITICAL")
BEGIN = datetime(2026, 1, 5, 13, 58, tzinfo=timezone.utc)


def lines(seed: int, count: int) -> list[bytes]:
    """About `count` lines, the same for the same seed."""
    pick = random.Random(seed)
    now = BEGIN
    found: list[bytes] = []
    while len(found) < count:
        now += timedelta(milliseconds=pick.choice((0, 0, 3, 900, 60_000)))
        event = _event(pick, now)
        found += event
        if pick.random() < 0.1:  # two handlers
            found += event
    return found


def _event(pick: random.Random, now: datetime) -> list[bytes]:
    make = pick.choice((_guide, _loguru, _loguru, _json, _access, _access, _trace, _strange, _generic, _lines))
    return make(pick, now)


def _message(pick: random.Random) -> str:
    number, price, symbol = pick.randint(0, 12345), pick.uniform(-9, 1200), pick.choice(_SYMBOLS)
    identity = f"{pick.getrandbits(64):016x}"
    uuid = f"{pick.getrandbits(32):08x}-{pick.getrandbits(16):04x}-{pick.getrandbits(16):04x}"
    uuid += f"-{pick.getrandbits(16):04x}-{pick.getrandbits(48):012x}"
    return pick.choice(
        (
            f"Trade executed: BUY {number} {symbol} at {price:.2f}",
            f"Trade execution failed: sqlite3.OperationalError: database is locked after {number} ms",
            f"API request failed: GET /api/orders/{number}: timed out",
            f"Order {identity} of {symbol} ({uuid}) took {price:g}",
            f"login with password={identity}{number} and token: Bearer {uuid}",
            f"Started server process [{number}]",
            "nothing that changes",
            f'≤ {number} % \x1b[31mred\x1b[0m {{"a": {number}}}',
            f"beef{number} deadbeef {number}abcdef{number} v{number}.{number}",
            "",
        )
    )


def _guide(pick: random.Random, now: datetime) -> list[bytes]:
    time = now.strftime("%Y-%m-%d %H:%M:%S,") + f"{now.microsecond // 1000:03d}"
    return [f"{time} - backend.risk - {pick.choice(_LEVELS)} - {_message(pick)}".encode()]


def _loguru(pick: random.Random, now: datetime) -> list[bytes]:
    time = now.strftime("%Y-%m-%d %H:%M:%S.") + f"{now.microsecond // 1000:03d}"
    return [
        f"{time} | {pick.choice(_LEVELS):8} | backend.trading:run:{pick.randint(1, 200)} - {_message(pick)}".encode()
    ]


def _generic(pick: random.Random, now: datetime) -> list[bytes]:
    time = now.strftime("%Y-%m-%d %H:%M:%S")
    form = pick.choice(("[{}] [{}] {}", "{} {} {}", "{} {}:     {}", "{}+00:00 {} {}"))
    return [form.format(time, pick.choice(_LEVELS), _message(pick)).encode()]


def _json(pick: random.Random, now: datetime) -> list[bytes]:
    time = pick.choice(
        (now.isoformat(), now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), now.timestamp(), int(now.timestamp() * 1000))
    )
    document = {
        pick.choice(("timestamp", "time", "ts")): time,
        pick.choice(("level", "levelname")): pick.choice((*_LEVELS, 30, 40)),
        pick.choice(("message", "msg")): _message(pick),
    }
    if pick.random() < 0.4:
        document.update(method="GET", path=f"/api/candles/{pick.choice(_SYMBOLS)}/{pick.randint(1, 99)}")
        document.update(
            status=pick.choice((200, 404, 500)), duration_ms=round(pick.uniform(0, 300), pick.randint(0, 3))
        )
    if pick.random() < 0.2:
        document["upstream"] = {"status": pick.choice((200, 500)), "level": pick.choice((10, 40)), "text": "caf\xe9"}
    if pick.random() < 0.1:
        document["exc_info"] = "Traceback (most recent call last):\n  File \"x\", line 3\nKeyError: 'a'"
    items = list(document.items())
    pick.shuffle(items)
    return [json.dumps(dict(items), ensure_ascii=pick.random() < 0.5).encode("utf-8", "surrogatepass")]


def _access(pick: random.Random, now: datetime) -> list[bytes]:
    """A request, written by one of uvicorn's handlers or by both."""
    status = pick.choice((200, 200, 404, 500))
    path = pick.choice(("/api/status", f"/api/trades/{pick.randint(1, 999)}?token=x{pick.randint(1, 9)}"))
    request = f'127.0.0.1:{pick.randint(1024, 65535)} - "GET {path} HTTP/1.1" {status}'
    phrase = {200: "OK", 404: "Not Found", 500: "Internal Server Error"}[status]
    time = now.strftime("%Y-%m-%d %H:%M:%S.") + f"{now.microsecond // 1000:03d}"
    own = f"INFO:     {request} {phrase}".encode()
    took = pick.choice(("", "", f" {pick.uniform(0, 99):.1f}ms"))
    other = f"{time} | INFO     | uvicorn.access:send:476 - {request}{took}".encode()
    return pick.choice(([own], [other], [own, other], [own, other], [other, own]))


def _trace(pick: random.Random, now: datetime) -> list[bytes]:
    found = [b"Traceback (most recent call last):", b'  File "a.py", line %d, in f' % pick.randint(1, 99), b"    f()"]
    if pick.random() < 0.8:
        found.append(b"%s: refused %d" % (pick.choice((b"ConnectionError", b"a.b.OddError")), pick.randint(1, 99)))
    if pick.random() < 0.1:
        found += [b"  | ExceptionGroup: %d sub-exceptions" % pick.randint(1, 99), b"    | ValueError: no"]
    if pick.random() < 0.2:
        found += [b"", b"During handling of the above exception, another exception occurred:", b"", *found[:3]]
        found.append(b"KeyboardInterrupt")
    head = pick.choice((_guide, _loguru, _access, _strange))(pick, now) if pick.random() < 0.9 else []
    return [*head, *found]


def _strange(pick: random.Random, now: datetime) -> list[bytes]:
    return [
        pick.choice(
            (
                pick.randbytes(30).replace(b"\n", b" "),
                b"Segmentation fault",
                b"{not json",
                b'{"level": "ERROR", "message": "x", "n": 05}',
                b"9999-99-99 99:99:99,999 - a - ERROR - x" if pick.random() < 0.01 else b"Bus error",
                b"INFO:     Application startup complete.",
                b"WARNING:root:careful",
                b"%s: gone" % pick.choice((b"deadbeef0", b"0badbeef1", b"abcdefab2")),
            )
        )
    ]


def _lines(pick: random.Random, now: datetime) -> list[bytes]:
    """A message of several lines."""
    return [*_loguru(pick, now), b"  and more", b"", b"\tand %d" % pick.randint(1, 99)]
