# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A candidate of a salvage as something to restore: it goes into place the way a generation does.

It is named `salvage-<id>.<candidate>`, such as `salvage-20261123T020000Z-7f3a2c.merged`. What was damaged becomes the
restore point.
"""

from __future__ import annotations

import dataclasses
import grp
import pwd
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.config import Config
from ..core.errors import InputError, IntegrityError, PreconditionError
from ..core.fsio import private_umask, read_json, sha256_file
from . import salvage
from .restore_plan import Contents, DatabaseFacts, File, Request
from .restore_point import facts_of

PREFIX = "salvage-"
_MODE = 0o640


def is_salvage(generation: str) -> bool:
    """Whether what is to be restored is a candidate of a salvage."""
    return generation.startswith(PREFIX)


class SalvageSource:
    """Implements `restore_stage.Source` for what was salvaged on this host. Nothing is encrypted: no key is needed."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._file = Path()

    def contents(self, request: Request) -> Contents:
        """The candidate, with the digest that the report has shown.

        Raises:
            InputError: there is no such salvage or candidate, or it is not usable.
            IntegrityError: the file is not the one that was shown.
            PreconditionError: the database was written since; rows would be lost.
        """
        report, name, facts = self._candidate(request.generation)
        database = self._config.database(str(report["database"]))
        self._file = Path(facts["file"])
        if not self._file.is_file():
            raise InputError("was removed; salvage again", subject=str(self._file), untouched="the service")
        if sha256_file(self._file) != facts["sha256"]:
            raise IntegrityError("is not the file that the salvage has made", subject=str(self._file), untouched="it")
        # What a generation lacks is known; from the damaged file, rows that came later would be missing unnoticed.
        if name != salvage.GENERATION and not salvage.unchanged_since(report, Path(report["path"])):
            raise PreconditionError(
                f"was written after salvage {report['id']} was made, so that newer rows would be missing",
                subject=str(report["path"]),
                untouched="the service",
                remedy="stop the units, salvage again, and restore from that",
            )
        owner, group, mode = self._ownership(Path(report["path"]))
        file = File(
            part="databases",
            name=database.name,
            path=str(database.path),
            sha256=str(facts["sha256"]),
            bytes=self._file.stat().st_size,
            owner=owner,
            group=group,
            mode=mode,
        )
        invariants = [[item.name, item.sql, item.expect] for item in database.invariants]
        known: DatabaseFacts = dataclasses.replace(facts_of(database.name, self._file), invariants=invariants)
        return Contents(
            generation_id=request.generation,
            kind="salvage",
            host=self._config.host,
            started_at=str(report["made_at"]),
            revision="",
            release="",
            files=[file],
            databases={database.name: known},
        )

    def fetch(self, contents: Contents, files: Sequence[File], directory: Path) -> list[File]:
        """Copy the candidate; what was salvaged stays where it is."""
        if not self._file.name:
            self.contents(Request(generation=contents.generation_id))
        copies = []
        for number, file in enumerate(files):
            copy = directory / str(number)
            with private_umask():
                shutil.copyfile(self._file, copy)
            copies.append(dataclasses.replace(file, staged=str(copy)))
        return copies

    def _candidate(self, generation: str) -> tuple[dict[str, Any], str, dict[str, Any]]:
        identity, _dot, name = generation[len(PREFIX) :].rpartition(".")
        index = salvage.index_file(self._config, identity)
        if not identity or Path(identity).name != identity or not index.is_file():
            there = sorted(path.stem for path in index.parent.glob("*.json"))
            raise InputError(
                f"there is no salvage {identity!r} on this host; there are: {', '.join(there) or 'none'}",
                subject=generation,
                untouched="the service",
            )
        report: dict[str, Any] = read_json(index)
        facts = report["candidates"].get(name)
        if facts is None or not facts["usable"]:
            usable = [key for key, value in report["candidates"].items() if value["usable"]]
            because = (facts["reason"] or "; ".join(facts["problems"][:3])) if facts else "it does not exist"
            raise InputError(
                f"candidate {name!r} of salvage {identity} is not usable: {because}",
                subject=generation,
                untouched="the service",
                remedy=f"usable are: {', '.join(usable) or 'none'}",
            )
        return report, name, facts

    def _ownership(self, place: Path) -> tuple[str, str, int]:
        """Owner, group and mode of the file that is replaced; the service's when it is gone."""
        try:
            status = place.stat()
        except FileNotFoundError:
            return self._config.user, self._config.group, _MODE
        return pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name, status.st_mode & 0o7777
