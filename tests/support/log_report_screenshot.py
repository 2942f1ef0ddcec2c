# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make screenshot`: docs/log-report.png, what a browser shows of the example's log report."""

from __future__ import annotations

import importlib
import sys
import tempfile
import zlib
from pathlib import Path

from tests.support import browser as browsers

importlib.import_module("tests.conftest")  # registers the engine as `fluxmaint`

DESTINATION = Path(__file__).resolve().parents[2] / "docs" / "log-report.png"
WIDTH = 1200
# Down to the end of this part.
BOTTOM = "document.getElementById('hours').getBoundingClientRect().bottom + 18"


def smaller(png: bytes) -> bytes:
    """The same picture, packed as tightly as possible: browsers write fast rather than small."""
    parts, packed, at = [png[:8]], b"", 8
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += length + 12
        if kind == b"IDAT":
            packed += data
            continue
        if kind == b"IEND":
            parts.append(_chunk(b"IDAT", zlib.compress(zlib.decompress(packed), 9)))
        parts.append(_chunk(kind, data))
    return b"".join(parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def main() -> int:
    """Draw it; returns the exit code."""
    from fluxmaint.logs.report import files

    from tests.support.log_report_example import example

    binary = browsers.executable()
    if binary is None:
        sys.stderr.write("chromium is not installed: apt-get install chromium fonts-liberation\n")
        return 1
    with tempfile.TemporaryDirectory() as directory, browsers.launched(binary) as browser:
        address = files.write(example(), Path(directory))["html"].as_uri()
        with browser.page(address, width=WIDTH, height=900) as page:
            DESTINATION.write_bytes(smaller(page.screenshot(height=round(page.evaluate(BOTTOM)))))
    sys.stdout.write(f"{DESTINATION}: {DESTINATION.stat().st_size / 1000:.0f} kB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
