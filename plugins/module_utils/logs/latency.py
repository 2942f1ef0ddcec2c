# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A histogram of durations that can be added to others, with percentiles within a stated relative error."""

from __future__ import annotations

import math
from collections.abc import Mapping

LATENCY_ERROR = 0.02
_BASE = (1 + LATENCY_ERROR) / (1 - LATENCY_ERROR)
_LOG_BASE = math.log(_BASE)
_LEAST_MS = 0.001
_MOST_MS = 1e8


def bucket(milliseconds: float) -> int:
    """The bucket of a duration: those of one bucket differ by less than twice LATENCY_ERROR."""
    return math.ceil(math.log(min(max(milliseconds, _LEAST_MS), _MOST_MS)) / _LOG_BASE)


def percentile(buckets: Mapping[int, int], fraction: float) -> float | None:
    """The duration in milliseconds that at least `fraction` of the durations do not exceed; None without any."""
    total = sum(buckets.values())
    if not total:
        return None
    wanted = max(1, math.ceil(fraction * total))
    for number in sorted(buckets):
        wanted -= buckets[number]
        if wanted <= 0:
            break
    return float(f"{2 * _BASE**number / (_BASE + 1):.4g}")
