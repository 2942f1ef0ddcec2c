# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kaufman's adaptive moving average."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Series = NDArray[np.float64]


@njit
def calculate_kama(prices: Series, er_period: int = 10, fast_period: int = 2, slow_period: int = 30) -> Series:
    """Return the adaptive average: fast in a trend, slow in noise.

    `er_period` is the window of the efficiency ratio; the first `er_period` values are NaN, and the
    average starts from the price just before them.
    """
    out = np.full(prices.shape[0], np.nan)
    if er_period < 1 or prices.shape[0] <= er_period:
        return out
    fast = 2.0 / (fast_period + 1.0)
    slow = 2.0 / (slow_period + 1.0)
    volatility = 0.0
    for i in range(1, er_period + 1):
        volatility += abs(prices[i] - prices[i - 1])
    value = prices[er_period - 1]
    for i in range(er_period, prices.shape[0]):
        if i > er_period:
            volatility += abs(prices[i] - prices[i - 1]) - abs(prices[i - er_period] - prices[i - er_period - 1])
        direction = abs(prices[i] - prices[i - er_period])
        # The running sum may leave a rounding residue where the window is flat.
        efficiency = min(1.0, direction / volatility) if volatility > 1e-12 else 0.0
        smoothing = (efficiency * (fast - slow) + slow) ** 2
        value += smoothing * (prices[i] - value)
        out[i] = value
    return out
