# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign texts made visible, and the log report as plain text."""

from __future__ import annotations

import unicodedata

import pytest
from fluxmaint.logs.report import text
from fluxmaint.logs.report.markup import Markup, foreign_lines, join, tag, visible
from hypothesis import given
from hypothesis import strategies as st

from tests.support.log_report_example import empty, example, quiet, with_texts

UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("plain text, <b> & 'quotes'", "plain text, <b> & 'quotes'"),
        ("Übergröße 株式 ñ", "Übergröße 株式 ñ"),
        ("\x00\x1b[2J\r\n\t\x7f\x85", "\\x00\\x1b[2J\\x0d\\x0a\\x09\\x7f\\x85"),
        ("a\u202eb\u2066c\u200bd\u2028e\ufefff", "a\\u202eb\\u2066c\\u200bd\\u2028e\\ufefff"),
        ("\ud800 \U000e0041", "\\ud800 \\U000e0041"),
        ("e\u0301e\u0301\u0302\u0303", "e\u0301e\u0301\u0302\\u0303"),
        ("\u0301", "\\u0301"),
        ("x" * 401, "x" * 400 + "\u2026 (1 more characters)"),
    ],
)
def test_characters_that_are_not_seen_become_visible(given_text: str, shown: str) -> None:
    assert visible(given_text) == shown


@given(st.text(st.characters(), max_size=500))
def test_nothing_unseen_is_left(given_text: str) -> None:
    shown = visible(given_text)
    assert not [character for character in shown if unicodedata.category(character) in UNSEEN]
    shown.encode()
    assert visible(shown, len(shown)) == shown


def test_samples_keep_their_lines() -> None:
    assert foreign_lines("a\n\tb\r\x1b") == "<pre><bdi>a\n\tb\\x0d\\x1b</bdi></pre>"


def test_what_is_not_markup_is_escaped_wherever_it_is_put() -> None:
    assert tag("p", "<i>", Markup("<b>x</b>"), class_='"><script>') == (
        '<p class="&quot;&gt;&lt;script&gt;">&lt;i&gt;<b>x</b></p>'
    )
    assert join("a&b", tag("b", "'")) == "a&amp;b<b>&#x27;</b>"
    assert tag("a", "x", href=None, data_label="y") == '<a data-label="y">x</a>'


def test_the_text_says_what_the_page_says() -> None:
    shown = text.render(example())
    for part in (
        "6 THINGS NEED A LOOK THIS WEEK, AND NOT EVERYTHING IS KNOWN",
        "  NOT KNOWN: fluxhero-frontend.service has no event at all: that is no data, not good health.",
        "Errors         136      +62, 84 % more than the week before",
        "fluxhero-frontend.service  NO DATA   0",
        "gap in access.log: access.log.2: removed before it was read (after Fri 20 Nov 07:00 and before Fri 20 Nov",
        "47   0       +47, none before  IndexError",
        "      47  ERROR, NEW: Order routing failed for order <n>",
        "4,251     41 (1.0 %)           31 ms   482 ms  1.3 s   GET /api/trades",
        "Fri 20 Nov 10:01:12  not explained",
    ):
        assert part in shown
    assert max(map(len, shown.splitlines())) <= 140


def test_the_text_of_a_week_without_data_claims_no_health() -> None:
    shown = text.render(empty())
    assert "NO DATA: NOTHING IS KNOWN ABOUT THIS WEEK" in shown
    assert "No error" not in shown and "No warning" not in shown
    assert shown.count("No data") == 6
    assert "NOTHING NEEDS A LOOK THIS WEEK" in text.render(quiet())


@given(st.text(st.characters(), min_size=1, max_size=300))
def test_no_text_steers_a_terminal(given_text: str) -> None:
    shown = text.render(with_texts(quiet(), lambda old: given_text))
    assert {character for character in shown if unicodedata.category(character) in UNSEEN} <= {"\n"}
