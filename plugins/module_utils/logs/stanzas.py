# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What logrotate makes of its configuration: asked of logrotate itself, which parses and globs as it will later."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..core.run import Completed, run

SYSTEM_CONFIG = Path("/etc/logrotate.conf")
SYSTEM_STATE = Path("/var/lib/logrotate/status")
_TIMEOUT_S = 60
# Followed by `(30 rotations)` in version 3.21, and by `empty log files are` in 3.22.
_PATTERN = re.compile(
    r"^rotating pattern: (.+?)\s+"
    r"(?:after \d+ days|hourly|weekly|monthly|yearly|forced from command line|\d+ bytes) (?:\(|empty )",
    re.MULTILINE | re.DOTALL,
)
_CONSIDERED = re.compile(r"^considering log (.+)$", re.MULTILINE)
_DUE = re.compile(
    r"^considering log (.+)\n(?:(?!considering log |rotating pattern: ).*\n)*?  log needs rotating", re.MULTILINE
)
_READ = re.compile(r"^(reading config file|including) (.+)$", re.MULTILINE)
_STATE = re.compile(r'^"(.+)" (\d+)-(\d+)-(\d+)-(\d+):(\d+):(\d+)$')
_UNIT = r"(?:-\S+\s+)*([A-Za-z0-9@_.\\:-]+)"
_RELOAD = re.compile(rf"\bsystemctl\s+(?:-\S+\s+)*(?:try-)?reload(?!-or-)\s+{_UNIT}")

Runner = Callable[..., Completed]


@dataclass(frozen=True)
class Stanza:
    """One entry of a configuration file: what it names, and the logs that this means now."""

    file: Path
    patterns: tuple[str, ...]
    logs: tuple[str, ...]

    def covers(self, pattern: str, logs: Iterable[str]) -> bool:
        """Whether it names one of these logs, or might name one that `pattern` names later."""
        ours = {os.path.realpath(log) for log in logs}
        if ours & {os.path.realpath(log) for log in self.logs}:
            return True
        return any(fnmatch.fnmatch(pattern, theirs) or fnmatch.fnmatch(theirs, pattern) for theirs in self.patterns)


@dataclass(frozen=True)
class Reading:
    """How logrotate read some files: its errors, the files, the entries, the logs that it would rotate now."""

    errors: tuple[str, ...]
    files: tuple[Path, ...]
    stanzas: tuple[Stanza, ...]
    due: tuple[str, ...]


def read(files: Sequence[Path], *, force: bool = False, state: Path | None = None, runner: Runner = run) -> Reading:
    """Let logrotate read files, together, and change nothing.

    Its exit status says little: an unknown option is ignored with status 0. What counts are the lines that
    begin with `error:`.

    Args:
        state: the state file that it is to believe; it need not exist.
    """
    with tempfile.TemporaryDirectory(prefix="fluxmaint-") as empty:
        known = state if state is not None else Path(empty, "state")
        argv = ["logrotate", "--debug", "--state", str(known), *(["--force"] if force else []), *map(str, files)]
        done = runner(argv, timeout_s=_TIMEOUT_S, check=False)
    text = (done.stderr + done.stdout).decode("utf-8", "replace")
    errors = errors_of(text)
    if done.returncode != 0 and not errors:
        errors = (f"logrotate ended with status {done.returncode}",)
    stanzas = tuple(_stanzas(text, files[0] if files else SYSTEM_CONFIG))
    return Reading(errors, _files(text), stanzas, tuple(_DUE.findall(text)))


def errors_of(text: str) -> tuple[str, ...]:
    """What logrotate calls an error, with the lines that follow in a message of several."""
    return tuple(line.strip()[len("error: ") :] for line in text.splitlines() if line.strip().startswith("error: "))


def system(config: Path = SYSTEM_CONFIG, *, runner: Runner = run) -> list[Stanza]:
    """Every entry of the system's logrotate, with the file that it is in."""
    if not config.is_file():
        return []
    whole = read([config], runner=runner)
    included = [file for file in whole.files if file != config and file.is_file()]
    stanzas = [stanza for file in included for stanza in read([file], runner=runner).stanzas]
    elsewhere = {stanza.patterns for stanza in stanzas}
    return [*(stanza for stanza in whole.stanzas if stanza.patterns not in elsewhere), *stanzas]


def reloaded_units(text: str) -> list[str]:
    """Units that the scripts of a configuration reload; comments do not count."""
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [unit if "." in unit else f"{unit}.service" for unit in _RELOAD.findall(code)]


def rotated_at(state: Path) -> dict[str, datetime]:
    """When logrotate last rotated each log, in the host's local time as it writes it; empty without a state."""
    try:
        lines = state.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        match = _STATE.match(line)
        if match:
            found[match.group(1)] = datetime(*map(int, match.groups()[1:])).astimezone()  # type: ignore[arg-type]
    return found


def _files(text: str) -> tuple[Path, ...]:
    directory = Path("/")
    files = []
    for word, name in _READ.findall(text):
        if word == "including":
            directory = Path(name)
        else:
            files.append(directory / name)
    return tuple(dict.fromkeys(files))


def _stanzas(text: str, file: Path) -> Iterable[Stanza]:
    starts = [match.start() for match in _PATTERN.finditer(text)]
    for start, end in zip(starts, [*starts[1:], len(text)]):
        part = text[start:end]
        match = _PATTERN.match(part)
        if match:
            yield Stanza(file, _words(match.group(1)), tuple(_CONSIDERED.findall(part)))


def _words(pattern: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(pattern))
    except ValueError:  # a quote that nothing closes
        return tuple(pattern.split())
