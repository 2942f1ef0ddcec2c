# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command of fluxmaint is: a function from its arguments and the configuration to an `Answer`.

An answer is data for `--json`, text for a terminal, and an exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import config as configuration
from ..core import progress
from ..core.clock import Clock
from ..core.journal import Journal
from ..core.progress import Report

EXIT_CODES = """\
exit codes:
  0  success
  1  failed
  2  wrong usage, input or configuration
  3  degraded: something was done, something was not
  4  another operation holds the lease
  5  data is damaged, or a proof failed
  6  a backup target cannot be reached
  7  a deadline passed
  128 + N  ended by signal N
"""
DEGRADED = 3


@dataclass(frozen=True)
class Answer:
    """What a command has to say: JSON-serialisable data, the same as text, and the exit code."""

    data: dict[str, Any]
    text: str
    exit_code: int = 0


@dataclass(frozen=True)
class Context:
    """What each command gets. `stopped` tells whether a signal has asked this process to end."""

    options: argparse.Namespace
    config_file: Path
    clock: Clock
    stopped: Callable[[], bool] = lambda: False

    @property
    def config(self) -> configuration.Config:
        """The configuration of this host, read when it is asked for."""
        return configuration.load(self.config_file)

    @contextlib.contextmanager
    def progress(self, operation: str) -> Iterator[Report | None]:
        """What to tell the engine's steps to: a terminal or the log of systemd gets them, anyone else nothing."""
        shown = progress.choose(operation, sys.stderr, quiet=self.options.quiet, clock=self.clock)
        try:
            yield shown
        finally:
            if shown is not None:
                shown.close()

    def journal(self, config: configuration.Config) -> Journal:
        """The maintenance journal of this host."""
        config.state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        return Journal(config.journal_file, self.clock)


Command = Callable[[Context], Answer]


class Commands:
    """The commands, or those of a group such as `config`; each module of this package adds its own."""

    def __init__(self, parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
        self._parsers = parser.add_subparsers(required=True, metavar="COMMAND")
        self._common = common

    def add(self, name: str, command: Command, text: str) -> argparse.ArgumentParser:
        """Add a command; the parser that comes back takes its options."""
        added: argparse.ArgumentParser = self._parsers.add_parser(
            name,
            parents=[self._common],
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=command)
        return added

    def group(self, name: str, text: str) -> Commands:
        """Add a word that is followed by a command."""
        return Commands(self._parsers.add_parser(name, help=text), self._common)
