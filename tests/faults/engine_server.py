# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs `fluxmaint` commands in forked processes, and lets a fault strike one at a moment that can be named.

    python -m tests.faults.engine_server

One JSON document a line comes in, one goes out. A moment is the number of an event: something that Python's audit
hooks report and that changes the world outside the process. The fault strikes right before that event happens.
Nothing of the engine is replaced: the forked process calls its `main` as the executable does.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import sys
import threading
from datetime import datetime, timedelta
from typing import Any, cast

importlib.import_module("tests.conftest")  # registers the engine as `fluxmaint`

CHANGES = frozenset(
    (
        *("os.rename", "os.remove", "os.link", "os.symlink", "os.mkdir", "os.rmdir"),
        *("os.chmod", "os.chown", "os.truncate", "subprocess.Popen", "sqlite3.connect", "http.client.send"),
    )
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Witness:
    """The audit hook of one forked process: writes down events and children, and strikes."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._at = request.get("at")
        self._fault = request.get("fault")
        self._count = 0
        self._mine = threading.local()
        self._one_at_a_time = threading.Lock()
        self._log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if getattr(self._mine, "busy", False) or not _changes(event, arguments):
            return
        self._mine.busy = True  # what the hook itself does in this thread is no event
        try:
            with self._one_at_a_time:
                self._note(event, arguments)
                self._count += 1
                if self._count == self._at:
                    self._strike()
        finally:
            self._mine.busy = False

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        entry: dict[str, Any] = {"event": event, "on": _text(arguments[0])[:300]}
        if event == "subprocess.Popen":
            environment = os.environ if arguments[3] is None else arguments[3]
            entry["argv"] = [_text(word) for word in arguments[1]]
            entry["environ"] = {_text(name): _text(value) for name, value in environment.items()}
        elif event == "http.client.send":
            entry["on"] = _text(bytes(arguments[1][:200]) if isinstance(arguments[1], bytes) else "").partition("\r")[0]
        os.write(self._log, json.dumps(entry).encode() + b"\n")

    def _strike(self) -> None:
        if self._fault == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        pid = os.posix_spawn("/bin/sh", ["sh", "-c", str(self._fault)], os.environ)
        os.waitpid(pid, 0)


def _changes(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        path, _mode, flags = arguments
        return bool(flags & _WRITING) and isinstance(path, (str, bytes, os.PathLike)) and "/proc/" not in str(path)
    return event in CHANGES


def _text(value: Any) -> str:
    return os.fsdecode(value) if isinstance(value, (str, bytes, os.PathLike)) else str(value)


def _run(request: dict[str, Any]) -> int:
    """In the forked process: become what was asked for, and run the command."""
    from fluxmaint.cli.main import main
    from fluxmaint.core.clock import Clock

    class Shifted(Clock):
        """The system's clock, some seconds off."""

        def now(self) -> datetime:
            return super().now() + timedelta(seconds=request.get("clock_offset_s", 0))

    out = os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    err = os.open(request["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), write_through=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), write_through=True)
    os.environ.update(request.get("environ", {}))
    witness = Witness(request)
    if request.get("uid"):
        os.setgroups([])
        os.setresgid(request["uid"], request["uid"], request["uid"])
        os.setresuid(request["uid"], request["uid"], request["uid"])
    sys.addaudithook(witness)
    try:
        return int(main(request["argv"], clock=Shifted()))
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def serve() -> None:
    """Serve until the input ends; several commands may run at the same time."""
    for module in ("fluxmaint.cli.main", "fluxmaint.store.s3", "botocore.session"):
        importlib.import_module(module)
    importlib.import_module("fluxmaint.cli.main").parser()  # loads every command
    for line in sys.stdin:
        requests = cast("list[dict[str, Any]]", json.loads(line))
        running = {}
        for number, request in enumerate(requests):
            pid = os.fork()
            if pid == 0:
                code = 70
                try:
                    code = _run(request)
                finally:
                    os._exit(code & 0xFF)
            running[pid] = number
        codes = [0] * len(requests)
        while running:
            pid, status = os.wait()
            if pid in running:
                codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)
        sys.stdout.write(json.dumps(codes) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
