# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Durations, sizes and tables as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def duration_text(seconds: float) -> str:
    """Such as `3 d`, `26 h`, `4 min` or `7 s`: whole units, the largest that gives at least two."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def age_text(seconds: float, word: str = "") -> str:
    """A duration with the word `old` or `ago` behind it; `in the future` where clocks differ."""
    return "in the future" if seconds < 0 else f"{duration_text(seconds)} {word}".rstrip()


def size_text(count: float) -> str:
    """Such as `512 B`, `1.4 MB` or `2.4 GB`: steps of 1000."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """One line for each row, with the columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
