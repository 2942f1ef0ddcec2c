# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exponential moving average and relative strength index."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Series = NDArray[np.float64]


@njit
def calculate_ema(prices: Series, period: int) -> Series:
    """Return the exponential moving average, seeded with the simple mean of the first `period` prices.

    The first `period - 1` values are NaN, and so is everything when there are fewer prices than that.
    """
    out = np.full(prices.shape[0], np.nan)
    if period < 1 or prices.shape[0] < period:
        return out
    alpha = 2.0 / (period + 1.0)
    value = prices[:period].mean()
    out[period - 1] = value
    for i in range(period, prices.shape[0]):
        value += alpha * (prices[i] - value)
        out[i] = value
    return out


@njit
def calculate_rsi(prices: Series, period: int = 14) -> Series:
    """Return the relative strength index (0 to 100) with Wilder's smoothing; the first `period` values are NaN."""
    out = np.full(prices.shape[0], np.nan)
    if period < 1 or prices.shape[0] <= period:
        return out
    gain = 0.0
    loss = 0.0
    for i in range(1, period + 1):
        change = prices[i] - prices[i - 1]
        gain += max(change, 0.0)
        loss += max(-change, 0.0)
    gain /= period
    loss /= period
    out[period] = _rsi(gain, loss)
    for i in range(period + 1, prices.shape[0]):
        change = prices[i] - prices[i - 1]
        gain = (gain * (period - 1) + max(change, 0.0)) / period
        loss = (loss * (period - 1) + max(-change, 0.0)) / period
        out[i] = _rsi(gain, loss)
    return out


@njit
def _rsi(gain: float, loss: float) -> float:
    if gain + loss == 0.0:
        return 50.0
    return 100.0 * gain / (gain + loss)
