# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that rotate the service's logs, or look at how they are written."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import ConfigError
from ..core.human import size_text
from ..logs import rotation
from .command import DEGRADED, Answer, Commands, Context


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    group = commands.group("rotation", "rotate the service's logs")

    running = group.add("run", _run, "rotate what is due, and prove that each writer goes on in the new file")
    running.add_argument("--force", action="store_true", help="rotate what is not due, too")
    running.add_argument("--dry-run", action="store_true", help="only tell what would be rotated")

    check = group.add("check", _check, "look at who writes each log, who rotates it, and at logrotate's configuration")
    check.add_argument(
        "--candidate",
        type=Path,
        metavar="FILE",
        help="only let logrotate read FILE, before it lands; needs no other file",
    )


def _run(context: Context) -> Answer:
    config, options = context.config, context.options
    journal = context.journal(config)
    result = rotation.rotate(config, force=options.force, dry_run=options.dry_run, journal=journal, clock=context.clock)
    archive = None if options.dry_run else journal.rotate()
    result["journal_archive"] = str(archive or "")
    if options.dry_run:
        lines = [f"would rotate {path}" for path in result["due"]]
    else:
        lines = [
            f"{item['path']}: {size_text(item['bytes'])} to {item['archive']}; {item['proof']}"
            for item in result["rotated"]
        ]
    lines += [f"{journal.path}: old entries to {archive}"] if archive else []
    lines += [f"problem: {problem}" for problem in result["problems"]]
    return Answer(result, "\n".join(lines) or "nothing is due", DEGRADED if result["problems"] else 0)


def _check(context: Context) -> Answer:
    candidate: Path | None = context.options.candidate
    if candidate is not None:
        patterns = rotation.validate([candidate])
        return Answer({"valid": True, "patterns": patterns}, f"{candidate} is valid: {', '.join(patterns)}")
    config = context.config
    settings = config.require_rotation()
    facts = rotation.look(settings.logs, rotation.places_of(config, settings), clock=context.clock)
    files = sorted(settings.config_dir.glob("*.conf"))
    mistakes: list[str] = []
    if files:
        try:
            rotation.validate(files)
        except ConfigError as error:
            mistakes = list(error.facts["mistakes"])
    lines = [*rotation.text_of(facts), *(f"mistake: {mistake}" for mistake in mistakes)]
    data = {**facts.as_dict(), "mistakes": mistakes}
    return Answer(data, "\n".join(lines), DEGRADED if facts.refusals or mistakes else 0)
