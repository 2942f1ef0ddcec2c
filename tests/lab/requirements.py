# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the lock file of the development tools."""

from __future__ import annotations

from . import names


def pinned(package: str, lock: str | None = None) -> str:
    """The lines of one package in the lock, with its hashes.

    `lock` is the lock's text, by default that of requirements/dev.txt. Raises KeyError for a package
    that is not locked.
    """
    text = names.REQUIREMENTS.read_text(encoding="utf-8") if lock is None else lock
    found: list[str] = []
    for line in text.splitlines():
        if found and not line.startswith("    --hash="):
            break
        if found or line.startswith(f"{package}=="):
            found.append(line)
    if not found:
        raise KeyError(package)
    return "\n".join(found) + "\n"
