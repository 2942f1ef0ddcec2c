# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from fluxhero.backend.settings import CODE_ROOT, load_settings


def test_env_file_is_read_and_the_environment_wins(root: Path) -> None:
    (root / ".env").write_text("FLUXHERO_TRADE_RATE=7\nAPI_TOKEN='it\\'s a secret'\n")
    assert load_settings({"FLUXHERO_ROOT": str(root)}).trade_rate == 7
    settings = load_settings({"FLUXHERO_ROOT": str(root), "FLUXHERO_TRADE_RATE": "2.5"})
    assert (settings.trade_rate, settings.api_token) == (2.5, "it's a secret")


def test_profiles_keep_their_databases_in_different_places(root: Path) -> None:
    guide = load_settings({"FLUXHERO_ROOT": str(root)})
    upstream = load_settings({"FLUXHERO_ROOT": str(root), "FLUXHERO_PROFILE": "upstream"})
    assert guide.database == root / "data/trades.db"
    assert upstream.database == CODE_ROOT / "data/system.db"
    assert (guide.log_file, upstream.log_file) == (root / "logs/fluxhero.log", None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLUXHERO_PROFILE", "other"),
        ("TRADING_MODE", "dream"),
        ("FLUXHERO_TRADE_RATE", "-1"),
        ("FLUXHERO_TRADE_RATE", "fast"),
        ("FLUXHERO_TRADE_RATE", "nan"),
        ("FLUXHERO_TRADE_RATE", "inf"),
    ],
)
def test_unusable_setting_is_named(root: Path, name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        load_settings({"FLUXHERO_ROOT": str(root), name: value})
