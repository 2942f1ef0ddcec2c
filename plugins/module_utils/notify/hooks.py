# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell people: run every hook of this host with one JSON document on its standard input, and journal how it went.

A hook is an executable file in the hooks' directory. It belongs to root (or whoever runs this) and nobody else may
write to it. A hook that fails or hangs does not keep the others from being run, and raises no further event.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

from ..core.clock import Clock
from ..core.config import Config
from ..core.journal import Journal
from ..core.run import last_words
from .event import Event, known_secrets, redact

OK, DEGRADED = "ok", "degraded"
_MOST_OUTPUT = 1 << 16


def tell(config: Config, event: Event, *, journal: Journal, clock: Clock | None = None) -> dict[str, Any]:
    """Run every hook with the event.

    Returns:
        `result`: `ok` when at least one hook took it and none failed, else `degraded`; `hooks` with the fate of each.
    """
    clock = clock or Clock()
    secrets = known_secrets(config)
    document = event.document(secrets)
    data = json.dumps(document, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n"
    results = [
        _run(path, data, config.notify.hook_timeout_s, secrets, clock) for path in _hooks(config.notify.hooks_dir)
    ]
    problems = [f"hook {item['hook']}: {item['message']}" for item in results if not item["ok"]]
    if not results:
        problems.append(f"there is no hook in {config.notify.hooks_dir}: nobody is told")
    result = DEGRADED if problems else OK
    facts = {key: document[key] for key in ("event", "unit", "message")}
    journal.append("notify", "end", result, hooks=results, problems=problems, about={**facts, "result": event.result})
    return {"result": result, "event": document, "hooks": results, "problems": problems}


def _hooks(directory: Path) -> list[Path]:
    """The files of the directory in order of their names; hidden ones and those of editors are left out."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if not path.name.startswith(".") and not path.name.endswith("~"))


def _run(path: Path, data: bytes, timeout_s: float, secrets: list[str], clock: Clock) -> dict[str, Any]:
    begun = clock.monotonic()
    message = _unfit(path) or _outcome(path, data, timeout_s)
    seconds = round(clock.monotonic() - begun, 3)
    return {"hook": path.name, "ok": not message, "message": redact(message, secrets), "duration_s": seconds}


def _unfit(path: Path) -> str:
    """Why a file must not be run as a hook, or nothing."""
    try:
        status = path.stat()
    except OSError as error:
        return str(error.strerror)
    if not stat.S_ISREG(status.st_mode) or not os.access(path, os.X_OK):
        return "is not an executable file"
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        return "could be changed by somebody else: it must belong to root, with mode 0700 or 0755"
    return ""


def _outcome(path: Path, data: bytes, timeout_s: float) -> str:
    """Run the hook; why it failed, or nothing. What it has started ends with it when its time is over."""
    try:
        hook = subprocess.Popen(
            [str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        return f"cannot be started: {error.strerror}"
    try:
        output, _none = hook.communicate(data, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return f"did not end within {timeout_s:g} s"
    finally:
        if hook.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(hook.pid, signal.SIGKILL)
            hook.wait()
    if hook.returncode != 0:
        return f"ended with status {hook.returncode}: {last_words(output[-_MOST_OUTPUT:])}"
    return ""
