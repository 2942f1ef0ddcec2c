# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""fluxmaint, the command line of the engine on a host. systemd timers call it, and so do people."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..backup import restore
from ..core import config as configuration
from ..core.clock import Clock
from ..core.errors import EngineError, as_engine_error
from . import (
    archives,
    backups,
    extraction,
    host,
    housekeeping,
    logs,
    notices,
    restores,
    rotation,
    salvaging,
    upkeep,
    verification,
)
from .command import EXIT_CODES, Command, Commands, Context
from .stopping import Stopped, stoppable


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
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
    for module in (
        host,
        archives,
        backups,
        verification,
        restores,
        salvaging,
        extraction,
        notices,
        upkeep,
        rotation,
        logs,
        housekeeping,
    ):
        module.register(commands)
    return top


def main(arguments: Sequence[str] | None = None, clock: Clock | None = None) -> int:
    """Run one command; returns the exit code."""
    options = parser().parse_args(arguments)
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
        because = f": {stop.__cause__}" if isinstance(stop.__cause__, restore.RestoreFailed) else ""
        left = _left_behind(options)
        facts = {"error": "Stopped", "message": f"{stop}{because}", "subject": "", "untouched": "", "remedy": left}
        return _failed(options.json, facts["message"] + (f". {left}" if left else ""), facts, 128 + stop.number)
    sys.stdout.write((json.dumps(answer.data, indent=2, default=str) if options.json else answer.text) + "\n")
    return answer.exit_code


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
