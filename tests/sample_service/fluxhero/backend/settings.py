# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings from `.env` and the environment; the environment wins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

CODE_ROOT = Path(__file__).resolve().parents[2]
PROFILES = ("guide", "upstream")


@dataclass(frozen=True)
class Settings:
    """What one process needs to know. `trade_rate` is in trades per second, 0 writes none."""

    profile: str
    root: Path
    trade_rate: float
    trading_mode: str
    cache_refresh_s: float
    api_token: str
    log_level: str

    @property
    def data_dir(self) -> Path:
        return self.root / "data"

    @property
    def cache_dir(self) -> Path:
        return self.data_dir / "cache"

    @property
    def halt_file(self) -> Path:
        """The halt latch: while this file exists, no trade is written."""
        return self.data_dir / "HALT"

    @property
    def database(self) -> Path:
        return self.data_dir / ("trades.db" if self.profile == "guide" else "system.db")

    @property
    def log_file(self) -> Path | None:
        """The log file the process itself writes; None where standard output is captured instead."""
        return self.root / "logs" / "fluxhero.log" if self.profile == "guide" else None


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; raise ValueError naming the variable when one cannot be used."""
    process = dict(os.environ if environ is None else environ)
    # Upstream finds its data relative to its code, whatever the environment says.
    root = Path(process.get("FLUXHERO_ROOT") or CODE_ROOT)
    values = {key: value for key, value in dotenv_values(root / ".env").items() if value is not None}
    values.update(process)
    profile = values.get("FLUXHERO_PROFILE", "guide")
    if profile not in PROFILES:
        raise ValueError(f"FLUXHERO_PROFILE is {profile!r}, expected one of {', '.join(PROFILES)}")
    mode = values.get("TRADING_MODE", "live")
    if mode not in ("live", "paper"):
        raise ValueError(f"TRADING_MODE is {mode!r}, expected live or paper")
    return Settings(
        profile=profile,
        root=root if profile == "guide" else CODE_ROOT,
        trade_rate=_number(values, "FLUXHERO_TRADE_RATE", 1.0, 0.0),
        trading_mode=mode,
        cache_refresh_s=_number(values, "FLUXHERO_CACHE_REFRESH_S", 30.0, 0.05),
        api_token=values.get("API_TOKEN", ""),
        log_level=values.get("LOG_LEVEL", "INFO").upper(),
    )


def _number(values: Mapping[str, str], name: str, default: float, minimum: float) -> float:
    text = values.get(name, "")
    try:
        number = float(text) if text else default
    except ValueError:
        raise ValueError(f"{name} is {text!r}, expected a number") from None
    if not minimum <= number < float("inf"):
        raise ValueError(f"{name} is {text!r}, expected at least {minimum}")
    return number
