# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From samples to results, from results to ratios, tables and a drawing. Nothing here runs anything."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from . import reasons
from .measure import Sample

Result = dict[str, Any]
CASES = {
    "hot": "Hot backup of one database",
    "steps": "Single steps of a generation, by plain tools (nobody writes)",
    "generation": "A first whole backup: snapshot, compression, encryption, stored",
    "generation-day": "The next backup after a day's changes (nobody writes)",
    "restore": "Restore to a checked database",
    "logs": "What a log says: levels, messages, requests (nobody writes)",
    "logs-again": "The same again after 1 MB more (nobody writes)",
}

MODES = {"wal": "WAL", "rollback": "rollback journal", "": "one file"}


def summarise(name: str, samples: Sequence[Sample]) -> Result:
    """One method's result over its rounds. Runs that did not finish count only when none did."""
    finished = [sample for sample in samples if sample.finished]
    counted = finished or list(samples)
    seconds = [sample.seconds for sample in counted]
    waits = sorted(wait for sample in samples for wait in sample.waits_ms)
    return {
        "name": name,
        "rounds": len(samples),
        "median_s": round(statistics.median(seconds), 3),
        "min_s": round(min(seconds), 3),
        "max_s": round(max(seconds), 3),
        "cpu_s": round(statistics.median(sample.cpu_s for sample in counted), 3),
        "writer_commits": len(waits),
        "writer_p50_ms": percentile(waits, 0.50),
        "writer_p99_ms": percentile(waits, 0.99),
        "writer_max_ms": percentile(waits, 1.0),
        "bytes_out": int(statistics.median(sample.bytes_out for sample in counted)),
        "peak_rss_bytes": max(sample.peak_rss_bytes for sample in samples),
        "finished": len(finished) == len(samples),
    }


def percentile(ordered: Sequence[float], fraction: float) -> float | None:
    """The smallest value that at least `fraction` of the values do not exceed; None without values."""
    if not ordered:
        return None
    return round(ordered[max(0, math.ceil(fraction * len(ordered)) - 1)], 3)


def merge(before: Iterable[Result], now: Sequence[Result]) -> list[Result]:
    """Earlier results with the groups that were measured anew replaced: a ratio never mixes two runs."""
    fresh = {group(result) for result in now}
    kept = [result for result in before if group(result) not in fresh]
    order = {case: number for number, case in enumerate(CASES)}
    return sorted([*kept, *now], key=lambda item: (order[item["case"]], item["size_bytes"], item["journal"]))


def group(result: Result) -> tuple[str, str, str]:
    """What is compared with each other."""
    return result["case"], result["size"], result["journal"]


@dataclass(frozen=True)
class Goal:
    """`value` of ours, divided by that of `other` unless there is none, is at most `limit` in a group.

    `other` may be the beginning of a name; `mine` is ours, or ours under other conditions.
    """

    text: str
    case: str
    size: str
    journal: str
    value: str
    other: str
    limit: float
    mine: str = "ours"


_QUIET = "ours, nobody writes"
GOALS = [
    Goal("hot backup: seconds / cp + fsync", "hot", "2.4GB", "rollback", "median_s", "cp + fsync", 1.3),
    Goal("hot backup: seconds / backup API", "hot", "2.4GB", "rollback", "median_s", "Python backup API", 0.6),
    Goal("hot backup: worst wait / the API's", "hot", "2.4GB", "rollback", "writer_max_ms", "Python backup API", 0.1),
    Goal("hot backup of 100 MB: worst wait in ms", "hot", "100MB", "rollback", "writer_max_ms", "", 50),
    Goal("hot backup, WAL: seconds / cp + fsync", "hot", "2.4GB", "wal", "median_s", "cp + fsync", 1.3),
    Goal("hot backup, WAL: writer's p99 / without a backup", "hot", "2.4GB", "wal", "writer_p99_ms", "no backup", 1.5),
    Goal("generation: seconds / zstd | age > file", "generation", "2.4GB", "rollback", "median_s", "zstd | age", 1.25),
    Goal("generation: seconds / same level and threads", "generation", "2.4GB", "rollback", "median_s", "zstd -", 1.25),
    Goal(
        "generation, nobody writes: seconds / same work by hand",
        *("generation", "2.4GB", "rollback", "median_s", "cp, zstd", 1.25, _QUIET),
    ),
    Goal("generation: seconds / guide's script", "generation", "2.4GB", "rollback", "median_s", "guide's", 0.2),
    Goal("generation: seconds / restic's first backup", "generation", "2.4GB", "rollback", "median_s", "restic", 1.0),
    Goal(
        "generation, nobody writes: seconds / restic of a checked copy",
        *("generation", "2.4GB", "rollback", "median_s", "a copy", 1.0, _QUIET),
    ),
    Goal("generation: memory in MB", "generation", "2.4GB", "rollback", "peak_rss_bytes", "", 150e6),
    Goal("restore: seconds / age -d | zstd -d", "restore", "2.4GB", "rollback", "median_s", "age -d", 1.25),
    Goal("restore: seconds / restic + check", "restore", "2.4GB", "rollback", "median_s", "restic", 1.0),
    Goal("restore: memory in MB", "restore", "2.4GB", "rollback", "peak_rss_bytes", "", 150e6),
    Goal("hot backup: memory in MB", "hot", "2.4GB", "rollback", "peak_rss_bytes", "", 150e6),
    Goal("a log of 1 GB: seconds on one core", "logs", "1GB", "", "median_s", "", 10.0),
    Goal("a log of 1 GB: memory in MB", "logs", "1GB", "", "peak_rss_bytes", "", 200e6),
    Goal("a log of 1 GB: seconds / sed, sort, uniq", "logs", "1GB", "", "median_s", "sed", 1.0),
    Goal("1 MB more behind 1 GB: seconds / guide's script", "logs-again", "1GB", "", "median_s", "guide's", 0.5),
]


