# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data document of a log report is what its types say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.log_document import mistakes

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "logs" / "report-format-1.json"


def fixture() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(FIXTURE.read_text(encoding="utf-8"))
    return document


def test_the_fixture_is_a_document() -> None:
    assert mistakes(fixture()) == []


def test_the_fixture_is_consistent() -> None:
    document = fixture()
    assert sum(hour["errors"] for hour in document["hourly"]) == document["totals"]["errors"]
    assert sum(source["events"] for source in document["sources"]) == document["totals"]["events"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"release": 3}, "document.release"),
        ({"extra": 1}, "document.extra is not known"),
        ({"hourly": [{"hour": "x", "events": True, "errors": 1, "warnings": 1}]}, "document.hourly[0].events"),
        ({"routes": [{}]}, "document.routes[0].method is missing"),
    ],
)
def test_a_document_that_differs_is_noticed(change: dict[str, Any], said: str) -> None:
    assert any(text.startswith(said) for text in mistakes({**fixture(), **change}))
