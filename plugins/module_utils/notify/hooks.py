# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell people: run every hook of this host with one JSON document on its standard input, and journal how it went.

A hook is an executable file in the hooks' directory. It belongs to root (or whoever runs this) and nobody else may
write to it. A hook that fails or hangs does not keep the others from being run, and raises no further event.

A hook is over when its process has ended: what it leaves behind is not waited for, even if it holds its output open.
When its time is over, its process group is killed, and whatever has inherited the variable FLUXMAINT_HOOK from it,
also in a session of its own. Only a process that gets itself another environment by `exec` is not found.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
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
_LOOK_S = 0.05
_MARK = "FLUXMAINT_HOOK"
_KILL_ROUNDS = 3  # a process may have started another one while it was looked for


def tell(config: Config, event: Event, *, journal: Journal, clock: Clock | None = None) -> dict[str, Any]:
    """Run every hook with the event.

    Returns:
        `result`: `ok` when at least one hook took it and none failed, else `degraded`; `hooks` with the fate of each.
    """
    clock = clock or Clock()
    blanked = known_secrets(config)
    document = event.document(blanked)
    data = json.dumps(document, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n"
    results = [
        _run(path, data, config.notify.hook_timeout_s, blanked, clock) for path in _hooks(config.notify.hooks_dir)
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


def _run(path: Path, data: bytes, timeout_s: float, blanked: list[str], clock: Clock) -> dict[str, Any]:
    begun = clock.monotonic()
    message = _unfit(path) or _outcome(path, data, timeout_s, clock)
    seconds = round(clock.monotonic() - begun, 3)
    return {"hook": path.name, "ok": not message, "message": redact(message, blanked), "duration_s": seconds}


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


def _outcome(path: Path, data: bytes, timeout_s: float, clock: Clock) -> str:
    """Run the hook; why it failed, or nothing."""
    mark = secrets.token_hex(16)
    try:
        hook = subprocess.Popen(
            [str(path)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={**os.environ, _MARK: mark},
            start_new_session=True,
        )
    except OSError as error:
        return f"cannot be started: {error.strerror}"
    try:
        said = _converse(hook, data, clock.monotonic() + timeout_s, clock)
    finally:
        if hook.returncode is None:
            _kill(hook, mark)
        for stream in (hook.stdin, hook.stdout):
            if stream is not None:
                stream.close()
    if said is None:
        return f"did not end within {timeout_s:g} s"
    if hook.returncode != 0:
        return f"ended with status {hook.returncode}: {last_words(said)}"
    return ""


def _converse(hook: subprocess.Popen[bytes], data: bytes, until: float, clock: Clock) -> bytes | None:
    """Give the hook its input until its process has ended; the end of its output, or None when time is over."""
    if hook.stdin is None or hook.stdout is None:
        raise ValueError("the hook has no pipes")
    said = bytearray()
    rest = memoryview(data)
    with selectors.DefaultSelector() as selector:
        for stream, event in ((hook.stdin, selectors.EVENT_WRITE), (hook.stdout, selectors.EVENT_READ)):
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, event)
        while hook.poll() is None:
            if clock.monotonic() > until:
                return None
            for key, _events in selector.select(_LOOK_S):
                if key.fileobj is hook.stdout:
                    over = _read(hook.stdout.fileno(), said) == b""
                else:
                    rest = rest[_write(hook.stdin.fileno(), rest) :]
                    over = not rest
                if over:
                    selector.unregister(key.fileobj)
                    if key.fileobj is hook.stdin:
                        hook.stdin.close()
            if not selector.get_map():  # else select would not wait
                clock.sleep(_LOOK_S)
    _read(hook.stdout.fileno(), said)  # what a pipe holds, and no more: somebody else may still write there
    return bytes(said)


def _read(descriptor: int, said: bytearray) -> bytes | None:
    """What there is to read, empty at the end, None when there is nothing now; `said` keeps the end of all."""
    try:
        chunk = os.read(descriptor, _MOST_OUTPUT)
    except BlockingIOError:
        return None
    said += chunk
    del said[:-_MOST_OUTPUT]
    return chunk


def _write(descriptor: int, rest: memoryview) -> int:
    """How much of `rest` has gone; all of it when nobody wants to read it."""
    try:
        return os.write(descriptor, rest)
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(rest)


def _kill(hook: subprocess.Popen[bytes], mark: str) -> None:
    """End the hook and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(hook.pid, signal.SIGKILL)
    hook.wait()
    for _round in range(_KILL_ROUNDS):
        for pid in _marked(mark):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _marked(mark: str) -> list[int]:
    """The processes that have inherited the mark of a hook."""
    wanted = f"{_MARK}={mark}".encode()
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
                if wanted in (directory / "environ").read_bytes().split(b"\0"):
                    found.append(int(directory.name))
    return found
