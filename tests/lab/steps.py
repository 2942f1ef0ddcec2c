# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set-up steps: say what is done and how long it took, skip what is already done.

A step is skipped when the digest of its inputs equals the one recorded when it last succeeded
*and* its result is still there.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


class SetupError(Exception):
    """Set-up cannot go on; the message says what the operator has to do."""


def say(text: str) -> None:
    """Print one line at once, also when the output is a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step, then report its duration in seconds."""
    say(f"==> {title}")
    started = time.monotonic()
    try:
        yield
    except BaseException:
        say(f"    failed after {time.monotonic() - started:.1f} s")
        raise
    say(f"    done in {time.monotonic() - started:.1f} s")


def digest(*inputs: str | bytes | Path) -> str:
    """SHA-256 over texts, bytes and the content of files, in order, each with its length."""
    total = hashlib.sha256()
    for item in inputs:
        data = item.encode() if isinstance(item, str) else item if isinstance(item, bytes) else item.read_bytes()
        total.update(f"{len(data)}:".encode())
        total.update(data)
    return total.hexdigest()


def is_current(name: str, wanted: str) -> bool:
    """Whether step `name` last succeeded with inputs of digest `wanted`."""
    stamp = names.STAMPS / name
    return stamp.is_file() and stamp.read_text(encoding="utf-8").strip() == wanted


def record(name: str, reached: str) -> None:
    """Remember that step `name` succeeded with inputs of digest `reached`."""
    names.STAMPS.mkdir(parents=True, exist_ok=True)
    (names.STAMPS / name).write_text(reached + "\n", encoding="utf-8")


def run(
    argv: Sequence[str | Path],
    *,
    log: str,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 1200,
) -> None:
    """Run a command with its output in `.lab/logs/<log>.log`; on failure show the end of that log.

    Raises SetupError when the command cannot be started, fails or takes longer than `timeout_s`.
    """
    names.LOGS.mkdir(parents=True, exist_ok=True)
    path = names.LOGS / f"{log}.log"
    words = [str(word) for word in argv]
    with path.open("ab") as output:
        output.write(f"$ {' '.join(words)}\n".encode())
        output.flush()
        try:
            result = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=names.ROOT,
                timeout=timeout_s,
                check=False,
            )
        except FileNotFoundError as exc:
            raise SetupError(f"{words[0]} is not installed") from exc
        except subprocess.TimeoutExpired as exc:
            raise SetupError(f"{words[0]} took longer than {timeout_s:.0f} s; see {path}") from exc
    if result.returncode != 0:
        raise SetupError(f"{words[0]} failed with exit code {result.returncode}; end of {path}:\n{tail(path, 25)}")


def tail(path: Path, lines: int) -> str:
    """The last `lines` lines of a text file."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def output_of(argv: Sequence[str | Path], timeout_s: float = 60) -> str | None:
    """Standard output of a command, or None when it is missing, fails or hangs."""
    try:
        result = subprocess.run(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.decode("utf-8", "replace") if result.returncode == 0 else None
