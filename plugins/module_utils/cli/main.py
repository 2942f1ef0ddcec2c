# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""fluxmaint, the command line of the engine on a host. systemd timers call it, and so do people."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core import config as configuration
from ..core.clock import Clock
from ..core.errors import EngineError, as_engine_error
from .command import EXIT_CODES, Command, Commands, Context
from .stopping import Stopped, stoppable

# The modules of this package, and the first words of their commands. Only the one that is needed is loaded: loading
# all of the engine takes longer than most commands do.
MODULES = {
    "host": ("version", "config", "journal", "preflight", "integrity"),
    "archives": ("archive", "archive-info", "query"),
    "backups": ("backup", "generations", "prove", "prune", "status"),
    "verification": ("verify",),
    "restores": ("restore",),
    "salvaging": ("salvage",),
    "extraction": ("extract",),
    "notices": ("notify",),
    "upkeep": ("size", "maintain"),
    "rotation": ("rotation",),
    "logs": ("logs",),
    "housekeeping": ("export", "cleanup-cache"),
}


def parser(word: str = "") -> argparse.ArgumentParser:
    """The command line's grammar: of all commands, or of those in the module of the one with this first word."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON document")
    common.add_argument("--quiet", action="store_true", help="show no progress")
    common.add_argument(
        "--config", type=Path, default=configuration.DEFAULT_PATH, metavar="FILE", help="default: %(default)s"
    )
    top = argparse.ArgumentParser(
        prog="fluxmaint",
        description="Maintains a SQLite-backed service on this host.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = Commands(top, common)
    for name in [name for name, words in MODULES.items() if word in words] or MODULES:
        importlib.import_module(f".{name}", __package__).register(commands)
    return top


def main(arguments: Sequence[str] | None = None, clock: Clock | None = None) -> int:
    """Run one command; returns the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = parser(words[0] if words else "").parse_args(words)
    command: Command = options.command
    for stream in (sys.stdout, sys.stderr):  # names of files need not be valid text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with stoppable() as stops:
            try:
                answer = command(Context(options, options.config, clock or Clock(), lambda: bool(stops)))
            except Exception as caught:
                if not stops:
                    raise
                # SQLite swallows what is raised while it runs a statement, and only says that it was interrupted.
                raise stops[0] from caught
    except Exception as caught:  # noqa: BLE001 - whatever it is, people and programs get one sentence
        error = as_engine_error(caught)
        return _failed(options.json, str(error), error.as_dict(), error.exit_code)
    except Stopped as stop:
        because = f": {stop.__cause__}" if _has_failed(stop.__cause__) else ""
        left = _left_behind(options)
        facts = {"error": "Stopped", "message": f"{stop}{because}", "subject": "", "untouched": "", "remedy": left}
        return _failed(options.json, facts["message"] + (f". {left}" if left else ""), facts, 128 + stop.number)
    sys.stdout.write((json.dumps(answer.data, indent=2, default=str) if options.json else answer.text) + "\n")
    return answer.exit_code


def _has_failed(cause: BaseException | None) -> bool:
    """Whether what a signal stopped was a restore, which has failed by that."""
    if cause is None:
        return False
    from ..backup.restore import RestoreFailed

    return isinstance(cause, RestoreFailed)


def _left_behind(options: argparse.Namespace) -> str:
    """What a stopped command has left unfinished and how to go on; empty when it has left nothing."""
    try:
        left: str = options.left_behind(configuration.load(options.config)) if "left_behind" in options else ""
    except EngineError:  # what ended the command matters more
        return ""
    return left


def _failed(as_json: bool, text: str, facts: dict[str, Any], exit_code: int) -> int:
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=2, default=str) + "\n")
    sys.stderr.write(f"fluxmaint: {text}\n")
    return exit_code
