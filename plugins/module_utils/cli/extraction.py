# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command that brings single files of a generation into a directory, or lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..backup import extract
from ..backup.fetch import Opened, open_generation
from ..core.clock import parse_utc
from ..core.errors import InputError
from ..core.human import size_text
from ..store.open import open_store
from .command import DEGRADED, Answer, Commands, Context


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    extracting = commands.add("extract", _extract, "bring single files of a generation into an empty directory")
    extracting.add_argument(
        "--generation", default="latest", metavar="ID", help="an id, latest, or before:2026-11-23T02:00:00Z"
    )
    extracting.add_argument("--target", default="", metavar="NAME", help="default: the first one configured")
    extracting.add_argument("--host", default="", help="a generation of another host than this one")
    extracting.add_argument(
        "--path", default="*", metavar="PATTERN", help="absolute path that the file had, or a pattern such as '*.env'"
    )
    extracting.add_argument(
        "--part", default="", metavar="NAME", help="only of this part: db-NAME, config, logs, system or cache"
    )
    extracting.add_argument("--list", action="store_true", help="only list the files; needs no identity")
    extracting.add_argument("--identity", type=Path, metavar="FILE", help="age identity to decrypt with")
    extracting.add_argument("--to", type=Path, metavar="DIR", help="a new or empty directory")


def _extract(context: Context) -> Answer:
    options, config = context.options, context.config
    if not options.list and (options.identity is None or options.to is None):
        raise InputError("extract needs --identity and --to, or --list")
    backup = config.require_backup()
    before = None
    generation = options.generation
    if generation.startswith("before:"):
        generation, before = "latest", parse_utc(generation[len("before:") :])
    target = backup.target(options.target) if options.target else backup.targets[0]
    opened = open_generation(
        open_store(target, context.clock),
        config.service,
        options.host or config.host,
        generation,
        before=before,
        allowed_signers_file=backup.allowed_signers_file,
        signer=f"{config.service}@{options.host}" if options.host else backup.signer,
        clock=context.clock,
    )
    identity = opened.manifest.id
    if options.list:
        files = extract.listing(opened, options.path, options.part)
        lines = [
            f"{item['part']:12} {size_text(item['bytes']):>9}  {item['modified']}  {item['path']}" for item in files
        ]
        return _answer(opened, files, [f"generation {identity}: {len(files)} files", *lines])
    with context.progress("extract") as progress:
        files = extract.extract(
            opened,
            options.path,
            options.to,
            identity_file=options.identity,
            part=options.part,
            timeout_s=backup.timeout_s,
            clock=context.clock,
            journal=context.journal(config),
            progress=progress,
        )
    lines = [f"  {item['file']}  was {item['owner']}:{item['group']} {item['mode']}" for item in files]
    return _answer(opened, files, [f"{len(files)} files of generation {identity}, verified:", *lines])


def _answer(opened: Opened, files: list[dict[str, Any]], lines: list[str]) -> Answer:
    """What was found, and what is wrong with the store: newer generations that were passed over, for instance."""
    problems = opened.problems
    data = {"generation": opened.manifest.id, "files": files, "problems": problems}
    text = "\n".join([*lines, *(f"problem: {problem}" for problem in problems)])
    return Answer(data, text, DEGRADED if problems else 0)
