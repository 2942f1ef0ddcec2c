# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the engine into one executable zip file, the same bytes each time from the same sources.

The archive is not compressed: compressors differ between versions, and the bytes must not.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

ENGINE = Path(__file__).resolve().parents[1] / "module_utils"
PACKAGE = "fluxmaint"
CONTROLLER_ONLY = frozenset({"ansible.py"})
_EPOCH = (1980, 1, 1, 0, 0, 0)
_SHEBANG = b"#!/usr/bin/python3\n"
# Until the command line handles signals, Ctrl-C ends it at once and quietly: nothing has been done yet.
_MAIN = f"""import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from {PACKAGE}.cli.main import main

sys.exit(main())
"""


def build() -> bytes:
    """The executable's content: a shebang and a zip archive that Python runs."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as bundle:
        for name, content in sorted(_members().items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            bundle.writestr(entry, content)
    return _SHEBANG + archive.getvalue()


def _members() -> dict[str, bytes]:
    members = {"__main__.py": _MAIN.encode()}
    for source in ENGINE.rglob("*.py"):
        relative = source.relative_to(ENGINE).as_posix()
        if relative not in CONTROLLER_ONLY:
            members[f"{PACKAGE}/{relative}"] = source.read_bytes()
    return members
