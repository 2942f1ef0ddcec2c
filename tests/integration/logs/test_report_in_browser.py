# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTML report in a real Chromium: nothing runs, nothing is fetched, nothing is cut off, everything can be read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.logs.report import files
from fluxmaint.logs.summary import Document

from tests.support import browser as browsers
from tests.support.browser import Browser, Page, png_pixels
from tests.support.log_report_example import empty, example, quiet, with_texts

pytestmark = [
    pytest.mark.skipif(browsers.executable() is None, reason="chromium is not installed"),
]

WIDE, NARROW = 1280, 380
# What a hostile line would have to bring about: a script that runs, a picture that is fetched, a page that is broken.
HOSTILE = (
    "</pre></bdi></svg></table></section><script>console.error('ran')</script>"
    "<img src='http://192.0.2.1/x.png' onerror=\"console.error('ran')\"><svg onload=\"console.error('ran')\">"
    "<style>*{display:none}</style>\u202e\x1b]0;x\x07\ud800" + "a\u0301\u0301\u0301" * 50 + "W" * 10_000
)

# Elements whose text has less than the contrast that WCAG 2 AA wants of small letters.
PALE = """
(() => {
  const numbers = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = numbers(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const pale = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, style = getComputedStyle(element);
    if (!walker.currentNode.data.trim() || element.closest('title, desc')) continue;
    const front = numbers(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(front), light(behind(element))].sort((x, y) => y - x);
    seen += 1;
    if ((a + 0.05) / (b + 0.05) < 4.5) pale.push(`${element.tagName}.${element.className}: ${walker.currentNode.data}`);
  }
  return [seen, pale];
})()
"""
# Elements that stick out of the window without a part of the page that scrolls around them.
WIDER = """
[...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
  && !e.closest('.scroll, svg')).map(e => `${e.tagName}.${e.className}`)
"""
OPEN_ALL = "document.querySelectorAll('details').forEach(details => details.open = true)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    binary = browsers.executable()
    assert binary is not None
    with browsers.launched(binary) as started:
        yield started


def written(directory: Path, document: Document) -> str:
    """The address of a report in a file."""
    return files.write(document, directory)["html"].as_uri()


def texts(page: Page, selector: str) -> list[str]:
    found: list[str] = page.evaluate(
        f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent.trim())"
    )
    return found


def fits(page: Page) -> bool:
    """Whether the page needs no scrolling to the side."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def test_the_page_shows_what_the_json_says(browser: Browser, tmp_path: Path) -> None:
    address = written(tmp_path, example())
    document: dict[str, Any] = json.loads((tmp_path / "latest.json").read_bytes())
    with browser.page(address) as page:
        assert page.problems == []
        assert page.requests == [address]
        assert texts(page, "h1") == ["Week 47 of 2026"]
        assert texts(page, ".tiles dt")[0] == "Errors"
        assert texts(page, ".tiles .value")[0] == str(document["totals"]["errors"])
        assert texts(page, "#types tbody th") == [item["type"] for item in document["errors_by_type"]]
        assert texts(page, "#top .log") == [item["text"] for item in document["messages"][:10]]
        assert texts(page, "#top .much b") == [f"{item['count']:,}" for item in document["messages"][:10]]
        assert sorted(texts(page, "#routes tbody th")) == sorted(
            f"{r['method']} {r['route']}" for r in document["routes"]
        )
        bars = page.evaluate("document.querySelectorAll('#hours .chart .bar.bad').length")
        assert bars == sum(hour["errors"] > 0 for hour in document["hourly"])
        # A closed sample takes no room; a click opens it, without a script.
        sample = "document.querySelector('#top pre').checkVisibility()"
        assert page.evaluate(sample) is False
        page.evaluate("document.querySelector('#top summary').click()")
        assert page.evaluate(sample) is True


def test_a_page_that_is_not_escaped_would_be_noticed(browser: Browser, tmp_path: Path) -> None:
    """The test's own teeth: without the policy and the escaping, this is what would be seen."""
    broken = tmp_path / "broken.html"
    broken.write_text(f"<!doctype html><p>{HOSTILE}", encoding="utf-8", errors="replace")
    with browser.page(broken.as_uri()) as page:
        assert any("ran" in problem for problem in page.problems)
        assert any("192.0.2.1" in request for request in page.requests)
    broken.write_text(f"<!doctype html><p>{'W' * 10_000}", encoding="utf-8")
    with browser.page(broken.as_uri()) as page:
        assert not fits(page)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_hostile_log_neither_runs_nor_breaks_the_page(browser: Browser, tmp_path: Path, width: int) -> None:
    address = written(tmp_path, with_texts(example(), lambda old: HOSTILE))
    with browser.page(address, width=width) as page:
        page.evaluate(OPEN_ALL)
        assert page.problems == []
        assert page.requests == [address]
        assert page.evaluate("document.scripts.length + document.images.length") == 0
        assert page.evaluate("document.querySelectorAll('main > section').length") == 11
        assert page.evaluate("document.querySelector('#restarts tbody').checkVisibility()")
        assert fits(page)
        assert page.evaluate(WIDER) == []
        assert texts(page, "#top .log")[0].startswith("</pre></bdi></svg>")


@pytest.mark.parametrize("week", [example, empty, quiet], ids=lambda week: week.__name__)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_can_be_read_by_day_and_by_night_on_any_width(
    browser: Browser, tmp_path: Path, week: Any, dark: bool
) -> None:
    with browser.page(written(tmp_path, week()), dark=dark) as page:
        page.evaluate(OPEN_ALL)
        for width in (WIDE, 760, NARROW):
            page.size(width, 900)
            assert fits(page), width
            assert page.evaluate(WIDER) == [], width
            seen, pale = page.evaluate(PALE)
            assert seen > 30
            assert pale == []
        pixels = png_pixels(page.screenshot(scale=0.25))
        colours = Counter(pixels)
        assert len(colours) > 40
        assert colours.most_common(1)[0][1] < 0.98 * len(pixels)
        brightness = sum(map(sum, pixels)) / len(pixels) / 3
        assert brightness < 90 if dark else brightness > 190


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler-utils is not installed")
def test_it_prints_whole_with_its_samples_opened(browser: Browser, tmp_path: Path) -> None:
    document = example()
    with browser.page(written(tmp_path, document), dark=True) as page:
        page.media("print", dark=True)
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(23, 32, 42)"
        assert page.evaluate("getComputedStyle(document.querySelector('tbody tr')).breakInside") == "avoid"
        page.media(dark=True)
        data = page.pdf()
    (tmp_path / "report.pdf").write_bytes(data)
    command = ["pdftotext", "-layout", str(tmp_path / "report.pdf"), "-"]
    paper = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    pages = paper.split("\f")[:-1]
    assert 2 <= len(pages) <= 8
    assert all(f"{number} of {len(pages)}" in text for number, text in enumerate(pages, 1))
    squeezed = re.sub(r"\s+", "", paper)
    for wanted in (
        "Week 47 of 2026",
        "6 things need a look this week, and not everything is known",
        *(item["text"] for item in document["messages"]),
        *(item["type"] for item in document["errors_by_type"]),
        "IndexError: list index out of range",
        "malloc(): corrupted top size",
    ):
        assert re.sub(r"\s+", "", wanted) in squeezed, wanted
    # A row that is cut would have its cells on two pages.
    for route in document["routes"]:
        (here,) = [text for text in pages if re.search(rf"{re.escape(route['route'])}\s", text)]
        assert f" {route['requests']:,} " in here, route["route"]
