# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why goals are not met, in the numbers of the same results."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Sequence
from typing import Any

_SIZE = "2.4GB"
_WIDTH = 120


class Numbers:
    """The values of one case, size and journal mode; KeyError where something was not measured."""

    def __init__(self, results: Sequence[dict[str, Any]], case: str, journal: str) -> None:
        here = [item for item in results if (item["case"], item["size"], item["journal"]) == (case, _SIZE, journal)]
        self._here = {item["name"]: item for item in here if item["finished"]}

    def __call__(self, name: str, field: str = "median_s") -> float:
        """One value of one method."""
        return float(self._here[name][field])

    def waits(self, name: str) -> str:
        """The 99th percentile and the worst of a writer's waits."""
        return f"{self(name, 'writer_p99_ms'):.1f} and {self(name, 'writer_max_ms'):.0f} ms"


def _generation(results: Sequence[dict[str, Any]]) -> str:
    step, whole = Numbers(results, "steps", "rollback"), Numbers(results, "generation", "rollback")
    by_hand = "cp, zstd | age > file beside integrity_check, digests; nobody writes"
    restic = "a copy to restic beside integrity_check; nobody writes"
    return (
        "**A generation beside restic or a bare pipeline.** Those read the file in place while it changes, and check"
        " nothing. A generation copies the database first, with nothing to do meanwhile (`cp` alone takes"
        f" {step('cp', 'min_s'):.1f} to {step('cp', 'max_s'):.1f} s). Then it is checked and compressed at the same"
        f" time: {step('integrity_check', 'cpu_s'):.1f} and {step('zstd -1 -T2', 'cpu_s'):.1f} s of processor time,"
        f" {step('zstd -1 -T2 beside integrity_check'):.1f} s together. Where nobody writes ours takes"
        f" {whole('ours, nobody writes'):.1f} s, the same work by plain tools {whole(by_hand):.1f} s, restic with a"
        f" checked copy {whole(restic):.1f} s. quick_check alone would take {step('quick_check'):.1f} s instead of"
        f" {step('integrity_check'):.1f} s, and lets an index pass that does not agree with its table."
    )


def _hot(results: Sequence[dict[str, Any]]) -> str:
    hot = Numbers(results, "hot", "rollback")
    api, limit = "Python backup API, one step", "cp + fsync"
    return (
        f"**A hot backup beside the backup API.** `cp` and fsync alone take {hot(limit) / hot(api):.2f} of the API's"
        f" time, ours {hot('ours') / hot(limit):.2f} of theirs. A writer waits {hot(api, 'writer_max_ms'):.0f} ms for"
        f" the API, and {hot('ours', 'writer_max_ms'):.0f} ms at most while ours is at work."
    )


def _hot_wal(results: Sequence[dict[str, Any]]) -> str:
    hot = Numbers(results, "hot", "wal")
    return (
        "**The p99 of a writer in WAL mode.** A commit waits for the disk, and so for what else is written to it. Ours"
        f" writes in pieces of 4 MiB, two at a time at most. Over {hot('ours'):.1f} s the p99 and the worst wait are"
        f" {hot.waits('ours')}; beside `cp` they are {hot.waits('cp + fsync')}, beside the backup API"
        f" {hot.waits('Python backup API, one step')}, beside VACUUM INTO, which spreads its writing over"
        f" {hot('VACUUM INTO'):.1f} s, {hot.waits('VACUUM INTO')}. The median goes from"
        f" {hot('no backup', 'writer_p50_ms'):.1f} to {hot('ours', 'writer_p50_ms'):.1f} ms."
    )


# By case and journal mode of the goals that they are about.
_REASONS: dict[tuple[str, str], Callable[[Sequence[dict[str, Any]]], str]] = {
    ("generation", "rollback"): _generation,
    ("hot", "rollback"): _hot,
    ("hot", "wal"): _hot_wal,
}


def text(results: Sequence[dict[str, Any]], unmet: Collection[tuple[str, str]]) -> str:
    """Markdown for the cases and journal modes of goals that are not met; empty without any.

    What lacks a number is left out: a part of the results alone explains nothing.
    """
    points = []
    for about, reason in _REASONS.items():
        if about in unmet:
            try:
                said = reason(results)
            except KeyError:
                continue
            points.append(textwrap.fill(said, _WIDTH, initial_indent="- ", subsequent_indent="  "))
    return "\n".join(["### Why some are not met", "", *points, "", ""]) if points else ""
