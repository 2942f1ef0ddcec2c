# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hooks are told: one document for each event, and nothing secret in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..core.config import Config, TargetS3
from ..core.errors import InputError
from ..core.fsio import open_regular

FORMAT = 1
UNIT_FAILED, STATE, RECOVERED, TEST = "unit_failed", "state", "recovered", "test"
REDACTED = "[redacted]"
# `KEY: value`, as in YAML: the space tells it from a port or an address.
_COLON = re.compile(r"\s*(?:-\s+)?[\"']?[\w.-]+[\"']?\s*:\s+(\S.*)")
_USERINFO = re.compile(r"://([^/\s]+)@")
_SHORTEST_SECRET = 6  # a shorter one would blank out half of the text, and protects nothing
_MOST_BYTES = 1 << 20
_PATTERNS = (
    re.compile(r"AGE-SECRET-KEY-[0-9A-Z]+"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?<=://)[^/\s]+(?=@)"),
    re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]+"),
)


@dataclass(frozen=True)
class Event:
    """One thing that people must hear of.

    Attributes:
        event: `unit_failed`, `state` (the backups are not as they should be), `recovered` or `test`.
        unit: the systemd unit that it is about, or empty.
        result: how the unit ended, as systemd says it (`exit-code`, `timeout`, `oom-kill`, ...), or the state.
        message: one sentence for people.
        journal: the last lines of the unit's log.
        details: further JSON-serialisable facts.
    """

    event: str
    service: str
    host: str
    time: str
    result: str
    message: str
    unit: str = ""
    journal: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def document(self, secrets: Iterable[str]) -> dict[str, Any]:
        """What goes to the hooks: every text free of the secrets."""
        longest_first = sorted(set(secrets), key=len, reverse=True)
        told = {"message": self.message, "journal": list(self.journal), "details": dict(self.details)}
        return {"format": FORMAT, **self.__dict__, **_clean(told, longest_first)}


def _clean(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, Mapping):
        return {key: _clean(inner, secrets) for key, inner in value.items()}
    return [_clean(inner, secrets) for inner in value] if isinstance(value, (list, tuple)) else value


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` without these secrets, and without anything that has the form of a private key or password."""
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    for pattern in _PATTERNS:
        text = pattern.sub(REDACTED, text)
    return text


def known_secrets(config: Config) -> list[str]:
    """What must never leave the host: values in the service's configuration, credentials, ping addresses."""
    files = [*config.config_files, config.notify.ping_file]
    targets = [*config.backup.targets] if config.backup is not None else []
    if config.verify is not None:
        targets.append(config.verify.target)
        files += [config.verify.proof_credentials_file] if config.verify.proof_credentials_file else []
    files += [target.credentials_file for target in targets if isinstance(target, TargetS3)]
    found: set[str] = set()
    for path in files:
        found.update(_values(_content(path)))
    return sorted(secret for secret in found if len(secret) >= _SHORTEST_SECRET)


def _content(path: Path) -> str:
    try:
        with open_regular(path) as stream:
            return stream.read(_MOST_BYTES).decode("utf-8", "replace")
    except (InputError, OSError):  # what cannot be read cannot be in the text either
        return ""


def _values(content: str) -> set[str]:
    """The texts of a JSON document, or what stands behind each `=` and `:`; of addresses the credentials, too."""
    try:
        values = set(_texts(json.loads(content)))
    except (ValueError, RecursionError):
        values = set()
        for line in content.splitlines():
            if not line.lstrip().startswith("#"):
                values.update(_behind(line))
    for userinfo in [text for value in values for text in _USERINFO.findall(value)]:
        values.update({userinfo, *userinfo.split(":"), *(unquote(part) for part in userinfo.split(":"))})
    return values - {""}


def _behind(line: str) -> Iterable[str]:
    """What a line `NAME=value` or `NAME: value` assigns: as it stands, and without quotation marks or comment."""
    _name, separator, value = line.partition("=")
    colon = _COLON.match(line)
    for text in ([value] if separator else []) + ([colon.group(1)] if colon else []):
        for variant in (text, re.split(r"\s#", text)[0]):
            yield variant.strip()
            yield variant.strip().strip(",").strip("\"'")


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value
