# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import numpy as np
import pytest
from fluxhero.backend.backtesting.engine import run_crossover


def test_same_prices_give_the_same_result() -> None:
    prices = np.random.default_rng(7).standard_normal(2_000).cumsum() + 500.0
    first, second = run_crossover(prices), run_crossover(prices)
    assert first == second
    assert first.trades > 5
    assert 0.0 <= first.max_drawdown < 1.0


def test_rise_then_fall_is_sold_with_a_profit() -> None:
    prices = np.concatenate([np.linspace(100, 200, 300), np.linspace(200, 100, 300)])
    result = run_crossover(prices, fee_ratio=0.0)
    assert result.trades == 1
    assert 5_000 < result.profit < 10_000


def test_flat_market_costs_nothing() -> None:
    assert run_crossover(np.full(100, 50.0)).profit == 0.0


def test_fees_reduce_the_profit() -> None:
    prices = np.random.default_rng(7).standard_normal(2_000).cumsum() + 500.0
    assert run_crossover(prices, fee_ratio=0.001).profit < run_crossover(prices, fee_ratio=0.0).profit


def test_too_few_prices_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        run_crossover(np.ones(31))
