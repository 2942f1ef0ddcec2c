# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Weeks of a trading service as data documents of a log report: an eventful one, a quiet one, one without data."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from fluxmaint.core.clock import utc_text
from fluxmaint.logs.summary import Document, Hour, Message, Totals

BEGIN = datetime(2026, 11, 16, tzinfo=timezone.utc)
END = BEGIN + timedelta(days=7)
DEPLOYED = BEGIN + timedelta(days=2, hours=18, minutes=4)
_ENGINE_DOWN = range(103, 106)
_FEED_DOWN = range(83, 88)


def at(hours: float) -> str:
    """So many hours after the week has begun."""
    return utc_text(BEGIN + timedelta(hours=hours))


def _spread(count: int, hours: range, seed: int) -> dict[str, int]:
    """`count` events over some hours of the week, more of them while the exchange is open."""
    drawn = random.Random(seed)
    open_hours = [hour for hour in hours if hour not in _ENGINE_DOWN]
    weights = [6.0 if 14 <= hour % 24 < 21 and hour < 120 else 1.0 for hour in open_hours]
    spread: dict[str, int] = {}
    for hour in drawn.choices(open_hours, weights, k=count):
        spread[at(hour)] = spread.get(at(hour), 0) + 1
    return dict(sorted(spread.items()))


def message(level: str, text: str, count: int, **facts: Any) -> Message:
    """A message with facts that fit each other; `facts` replace them."""
    hours: range = facts.pop("hours", range(168))
    hourly = _spread(count, hours, len(text))
    made: Message = {
        "fingerprint": f"{abs(hash_of(text)):012x}"[:12],
        "level": level,
        "text": text,
        "type": "",
        "count": count,
        "previous": count,
        "first_seen": "2026-08-03T09:12:44Z",
        "last_seen": max(hourly, default=at(0)).replace("00:00Z", f"{len(text) % 60:02d}:{count % 60:02d}Z"),
        "hourly": hourly,
        "samples": [],
        "release": "2026.8.1",
        "new_since_deploy": False,
    }
    made.update(facts)  # type: ignore[typeddict-item]
    return made


def hash_of(text: str) -> int:
    """The same number for a text in each run."""
    value = 14695981039346656037
    for byte in text.encode():
        value = (value ^ byte) * 1099511628211 % 2**64
    return value


_TRACEBACK = """2026-11-18 19:42:07,318 ERROR fluxhero.execution.router Order routing failed for order 88213
Traceback (most recent call last):
  File "/opt/fluxhero/current/fluxhero/execution/router.py", line 214, in route
    quote = self.book.best(order.symbol, order.side)
  File "/opt/fluxhero/current/fluxhero/market/book.py", line 97, in best
    return levels[0]
           ~~~~~~^^^
IndexError: list index out of range"""


def _line(time: str, level: str, logger: str, text: str) -> str:
    return f"2026-11-{time} {level} {logger} {text}"


def _messages() -> list[Message]:
    after = range(67, 168)
    new = {"release": "2026.11.2", "new_since_deploy": True, "previous": 0}
    feed, broker, rest = "fluxhero.market.feed", "fluxhero.execution.broker", "fluxhero.market.rest"
    limits, trades, book = "fluxhero.risk.limits", "fluxhero.store.trades", "fluxhero.execution.reconcile"
    failed = "Trade execution failed: {}: insufficient buying power"
    url = "https://api.example.com/v2/bars?symbol=MSFT&token=[redacted]"
    halted = "Trading halted: daily loss limit reached (2514.90 of 2500.00)"
    slow = "SELECT symbol, sum(pnl) FROM trades GROUP BY symbol"
    return [
        message(
            "CRITICAL",
            "Trading halted: daily loss limit reached (<n> of <n>)",
            1,
            type=limits,
            previous=0,
            first_seen="2026-09-21T19:02:11Z",
            hours=range(86, 87),
            samples=[_line("19 14:36:50,002", "CRITICAL", limits, halted)],
        ),
        message(
            "ERROR",
            "Order routing failed for order <n>",
            47,
            type="IndexError",
            hours=after,
            first_seen="2026-11-18T19:42:07Z",
            samples=[_TRACEBACK],
            **new,
        ),
        message(
            "ERROR",
            "Quote feed disconnected: no heartbeat for <n> s",
            38,
            type=feed,
            previous=4,
            hours=_FEED_DOWN,
            samples=[_line("19 11:58:31,774", "ERROR", feed, "Quote feed disconnected: no heartbeat for 30.2 s")],
        ),
        message(
            "ERROR",
            failed.format("<symbol> <n> @ <n>"),
            23,
            type=broker,
            previous=31,
            samples=[
                _line("17 15:20:09,451", "ERROR", broker, failed.format("NVDA 40 @ 181.22")),
                _line("20 19:48:37,090", "ERROR", broker, failed.format("AAPL 120 @ 268.40")),
            ],
        ),
        message(
            "ERROR",
            "API request failed: GET <url> -> <n>",
            19,
            type="httpx.HTTPStatusError",
            previous=17,
            samples=[_line("18 14:31:55,127", "ERROR", rest, f"API request failed: GET {url} -> 503")],
        ),
        message(
            "ERROR",
            "database is locked",
            6,
            type="sqlite3.OperationalError",
            previous=6,
            samples=[_line("16 21:00:02,640", "ERROR", trades, "database is locked")],
        ),
        message(
            "ERROR",
            "Reconciliation of <symbol>: broker says <n>, we say <n>",
            2,
            type=book,
            hours=range(122, 144),
            first_seen="2026-11-21T02:15:00Z",
            samples=[_line("21 02:15:00,310", "ERROR", book, "Reconciliation of TSLA: broker says 40, we say 0")],
            **new,
        ),
        message(
            "WARNING",
            "Quote for <symbol> is <n> s old, skipped",
            812,
            type=feed,
            previous=288,
            samples=[_line("19 11:57:48,113", "WARNING", feed, "Quote for AMD is 14.8 s old, skipped")],
        ),
        message(
            "WARNING",
            "Rate limit: <n> of <n> requests used, waiting <n> s",
            164,
            type=rest,
            previous=171,
            samples=[_line("18 14:30:01,006", "WARNING", rest, "Rate limit: 196 of 200 requests used, waiting 4 s")],
        ),
        message(
            "WARNING",
            f"Slow query (<n> ms): {slow}",
            58,
            type=trades,
            hours=after,
            first_seen="2026-11-18T18:31:20Z",
            samples=[_line("18 18:31:20,884", "WARNING", trades, f"Slow query (1284 ms): {slow}")],
            **new,
        ),
        message("WARNING", "Cache of <symbol> is <n> h old, fetched again", 41, type="fluxhero.cache", previous=39),
    ]