def judge(results: Sequence[Result], goals: Sequence[Goal] = tuple(GOALS)) -> list[tuple[Goal, float | None, bool]]:
    """The value reached for each goal, and whether that is enough; None where it was not measured.

    Ours that did not end has reached nothing (infinity), whatever those of its rounds took that did.
    """
    judged = []
    for goal in goals:
        there = [item for item in results if group(item) == (goal.case, goal.size, goal.journal)]
        if any(item["name"] == goal.mine and not item["finished"] for item in there):
            judged.append((goal, math.inf, False))
            continue
        here = [item for item in there if item["finished"]]
        mine = next((item[goal.value] for item in here if item["name"] == goal.mine), None)
        if goal.other and mine is not None:
            peer = next((item[goal.value] for item in here if item["name"].startswith(goal.other)), None)
            mine = mine / peer if peer else None
        judged.append((goal, mine, mine is not None and mine <= goal.limit))
    return judged


def goals_text(judged: Sequence[tuple[Goal, float | None, bool]]) -> str:
    """A Markdown table of goals."""
    lines = ["| goal (2.4 GB unless said) | wanted | reached | |", "|---|---|---|---|"]
    for goal, value, met in judged:
        scale = 1e6 if goal.limit > 1e5 else 1
        number = "not measured" if value is None else f"{value / scale:.2f}"
        number = "did not end" if value == math.inf else number
        verdict = "" if value is None else "met" if met else "**not met**"
        lines.append(f"| {goal.text.replace('|', '&#124;')} | at most {goal.limit / scale:g} | {number} | {verdict} |")
    return "\n".join(lines) + "\n"


def table(results: Sequence[Result]) -> str:
    """Markdown: one table for each group."""
    parts: list[str] = []
    for key, members in groups(results):
        case, size, journal = key
        mode = MODES[journal]
        parts.append(f"### {CASES[case]}: {size.replace('GB', ' GB').replace('MB', ' MB')}, {mode}\n")
        if not all(item.get("page_cache_filled") for item in members):
            parts.append("Measured before the page cache was filled.\n")
        columns = "seconds (min, max; rounds) | CPU, s | writer p50 / p99 / max, ms | bytes out, MB | RSS, MB"
        parts += [f"| method | {columns} |", "|---|---|---|---|---|---|"]
        parts += [_row(item) for item in members]
        parts.append("")
    return "\n".join(parts)


def groups(results: Sequence[Result]) -> list[tuple[tuple[str, str, str], list[Result]]]:
    """Results by what is compared, in order."""
    found: dict[tuple[str, str, str], list[Result]] = {}
    for item in results:
        found.setdefault(group(item), []).append(item)
    return list(found.items())


def _row(item: Result) -> str:
    if item["finished"]:
        seconds = f"{item['median_s']:.2f} ({item['min_s']:.2f}, {item['max_s']:.2f}; {item['rounds']})"
    else:
        seconds = f"**did not end or failed**: {item['max_s']:.0f} s, {_without_directories(item.get('said', ''))[:60]}"
        seconds = seconds.rstrip(" ,")
    waits = [item[f"writer_{name}_ms"] for name in ("p50", "p99", "max")]
    felt = "" if waits[0] is None else " / ".join(f"{wait:.1f}" for wait in waits)
    size, memory = item["bytes_out"] / 1e6, item["peak_rss_bytes"] / 1e6
    used = f"{item['cpu_s']:.2f}" if item["finished"] and "cpu_s" in item else ""
    return f"| {item['name'].replace('|', '&#124;')} | {seconds} | {used} | {felt} | {size:.0f} | {memory:.0f} |"


