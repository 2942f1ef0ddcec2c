# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTML report: what stands in it, how it is built, and that no text of a log becomes a part of the page."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable

import pytest
from fluxmaint.logs.report import page, style
from fluxmaint.logs.summary import Document
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.html_tree import Element, parse
from tests.support.log_report_example import empty, example, quiet, with_texts

WEEKS: list[Callable[[], Document]] = [example, empty, quiet]
EVERY_WEEK = pytest.mark.parametrize("week", WEEKS, ids=lambda week: week.__name__)
HOSTILE = [
    "<script>alert(1)</script>",
    "</style></svg></title></table></html><img src=x onerror=alert(1)>",
    "\" onload=alert(1) x=\"' autofocus onfocus=alert(2) '",
    "<!-- ]]> --!> <![CDATA[ <?php &lt;b&gt; &#60; &amp",
    "\x00\x1b[2J\x1b]0;title\x07\r\n\x85\u2028\u2029\x7f",
    "\u202egnp.exe\u2066\u200f\u061c \ufeff\u200b\ue000\U000e0041",
    "a" + "\u0301\u0489" * 300,
    "\ud800 half a pair",
    "A" * 10_000,
    "}</style><style>@import url(http://192.0.2.1/x)",
]


def rendered(document: Document) -> Element:
    return parse(page.render(document))


@functools.cache
def harmless(week: Callable[[], Document]) -> list[tuple[str, tuple[str, ...]]]:
    """How the page of a week is built when every text in it is an x."""
    return rendered(with_texts(week(), lambda old: "x")).skeleton()


def section(root: Element, anchor: str) -> Element:
    return root.one("section", id=anchor)


def rows(part: Element) -> list[list[str]]:
    """The cells of the only table in a part."""
    cells = part.one("tbody").all("tr")
    return [[cell.text for cell in row.children if isinstance(cell, Element)] for row in cells]


