# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run external commands: no shell, always a deadline, errors that name the command and its last words."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import CommandError, PreconditionError, TimeoutExceeded

_LAST_WORDS = 2000


@dataclass(frozen=True)
class Completed:
    """A command that has ended: output in bytes, duration in seconds."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes
    duration_s: float

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode("utf-8", "replace")


def last_words(output: bytes) -> str:
    """The end of a command's error output, as one printable string for a message."""
    return " / ".join(output[-_LAST_WORDS:].decode("utf-8", "replace").strip().splitlines()[-5:])


def require_tool(name: str, package: str = "") -> str:
    """The path of an executable. Raises PreconditionError naming the package that has it."""
    path = shutil.which(name)
    if path is None:
        raise PreconditionError(
            f"the command {name} is not installed", subject=name, remedy=f"install the package {package or name}"
        )
    return path


def run(
    argv: Sequence[str],
    *,
    input: bytes | None = None,  # noqa: A002 - the name that subprocess.run uses
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
) -> Completed:
    """Run a command to its end.

    Args:
        argv: the command and its arguments; never put a secret there, other users can read it.
        input: bytes for its standard input; without it there is none.
        timeout_s: deadline in seconds; the command is killed when it passes.
        env: variables added to the present environment; messages are always in English.
        check: raise CommandError when the exit status is not 0.
    """
    started = time.monotonic()
    try:
        done = subprocess.run(
            list(argv),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=timeout_s,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            cwd=cwd,
            check=False,
        )
    except FileNotFoundError:
        raise PreconditionError(f"the command {argv[0]} is not installed", subject=argv[0]) from None
    except subprocess.TimeoutExpired as error:
        raise TimeoutExceeded(
            f"{argv[0]} did not finish within {timeout_s:g} s: {last_words(error.stderr or b'')}", subject=argv[0]
        ) from None
    completed = Completed(tuple(argv), done.returncode, done.stdout, done.stderr, time.monotonic() - started)
    if check and done.returncode != 0:
        raise CommandError(
            f"{' '.join(argv)} ended with status {done.returncode}: {last_words(done.stderr or done.stdout)}",
            subject=argv[0],
            returncode=done.returncode,
        )
    return completed
