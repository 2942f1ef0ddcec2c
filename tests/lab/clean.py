# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make clean`: remove what the project made on this machine, and nothing else.

Containers, networks, volumes and images are found by the lab's label and name; where no engine answers,
there are none to remove.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from . import engine, names
from .steps import output_of, say

if TYPE_CHECKING:
    from collections.abc import Sequence

# Tests also make containers of the lab's images, which pass their label on.
HOSTS = (f"label={names.LABEL}", f"name={names.PREFIX}")
IMAGES = (f"label={names.LABEL}",)
# Kind of object -> how to list it, by which filters, and how to remove it.
OBJECTS = {
    "containers": (("docker", "ps", "--all", "--quiet"), HOSTS, ("docker", "rm", "--force", "--volumes")),
    "networks": (("docker", "network", "ls", "--quiet"), HOSTS, ("docker", "network", "rm")),
    "volumes": (("docker", "volume", "ls", "--quiet"), HOSTS, ("docker", "volume", "rm", "--force")),
    "images": (("docker", "image", "ls", "--all", "--quiet"), IMAGES, ("docker", "image", "rm", "--force")),
}
CACHES = (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".ansible", ".benchmarks")


def main() -> int:
    """Remove everything; return 1 when something stayed."""
    failed = False
    if engine.answers():
        for kind, (listing, filters, removal) in OBJECTS.items():
            words = [word for wanted in filters for word in ("--filter", wanted)]
            failed |= not remove(kind, [*listing, *words], removal)
    else:
        say("no container engine answers: no containers to remove")
    sample = names.ROOT / "tests" / "sample_service"
    for folder in [names.LAB, *(parent / name for parent in (names.ROOT, sample) for name in CACHES)]:
        if folder.is_dir() and not folder.is_symlink():
            say(f"removing {folder}")
            shutil.rmtree(folder)
    for folder in [path for path in names.ROOT.rglob("__pycache__") if "node_modules" not in path.parts]:
        shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


def remove(kind: str, listing: Sequence[str], removal: Sequence[str]) -> bool:
    """Remove all that a command lists; an image that others are made of goes after them, in a later pass."""
    found = sorted(set((output_of(listing) or "").split()))
    if found:
        say(f"removing {len(found)} {kind}")
    while found:
        output_of([*removal, *found], timeout_s=300)
        left = sorted(set((output_of(listing) or "").split()))
        if len(left) == len(found):
            say(f"could not be removed: {kind} {', '.join(left)}; try: {' '.join(removal)} {left[0]}")
            return False
        found = left
    return True


if __name__ == "__main__":
    sys.exit(main())
