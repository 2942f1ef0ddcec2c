# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests of one host run one after the other, those of two hosts at the same time."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the group of its host, unless it says that it needs both."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            host = item.callspec.params.get("_testinfra_host", "") if hasattr(item, "callspec") else ""
            item.add_marker(pytest.mark.xdist_group(host or "ssh://bookworm"))
