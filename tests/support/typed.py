"""The commands that RESTORE.txt tells a person to type, as that person finds them."""

from __future__ import annotations

import re

STEPS = re.compile(r"# (?:([A-Z])\. [A-Z]{3}|(From a directory|Or from an S3 bucket))")


def steps(text: str) -> dict[str, list[str]]:
    """The indented commands of the explanation by their step: `A` and so on, and the two ways of step B."""
    found: dict[str, list[str]] = {}
    step = ""
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        heading = STEPS.match(line)
        if heading:
            step = heading.group(1) or heading.group(2)
        elif re.match(r"# {5}\S", line):
            found.setdefault(step, []).append(line[1:].strip())
    return found
