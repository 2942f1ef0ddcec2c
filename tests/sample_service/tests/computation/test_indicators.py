# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indicators against plain Python, and their speed: `pytest tests/computation --benchmark-only`."""

from __future__ import annotations

import numpy as np
import pytest
from fluxhero.backend.computation.adaptive_ema import calculate_kama
from fluxhero.backend.computation.indicators import calculate_ema, calculate_rsi
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

Series = NDArray[np.float64]


@pytest.fixture(scope="module")
def prices() -> Series:
    return np.asarray(np.random.default_rng(42).standard_normal(10_000).cumsum() + 100.0)


def test_ema_follows_its_recurrence(prices: Series) -> None:
    ema = calculate_ema(prices, 20)
    expected = float(np.mean(prices[:20]))
    for price in prices[20:200]:
        expected = expected * (1 - 2 / 21) + float(price) * 2 / 21
    assert np.isnan(ema[:19]).all()
    assert ema[199] == pytest.approx(expected)


def test_rsi_follows_wilder(prices: Series) -> None:
    changes = np.diff(prices[:100])
    gain, loss = np.maximum(changes, 0), np.maximum(-changes, 0)
    average_gain, average_loss = float(gain[:14].mean()), float(loss[:14].mean())
    for i in range(14, 99):
        average_gain = (average_gain * 13 + float(gain[i])) / 14
        average_loss = (average_loss * 13 + float(loss[i])) / 14
    rsi = calculate_rsi(prices, 14)
    assert np.isnan(rsi[:14]).all()
    assert rsi[99] == pytest.approx(100 - 100 / (1 + average_gain / average_loss))


def test_kama_follows_kaufman(prices: Series) -> None:
    value = float(prices[9])
    for i in range(10, 100):
        window = prices[i - 10 : i + 1]
        efficiency = abs(window[-1] - window[0]) / np.abs(np.diff(window)).sum()
        value += (efficiency * (2 / 3 - 2 / 31) + 2 / 31) ** 2 * (float(prices[i]) - value)
    kama = calculate_kama(prices, 10, 2, 30)
    assert np.isnan(kama[:10]).all()
    assert kama[99] == pytest.approx(value)


def test_flat_prices_give_flat_indicators() -> None:
    flat = np.full(50, 7.0)
    assert calculate_ema(flat, 20)[-1] == 7.0
    assert calculate_rsi(flat, 14)[-1] == 50.0
    assert calculate_kama(flat, 10, 2, 30)[-1] == 7.0


def test_rising_prices_have_the_highest_index() -> None:
    assert calculate_rsi(np.arange(50.0), 14)[-1] == 100.0
    assert calculate_rsi(-np.arange(50.0), 14)[-1] == 0.0


@pytest.mark.parametrize("length", [0, 1, 9])
def test_too_few_prices_give_no_value(length: int) -> None:
    short = np.ones(length)
    for series in (calculate_ema(short, 20), calculate_rsi(short, 14), calculate_kama(short, 10, 2, 30)):
        assert series.shape == (length,)
        assert np.isnan(series).all()


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(calculate_ema, (20,)), (calculate_rsi, (14,)), (calculate_kama, (10, 2, 30))],
    ids=["ema", "rsi", "kama"],
)
def test_speed(benchmark: BenchmarkFixture, prices: Series, function: object, arguments: tuple[int, ...]) -> None:
    assert callable(function)
    function(prices, *arguments)  # compilation is not what is measured
    result = benchmark(function, prices, *arguments)
    assert np.isfinite(result[-1])