def _without_directories(text: str) -> str:
    """Names of files instead of where they lie on this machine, which means nothing elsewhere."""
    return re.sub(r"/(?:[^\s/]+/)+", "", text)


def drawing(results: Sequence[Result], size: str = "2.4GB") -> str:
    """An SVG of bars: the seconds of each method for the databases of one size."""
    chosen = [(key, members) for key, members in groups(results) if key[1] == size]
    width, left, thick, gap = 860, 260, 18, 6
    body: list[str] = []
    y = 20
    for (case, _size, journal), members in chosen:
        mode = MODES[journal]
        body.append(f'<text x="10" y="{y + 12}" class="head">{escape(f"{CASES[case]} ({mode})")}</text>')
        y += 26
        longest = max((item["median_s"] for item in members if item["finished"]), default=1.0)
        for item in members:
            length = min(1.0, item["median_s"] / longest) * (width - left - 150) if item["finished"] else 0
            kind = "ours" if item["name"] == "ours" else "peer"
            seconds = f"{item['median_s']:.1f} s" if item["finished"] else "does not end, or fails"
            body.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(item["name"])}</text>')
            body.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{thick}" class="{kind}"/>')
            body.append(f'<text x="{left + length + 6:.1f}" y="{y + 13}">{seconds}</text>')
            y += thick + gap
        y += 14
    style = (
        "text{font:13px sans-serif;fill:#222}.head{font-weight:bold}.ours{fill:#1b7f5c}.peer{fill:#9aa7b4}"
        ".back{fill:#fff}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}">'
    return f'{head}<style>{style}</style><rect class="back" width="{width}" height="{y}"/>{"".join(body)}</svg>\n'


def document(results: Sequence[Result], machine: Mapping[str, str]) -> str:
    """The page that `make bench` writes: what was measured, how, goals, tables."""
    tools = "\n".join(f"- {name}: {value}" for name, value in sorted(machine.items()))
    judged = judge(results)
    unmet = {(goal.case, goal.journal) for goal, value, met in judged if value is not None and not met}
    why = reasons.text(results, unmet)
    return _PAGE.format(goals=goals_text(judged), reasons=why, table=table(results), tools=tools)


_PAGE = """# Benchmarks

Written by `make bench`; the numbers are of one machine and belong together only within one table.

![Seconds for a database of 2.4 GB](benchmarks.svg)

- Each method is a process that is started, timed and ended; methods take turns, in the opposite order every
  second round. Seconds are medians.
- Another process commits 200 times a second to the same database (an insert and an update, `synchronous=FULL`) unless
  it says that nobody writes. The writer's columns are over all commits during the method.
- Everything is on one file system. Before each run everything written earlier is brought to the disk, the page cache
  is filled, as on a host that has run for weeks (what is written then takes the place of clean pages), and the database
  is read through, so that every method finds it there. Hot backups are brought to the disk (fsync) by every method.
  Tables measured before it was filled say so: there, whoever comes first may have to get memory from the host of the
  virtual machine, which takes longer than copying.
- Memory is the largest sum of the resident memory of all processes of the method, looked at every 50 ms. CPU is the
  processor time of all of them, median; it is empty where it was not measured yet.
- Databases hold the trading service's own tables, filled from a fixed seed. A day's changes: 0.5 % of the trades
  updated here and there, 0.5 % added.
- `ours` is `fluxmaint backup` as a host runs it: snapshot, integrity_check, foreign keys, row counts, invariants,
  digest, compression, encryption to two recipients, signature, stored on a target and read back. A restore
  verifies every digest and makes the same checks. restic and borg read the file while it is written to, so what they
  store under load is torn; they are compared for their speed. Their restores come from a backup made in peace.
- What a *proven* generation costs at the least says `cp, zstd | age > file beside integrity_check, digests`: the same
  work by the same tools, without snapshot under load, rows, signature, target and reading back. `a copy to restic`
  is what restic needs for a backup that is whole and checked. Both, and `ours, nobody writes`, run without a writer.
- `ours` stores a whole database each time; restic and borg add what they have not seen (see the day's table).
- Logs: `ours` is `fluxmaint logs read`, one process on one core, from its start to totals that are on the disk. The
  guide's script, sort and awk answer a part of its questions, goaccess those about requests; they work on bytes, as in
  the locale C.

## Goals

{goals}
{reasons}## Results

{table}
## Machine and tools

{tools}
"""
