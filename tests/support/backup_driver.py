"""Take one generation in a process of its own, which kills itself at a step of the journal or reports its memory.

    python -m tests.support.backup_driver CONFIG KIND [--kill-at N] [--memory]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

importlib.import_module("tests.conftest")  # registers the engine as `fluxmaint`


def main() -> None:
    from fluxmaint.backup import generation
    from fluxmaint.core.config import load
    from fluxmaint.core.journal import Journal

    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("kind")
    parser.add_argument("--kill-at", type=int, default=0)
    parser.add_argument("--fetch-to", type=Path)
    parser.add_argument("--keys", type=Path)
    options = parser.parse_args()

    class Deadly(Journal):
        """Dies by SIGKILL right after the entry of that number."""

        entries = 0

        def append(self, operation: str, event: str, result: str = "", **evidence: Any) -> dict[str, Any]:
            entry = super().append(operation, event, result, **evidence)
            self.entries += 1
            if self.entries == options.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return entry

    config = load(options.config)
    journal = Deadly(config.journal_file)
    result = generation.create(config, options.kind, journal=journal)
    if options.fetch_to:
        from fluxmaint.backup.fetch import fetch
        from fluxmaint.store.open import open_store

        backup = config.require_backup()
        fetch(
            open_store(backup.targets[0]),
            config.service,
            config.host,
            result["id"],
            options.fetch_to,
            identity_file=options.keys / "operator.key",
            allowed_signers_file=backup.allowed_signers_file,
            signer=backup.signer,
        )
    # Not `ru_maxrss`, which begins with the memory of the process that started this one.
    words = Path("/proc/self/status").read_text(encoding="utf-8").split()
    peak = int(words[words.index("VmHWM:") + 1]) * 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    json.dump({**result, "peak_bytes": peak, "children_peak_bytes": children, "entries": journal.entries}, sys.stdout)


if __name__ == "__main__":
    main()
