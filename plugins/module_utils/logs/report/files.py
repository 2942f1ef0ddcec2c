# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Log reports as files: HTML, JSON and text of one document, in a directory that keeps so many of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...core.config import Config
from ...core.errors import InputError
from ...core.fsio import atomic_write, fsync_dir
from ...core.journal import Journal
from ..summary import Document
from . import page, text
from .findings import complete, judge
from .words import moment, week_of

LATEST = "latest"
_MODE = 0o640


FORMATS: Mapping[str, Callable[[Document], bytes]] = {
    # ASCII: no character of a log can steer the terminal of whoever looks at it.
    "json": lambda document: (json.dumps(document, indent=1) + "\n").encode("ascii"),
    "txt": lambda document: text.render(document).encode(),
    "html": lambda document: page.render(document).encode(),
}
_NAME = re.compile(r"report-(?:\d{4}-W\d\d|\d{8}T\d{6}Z-\d{8}T\d{6}Z)\.(?:html|json|txt)")


def name_of(document: Document, *, weekly: bool = False) -> str:
    """Such as `report-2026-W47` for the report of a week; any other one is named after the two ends of its period."""
    year, week = week_of(document["period"])
    if weekly and week:
        return f"report-{year}-W{week:02d}"
    begin, end = moment(document["period"]["begin"]), moment(document["period"]["end"])
    if begin is None or end is None:
        raise InputError("the report has no period", subject=str(document["period"]), untouched="all reports")
    return f"report-{begin:%Y%m%dT%H%M%SZ}-{end:%Y%m%dT%H%M%SZ}"


def write(document: Document, directory: Path, *, keep: int | None = None, weekly: bool = False) -> dict[str, Path]:
    """Write a report in each format and let `latest.*` point to them; then remove the oldest ones, if wanted.

    Each file is there whole or not at all. Writing the same report again replaces it.

    Args:
        directory: made where it is not there.
        keep: so many reports stay, the newest ones by their time stamps; this one is among them. None keeps all.
        weekly: whether this is the report of a week, and not one in between, which must not take its place.

    Returns:
        The files by their formats: `html`, `json` and `txt`.
    """
    directory = Path(directory)
    rendered = {kind: make(document) for kind, make in FORMATS.items()}
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    name = name_of(document, weekly=weekly)
    files = {kind: directory / f"{name}.{kind}" for kind in rendered}
    for kind, data in rendered.items():
        atomic_write(files[kind], data, _MODE)
    for kind, file in files.items():
        _point(directory / f"{LATEST}.{kind}", file.name)
    if keep is not None:
        _remove_old(directory, max(keep, 1), name)
    return files


def save(
    document: Document, config: Config, journal: Journal, directory: Path | None = None, *, weekly: bool = False
) -> dict[str, Any]:
    """Write a report to this host's reports, of which the configured number is kept; or to a directory that keeps all.

    `weekly` is as in `write`.

    Returns:
        `files` by their formats, and the `verdict`.
    """
    with journal.operation("log_report") as operation:
        keep = config.log_report.keep if directory is None else None
        written = write(document, directory or config.log_report.directory, keep=keep, weekly=weekly)
        verdict = judge(document)
        paths = {kind: str(path) for kind, path in written.items()}
        operation.result = "ok" if complete(document) else "degraded"
        operation.evidence.update(files=paths, headline=verdict.headline)
    return {"files": paths, "verdict": verdict.as_dict()}


def _point(link: Path, target: str) -> None:
    """A symbolic link, replaced in one step."""
    temporary = link.with_name(f".{link.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)
    fsync_dir(link.parent)


def _remove_old(directory: Path, keep: int, newest: str) -> None:
    """Remove all but the newest reports; files of other names are none of ours."""
    ages: dict[str, float] = {}
    for entry in os.scandir(directory):
        if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            name = entry.name.rsplit(".", 1)[0]
            ages[name] = max(ages.get(name, 0.0), entry.stat(follow_symlinks=False).st_mtime)
    ages.pop(newest, None)
    for name in sorted(ages, key=lambda item: (ages[item], item))[: max(0, len(ages) - keep + 1)]:
        for kind in FORMATS:
            with contextlib.suppress(FileNotFoundError):
                (directory / f"{name}.{kind}").unlink()