def _route(method: str, route: str, statuses: dict[str, int], *ms: float) -> Any:
    errors = sum(count for status, count in statuses.items() if status >= "500")
    return {
        "method": method,
        "route": route,
        "requests": sum(statuses.values()),
        "errors": errors,
        "statuses": statuses,
        "p50_ms": ms[0] if ms else None,
        "p95_ms": ms[1] if ms else None,
        "p99_ms": ms[2] if ms else None,
    }


def _hours(messages: list[Message]) -> list[Hour]:
    drawn = random.Random(47)
    hours: list[Hour] = []
    for index in range(168):
        here = {
            level: sum(item["hourly"].get(at(index), 0) for item in messages if item["level"] in level)
            for level in (("CRITICAL", "ERROR"), ("WARNING",))
        }
        errors, warnings = here.values()
        busy = 2600 if 14 <= index % 24 < 21 and index < 120 else 420 if index < 120 else 160
        events = 0 if index in _ENGINE_DOWN else errors + warnings + int(busy * drawn.uniform(0.8, 1.2))
        hours.append({"hour": at(index), "events": events, "errors": errors, "warnings": warnings})
    return hours


def example() -> Document:
    """A week with a deploy, a quote feed that was away for a while, and three hours in which nothing ran."""
    messages = _messages()
    hours = _hours(messages)
    routes = [
        _route("GET", "/api/status", {"200": 20158}, 2.1, 6.4, 11.8),
        _route("GET", "/api/positions", {"200": 8402, "401": 12, "500": 3}, 8.7, 41.0, 96.5),
        _route("GET", "/api/trades", {"200": 4210, "500": 41}, 31.4, 482.0, 1310.0),
        _route("POST", "/api/orders", {"201": 3187, "400": 22, "503": 9}, 44.9, 187.0, 420.0),
        _route("DELETE", "/api/orders/{id}", {"204": 214, "404": 5}, 38.0, 92.0, 141.0),
        _route("GET", "/api/backtests/{id}", {"200": 38}, 812.0, 2240.0, 3105.0),
    ]
    totals: Totals = {
        "events": sum(hour["events"] for hour in hours),
        "errors": sum(hour["errors"] for hour in hours),
        "warnings": sum(hour["warnings"] for hour in hours),
        "tracebacks": 47,
        "failed_trades": 23,
        "api_errors": sum(route["errors"] for route in routes),
        "requests": sum(route["requests"] for route in routes),
        "restarts": 2,
        "unparsed": 14,
        "doubles_dropped": 1180,
        "bytes": 61_482_113,
    }
    types: dict[str, list[int]] = {}
    for item in messages:
        if item["level"] in {"CRITICAL", "ERROR"}:
            counts = types.setdefault(item["type"], [0, 0])
            counts[0] += item["count"]
            counts[1] += item["previous"]
    return {
        "format": 1,
        "service": "fluxhero",
        "host": "production",
        "generated": utc_text(END + timedelta(hours=5, seconds=8)),
        "period": {"begin": utc_text(BEGIN), "end": utc_text(END)},
        "previous_period": {"begin": utc_text(BEGIN - timedelta(days=7)), "end": utc_text(BEGIN)},
        "release": {"current": "2026.11.2", "deployed": utc_text(DEPLOYED), "previous": "2026.10.5"},
        "sources": [
            {
                "name": "fluxhero.log",
                "kind": "file",
                "files": 8,
                "bytes_read": 55_901_220,
                "events": totals["events"] - totals["requests"],
                "unparsed": 14,
                "doubles_dropped": 1180,
                "gaps": [],
                "unparsed_samples": ["!! numba: 3 functions compiled in nopython mode", "malloc(): corrupted top size"],
            },
            {
                "name": "access.log",
                "kind": "file",
                "files": 8,
                "bytes_read": 5_580_893,
                "events": totals["requests"],
                "unparsed": 0,
                "doubles_dropped": 0,
                "gaps": [
                    {
                        "file": "access.log.2",
                        "reason": "removed before it was read",
                        "after": at(103),
                        "before": at(106),
                    },
                ],
                "unparsed_samples": [],
            },
            {
                "name": "fluxhero-frontend.service",
                "kind": "journal",
                "files": 0,
                "bytes_read": 0,
                "events": 0,
                "unparsed": 0,
                "doubles_dropped": 0,
                "gaps": [],
                "unparsed_samples": [],
            },
        ],
        "totals": totals,
        "previous_totals": {
            **totals,
            "events": 148_213,
            "errors": 74,
            "warnings": 498,
            "tracebacks": 0,
            "failed_trades": 31,
            "api_errors": 17,
            "requests": 36_011,
            "restarts": 0,
            "unparsed": 0,
        },
        "hourly": hours,
        "errors_by_type": [
            {"type": name, "count": counts[0], "previous": counts[1]}
            for name, counts in sorted(types.items(), key=lambda item: -item[1][0])
        ],
        "messages": messages,
        "routes": routes,
        "restarts": [
            {"time": utc_text(DEPLOYED + timedelta(seconds=41)), "unit": "fluxhero-backend.service", "what": "started"},
            {"time": at(106.02), "unit": "fluxhero-backend.service", "what": "started, after 3 h without a line"},
        ],
        "notes": ["Latencies are those that the back end logs; the way to the browser is not in them."],
    }


