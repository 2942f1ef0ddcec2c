# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether something else than logrotate rotates a log: files that others leave beside it, code that would."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.fsio import open_regular

# Classes of Python's logging, and of its best known relatives, that rename or delete the file that they write to.
ROTATING = ("RotatingFileHandler", "TimedRotatingFileHandler", "ConcurrentRotatingFileHandler",
            "ConcurrentTimedRotatingFileHandler")  # fmt: skip
_ROTATING_TEXT = re.compile(r"\b(?:Concurrent)?(?:Timed)?RotatingFileHandler\b")
_SETTINGS = frozenset({".cfg", ".conf", ".ini", ".json", ".toml", ".yaml", ".yml"})
_NOT_RUN = frozenset({".git", "docs", "node_modules", "test", "tests"})
_SOURCE_LIMIT_BYTES = 2 << 20
_FILES_LIMIT = 20_000

# What the role's own stanzas append to a log's name: date and seconds, compressed or not.
OWN_ARCHIVE = r"-\d{8}-\d{10}(?:\.gz)?"


@dataclass(frozen=True)
class Sibling:
    """A file beside a log that another rotator leaves: which one, and when it was last written."""

    path: Path
    maker: str
    modified: float


@dataclass(frozen=True)
class Source:
    """A place in code or settings that rotates a log."""

    file: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} ({self.what})"


def archives(log: Path) -> list[Path]:
    """What the role's own stanzas have made of a log, oldest first."""
    return sorted(path for path in _beside(log) if re.fullmatch(re.escape(log.name) + OWN_ARCHIVE, path.name))


def siblings(log: Path) -> list[Sibling]:
    """Files beside a log that are named as other rotators name them."""
    found = []
    for path in _beside(log):
        maker = _maker(log, path.name)
        if maker:
            found.append(Sibling(path, maker, path.stat().st_mtime))
    return found


def is_archive_name(name: str) -> bool:
    """Whether a file of this name is what some rotator has made of a log, and no log itself."""
    return bool(re.search(OWN_ARCHIVE + r"$", name) or _LOGURU.search(name))


_LOGURU = re.compile(r"\.\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_\d{6}(?=\.)")
_MAKERS = (
    (r"\.\d+", "RotatingFileHandler, or logrotate without dateext"),
    (r"\.\d{4}-\d\d(?:-\d\d(?:_\d\d(?:-\d\d(?:-\d\d)?)?)?)?", "TimedRotatingFileHandler"),
)


def _maker(log: Path, name: str) -> str:
    for pattern, maker in _MAKERS:
        if re.fullmatch(re.escape(log.name) + pattern, name):
            return maker
    if name.startswith(log.stem + ".") and _LOGURU.match(name[len(log.stem) :]):
        return "loguru's rotation"
    return ""


def _beside(log: Path) -> Iterator[Path]:
    try:
        with os.scandir(log.parent) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)
    except FileNotFoundError:
        return


def sources(top: Path, exclude: Collection[str] = ()) -> list[Source]:
    """Where the code and the settings below a directory rotate a log; tests and what is excluded are left out."""
    found: list[Source] = []
    looked_at = 0
    for directory, names, files in os.walk(os.path.realpath(top)):
        names[:] = sorted(name for name in names if name not in _NOT_RUN and name not in exclude)
        for name in sorted(files):
            path = Path(directory, name)
            if path.suffix != ".py" and path.suffix not in _SETTINGS:
                continue
            looked_at += 1
            if looked_at > _FILES_LIMIT:
                return found
            found.extend(_in_file(path))
    return found


def _in_file(path: Path) -> Iterator[Source]:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _SOURCE_LIMIT_BYTES:
        return
    with open_regular(path) as stream:
        text = stream.read().decode("utf-8", "replace")
    if "Rotating" not in text and "rotation" not in text:
        return
    if path.suffix == ".py":
        try:
            yield from _in_code(path, ast.parse(text))
            return
        except (SyntaxError, ValueError, RecursionError):  # of a newer Python than this one
            pass
    for number, line in enumerate(text.splitlines(), start=1):
        match = _ROTATING_TEXT.search(line)
        if match:
            yield Source(path, number, match.group())


def _in_code(path: Path, tree: ast.AST) -> Iterator[Source]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if _name(node.func) in ROTATING:
                yield Source(path, node.lineno, _name(node.func))
            elif _name(node.func) == "add" and any(_says_rotation(keyword) for keyword in node.keywords):
                yield Source(path, node.lineno, "loguru's rotation")
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                if _name(base) in ROTATING:
                    yield Source(path, node.lineno, _name(base))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_class(node.value):
            yield Source(path, node.lineno, node.value.rpartition(".")[2])


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else str(getattr(node, "id", ""))


def _is_class(text: str) -> bool:
    """Whether a text names such a class, as settings of logging do, and is no sentence about it."""
    return text.endswith(ROTATING) and " " not in text


def _says_rotation(keyword: ast.keyword) -> bool:
    nothing = isinstance(keyword.value, ast.Constant) and keyword.value.value is None
    return keyword.arg == "rotation" and not nothing