@EVERY_WEEK
def test_the_page_is_built_as_a_document(week: Callable[[], Document]) -> None:
    root = rendered(week())
    assert root.one("html").attributes["lang"] == "en"
    assert [element.tag for element in root.one("body").children if isinstance(element, Element)] == [
        "header",
        "main",
        "footer",
    ]
    levels = [int(element.tag[1]) for element in root.walk() if re.fullmatch(r"h[1-6]", element.tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))
    ids = [element.attributes["id"] for element in root.walk() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for part in root.all("section"):
        assert root.one(id=part.attributes["aria-labelledby"]).tag == "h2"
    for table in root.all("table"):
        assert table.one("caption").text
        assert {cell.attributes.get("scope") for cell in table.one("thead").all("th")} == {"col"}
        assert all(row.one("th").attributes["scope"] == "row" for row in table.one("tbody").all("tr"))
    for drawing in root.all("svg", role="img"):
        assert drawing.all("title")[0].text


@EVERY_WEEK
def test_the_page_runs_nothing_and_asks_nobody(week: Callable[[], Document]) -> None:
    text = page.render(week())
    root = parse(text)
    metas = root.one("head").all("meta")
    assert metas[1].attributes["http-equiv"] == "Content-Security-Policy"
    policy = metas[1].attributes["content"].split("; ")
    assert policy[:2] == ["default-src 'none'", "style-src 'unsafe-inline'"]
    for element in root.walk():
        assert element.tag not in {
            "script",
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "form",
            "base",
            "audio",
            "video",
        }
        assert not [name for name in element.attributes if name.startswith("on") or name in {"src", "style", "srcset"}]
        assert element.attributes.get("href", "#").startswith("#")
    assert re.findall(r"url\(([^)]*)\)|@import", style.STYLE) == ["#hatch"]
    ids = {element.attributes.get("id") for element in root.walk()}
    assert {link.attributes["href"].lstrip("#") for link in root.all("a")} <= ids


def test_numbers_come_with_their_change_in_sign_and_words() -> None:
    document = example()
    tiles = {tile.one("dt").text: tile for tile in section(rendered(document), "numbers").all("dl")[0].all("div")}
    assert tiles["Errors"].one("dd", class_="value").text == "136"
    assert tiles["Errors"].one("dd", class_="change").text == "+62, 84 % more than the week before"
    assert tiles["Failed trades"].one("dd", class_="change").text == "\u22128, 26 % fewer than the week before"
    assert tiles["Tracebacks"].one("dd", class_="change").text == "+47, none the week before"
    assert tiles["All events"].one("dd", class_="value").text == f"{document['totals']['events']:,}"
    assert len(tiles) == 8


def test_tables_hold_what_the_document_says() -> None:
    document = example()
    root = rendered(document)
    assert [row[:3] for row in rows(section(root, "types"))] == [
        [item["type"], str(item["count"]), str(item["previous"])] for item in document["errors_by_type"]
    ]
    routes = rows(section(root, "routes"))
    assert routes[0][:4] == ["GET /api/trades", "4,251", "41 (1.0 %)", "4,210 \u00d7 200, 41 \u00d7 500"]
    assert routes[0][4:7] == ["31 ms", "482 ms", "1.3 s"]
    assert sorted(row[0] for row in routes) == sorted(
        f"{item['method']} {item['route']}" for item in document["routes"]
    )
    assert [row[:1] + row[3:] for row in rows(section(root, "restarts"))] == [
        ["Wed 18 Nov 18:04:41", "with the deploy"],
        ["Fri 20 Nov 10:01:12", "not explained by a deploy"],
    ]
    assert [row[:3] for row in rows(section(root, "sources"))] == [
        ["fluxhero.log", " has unparsed lines", "101,470"],
        ["access.log", " has gaps", "36,301"],
        ["fluxhero-frontend.service", " no data", "0"],
    ]
    days = [document["hourly"][begin : begin + 24] for begin in range(0, 168, 24)]
    assert [row[1:4] for row in rows(section(root, "hours"))] == [
        [f"{sum(hour[key] for hour in day):,}" for key in ("errors", "warnings", "events")] for day in days
    ]
    assert [row[4] for row in rows(section(root, "hours"))] == ["0", "0", "0", "0", "3", "0", "0"]


def test_messages_are_the_gravest_with_samples_and_release() -> None:
    document = example()
    root = rendered(document)
    top = section(root, "top").one("ol").all("li")
    assert len(top) == 10
    for item, shown in zip(document["messages"], top):
        assert shown.all("bdi", class_="log")[0].text == item["text"]
        assert shown.all("span", class_="badge")[0].text == item["level"]
        assert shown.one("b").text == f"{item['count']:,}"
        assert bool(shown.all("span", class_="new")) == item["new_since_deploy"]
        assert [sample.text for sample in shown.all("pre")] == item["samples"]
        assert item["release"] in shown.one("p", class_="when").text
    new = section(root, "new").one("ol").all("li")
    texts = [shown.all("bdi", class_="log")[0].text for shown in new]
    assert texts == [item["text"] for item in document["messages"] if item["new_since_deploy"]]
    warned = [row[0] for row in rows(section(root, "warnings"))]
    assert warned == [item["text"] for item in document["messages"] if item["level"] == "WARNING"]


def test_what_colours_say_is_said_in_words_and_shapes() -> None:
    root = rendered(example())
    kinds = section(root, "verdict").one("ul").all("span", class_="kind")
    assert [kind.text for kind in kinds[:3]] == ["Not known", "Not known", "Look"]
    shapes: dict[str, set[str]] = {}
    for kind in kinds:
        shapes.setdefault(kind.text, set()).add(kind.one("path").attributes["d"])
    assert len(shapes) == 3 and len(set.union(*shapes.values())) == 3
    chart = section(root, "hours").one("svg", class_="chart")
    assert [text.text for text in chart.all("text", class_="lane")] == ["Errors", "Warnings", "All events"]
    assert {tuple(mark.classes) for mark in chart.all("path", class_="restart")} == {
        ("restart",),
        ("restart", "planned"),
    }
    assert chart.one("rect", class_="silent").attributes["width"] == f"{300 / 168:.3f}%"


def test_no_data_is_never_no_errors() -> None:
    root = rendered(empty())
    assert root.one("h2", id="verdict-h").text == "No data: nothing is known about this week"
    first = section(root, "verdict").one("ul").all("li")[0]
    assert "fluxhero-frontend.service has no event at all" in first.text
    for anchor in ("numbers", "types", "top", "warnings", "routes", "restarts"):
        assert section(root, anchor).one("p", class_="none").text.startswith("No data"), anchor
    assert "Not known" in section(root, "new").text
    assert [text.text for text in root.all("text", class_="peak")] == ["no data"] * 3
    assert not re.search(r"[Nn]o (error|warning|start)", root.one("main").text)


def test_nothing_at_all_was_read() -> None:
    document = empty()
    document["sources"], document["hourly"] = [], []
    root = rendered(document)
    assert "No source of logs was read." in section(root, "verdict").text
    assert section(root, "sources").one("p", class_="none").text == "No data: no source of logs was read."
    assert not section(root, "hours").all("svg")


def test_a_quiet_week_says_so() -> None:
    root = rendered(quiet())
    assert root.one("h2", id="verdict-h").text == "Nothing needs a look this week"
    assert not section(root, "verdict").all("li")
    for anchor in ("types", "new", "top", "warnings", "restarts"):
        assert section(root, anchor).one("p", class_="none").text.startswith("No "), anchor


@pytest.mark.parametrize("field", ["p50_ms", "p95_ms", "p99_ms"])
def test_a_route_without_latencies_is_no_fast_route(field: str) -> None:
    document = example()
    document["routes"] = document["routes"][:1]
    document["routes"][0][field] = None  # type: ignore[literal-required]
    part = section(rendered(document), "routes")
    assert "no data" in rows(part)[0]
    assert not part.all("svg")


def test_long_lists_say_what_they_leave_out() -> None:
    document = example()
    document["routes"] = [{**document["routes"][0], "route": f"/{number}"} for number in range(60)]
    document["errors_by_type"] = [{"type": f"T{number}", "count": 1, "previous": 0} for number in range(21)]
    root = rendered(document)
    assert len(rows(section(root, "routes"))) == 40
    assert section(root, "routes").one("p", class_="none").text == "20 routes more in the JSON report."
    assert section(root, "types").one("p", class_="none").text == "1 type more in the JSON report."


@EVERY_WEEK
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_change_nothing_but_texts(week: Callable[[], Document], text: str) -> None:
    assert rendered(with_texts(week(), lambda old: text)).skeleton() == harmless(week)


@given(st.text(st.characters(), min_size=1, max_size=60) | st.lists(st.sampled_from(HOSTILE), min_size=1).map("".join))
@settings(max_examples=40, deadline=None)
def test_no_text_whatever_becomes_a_part_of_the_page(text: str) -> None:
    document = with_texts(example(), lambda old: text)
    shown = page.render(document)
    assert parse(shown).skeleton() == harmless(example)
    unseen = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert {character for character in shown if unicodedata.category(character) in unseen} <= {"\n", "\t"}
    shown.encode()


def test_a_text_of_ten_thousand_characters_is_cut_and_says_so() -> None:
    root = rendered(with_texts(example(), lambda old: "A" * 10_000))
    item = section(root, "top").one("ol").all("li")[0]
    assert item.all("bdi", class_="log")[0].text == "A" * 400 + "\u2026 (9,600 more characters)"
    assert item.one("pre").text == "A" * 6000 + "\u2026 (4,000 more characters)"
    assert len(page.render(with_texts(example(), lambda old: "A" * 10_000))) < 400_000
