# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's side of a comparison, each call a process of its own like the other methods.

    python -m tests.benchmarks.ours hot SOURCE DESTINATION
    python -m tests.benchmarks.ours one-step SOURCE DESTINATION     (Python's backup API, for comparison)
    python -m tests.benchmarks.ours restore CONFIG KEYS DIRECTORY
"""

from __future__ import annotations

import importlib
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path


def hot(source: Path, destination: Path) -> None:
    """A snapshot as a generation takes it."""
    from fluxmaint.sqlite import hot_backup

    hot_backup.backup(source, destination, digest=False, rows=False)


def one_step(source: Path, destination: Path) -> None:
    """SQLite's own backup in one step, which nothing can restart, brought to the disk."""
    con = sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)
    copy = sqlite3.connect(destination)
    con.backup(copy, pages=-1)
    copy.close()
    con.close()
    descriptor = os.open(destination, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def restore(config_file: Path, keys: Path, directory: Path) -> None:
    """Bring the newest generation back with every check that a restore and a proof make."""
    from fluxmaint.backup.fetch import fetch
    from fluxmaint.core.config import load
    from fluxmaint.store.open import open_store

    config = load(config_file)
    backup = config.require_backup()
    fetch(
        open_store(backup.targets[0]),
        config.service,
        config.host,
        "latest",
        directory,
        identity_file=keys / "operator.key",
        allowed_signers_file=keys / "allowed_signers",
        signer=backup.signer,
    )


def main() -> None:
    importlib.import_module("tests.conftest")  # registers the engine as `fluxmaint`
    paths = [Path(word).resolve() for word in sys.argv[2:]]
    calls: dict[str, Callable[..., None]] = {"hot": hot, "one-step": one_step, "restore": restore}
    calls[sys.argv[1]](*paths)


if __name__ == "__main__":
    main()
