# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which module each command of fluxmaint is in, and that a command loads no other one."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
from fluxmaint.cli import main

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = Path(main.__file__).parent


def words_of(parser: argparse.ArgumentParser) -> tuple[str, ...]:
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return tuple(commands.choices)


@pytest.mark.parametrize("module", main.MODULES)
def test_a_module_has_the_commands_that_the_table_says(module: str) -> None:
    for word in main.MODULES[module]:
        assert words_of(main.parser(word)) == main.MODULES[module]


def test_the_table_names_every_module_with_commands() -> None:
    assert sorted(main.MODULES) == sorted(
        path.stem for path in PACKAGE.glob("*.py") if "\ndef register(" in path.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("word", ["", "--help", "no-such-command"])
def test_without_a_command_all_are_known(word: str) -> None:
    assert set(words_of(main.parser(word))) == {word for words in main.MODULES.values() for word in words}


def test_reading_logs_loads_neither_backups_nor_reports() -> None:
    program = "import sys, tests.conftest; from fluxmaint.cli.main import parser; parser('logs'); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "fluxmaint.logs.reading" in loaded
    assert not [name for name in loaded if name.startswith(("fluxmaint.backup", "fluxmaint.logs.report"))]