def empty() -> Document:
    """A week in which the only source said nothing, after another one of which nothing is known."""
    document = example()
    document["totals"] = dict.fromkeys(document["totals"], 0)  # type: ignore[assignment]
    document["previous_totals"] = None
    document["release"] = None
    document["sources"] = document["sources"][2:]
    document["hourly"] = [{**hour, "events": 0, "errors": 0, "warnings": 0} for hour in document["hourly"]]
    document["errors_by_type"], document["messages"], document["routes"] = [], [], []
    document["restarts"], document["notes"] = [], []
    return document


def quiet() -> Document:
    """A week in which everything was read and nothing happened."""
    document = example()
    for key in ("errors", "warnings", "tracebacks", "failed_trades", "api_errors", "restarts", "unparsed"):
        document["totals"][key] = 0  # type: ignore[literal-required]
    document["previous_totals"] = document["totals"]
    document["sources"] = [{**document["sources"][0], "unparsed": 0, "unparsed_samples": []}]
    document["hourly"] = [{**hour, "events": 100, "errors": 0, "warnings": 0} for hour in document["hourly"]]
    document["errors_by_type"], document["messages"], document["restarts"], document["notes"] = [], [], [], []
    document["routes"] = document["routes"][:1]
    return document


def with_texts(document: Document, change: Callable[[str], str]) -> Document:
    """The same document with every text that comes from logs, or from people, replaced."""
    changed = copy.deepcopy(document)
    changed["service"], changed["host"] = change(changed["service"]), change(changed["host"])
    if changed["release"]:
        changed["release"]["current"] = change(changed["release"]["current"])
        changed["release"]["previous"] = change(changed["release"]["previous"])
    for source in changed["sources"]:
        source["name"] = change(source["name"])
        source["unparsed_samples"] = [change(text) for text in source["unparsed_samples"]]
        for gap in source["gaps"]:
            gap["file"], gap["reason"] = change(gap["file"]), change(gap["reason"])
    for kind in changed["errors_by_type"]:
        kind["type"] = change(kind["type"])
    for item in changed["messages"]:
        for key in ("fingerprint", "text", "type", "release"):
            item[key] = change(item[key])  # type: ignore[literal-required]
        item["samples"] = [change(text) for text in item["samples"]]
    for route in changed["routes"]:
        route["method"], route["route"] = change(route["method"]), change(route["route"])
        route["statuses"] = {
            f"{number}{change(key)}": count for number, (key, count) in enumerate(route["statuses"].items())
        }
    for restart in changed["restarts"]:
        restart["unit"], restart["what"] = change(restart["unit"]), change(restart["what"])
    changed["notes"] = [change(note) for note in changed["notes"]]
    return changed
