# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests of one host run one after the other, those of two hosts at the same time, each in a process of its own."""

from __future__ import annotations

import re
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# Their tests look at both hosts: one process runs them all.
BOTH = ("test_backup_verify.py",)


class ByHost(LoadScopeScheduling):
    """Gives each process the tests of one host. A test without a host in its name is about bookworm."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.partition("::")[0].endswith(BOTH):
            return "both"
        found = re.search(r"\[ssh://([a-z]+)", nodeid)
        return found[1] if found else "bookworm"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, on every other host, what one host shows; the command line has named the hosts for all tests."""
    elsewhere = [item for item in items if not _belongs(item)]
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in elsewhere]


def _belongs(item: pytest.Item) -> bool:
    only = item.get_closest_marker("only_on")
    return only is None or f"[ssh://{only.args[0]}" in item.name


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByHost:
    """What pytest-xdist asks for how to share the tests out."""
    return ByHost(config, log)
