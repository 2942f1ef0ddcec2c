# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replay of an adaptive-average crossover over historical prices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..computation.adaptive_ema import calculate_kama
from ..computation.indicators import calculate_ema


@dataclass(frozen=True)
class BacktestResult:
    """Outcome of one replay: number of closed trades, profit in currency, greatest fall from a peak as a fraction."""

    trades: int
    profit: float
    max_drawdown: float


def run_crossover(
    prices: NDArray[np.float64], *, slow_period: int = 30, capital: float = 10_000.0, fee_ratio: float = 0.0005
) -> BacktestResult:
    """Hold the asset while KAMA is above the EMA, else cash; a signal is acted on at the next price.

    Raises ValueError when there are too few prices to produce a single signal.
    """
    if prices.shape[0] <= slow_period + 1:
        raise ValueError(f"{prices.shape[0]} prices are too few for a period of {slow_period}")
    kama = calculate_kama(prices, 10, 2, 30)
    ema = calculate_ema(prices, slow_period)
    cash, shares, trades = capital, 0.0, 0
    peak, drawdown = capital, 0.0
    for i in range(slow_period, prices.shape[0]):
        price = float(prices[i])
        wanted = bool(kama[i - 1] > ema[i - 1])
        if wanted and shares == 0.0:
            shares, cash = cash * (1.0 - fee_ratio) / price, 0.0
        elif not wanted and shares > 0.0:
            cash, shares, trades = shares * price * (1.0 - fee_ratio), 0.0, trades + 1
        equity = cash + shares * price
        peak = max(peak, equity)
        drawdown = max(drawdown, 1.0 - equity / peak)
    return BacktestResult(trades, cash + shares * float(prices[-1]) - capital, drawdown)
