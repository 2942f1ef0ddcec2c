# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts of logs as they may be shown: without secrets, without characters that act instead of being seen."""

from __future__ import annotations

import re

REDACTED = "<redacted>"
_NAMES = (
    "passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|authorization|private[_-]?key|access[_-]?key|credential|"
    "cookie|session[_-]?id|signature|(?:signing|encryption|listen|account)[_-]?key|(?<![a-z])(?:auth|pass)(?![a-z])"
)
# A name, and behind `=` or `:` its value, quoted in any way that JSON, Python or a shell may have.
_NAMED = re.compile(
    rf"((?:{_NAMES})[\w-]{{0,24}}(?:\\?[\"']\s{{0,20}},|\\?[\"']?\s{{0,20}}(?:=>|->|:=|[:=]+|%3d))\s{{0,20}}\\?)"
    r"((?:\w{0,20}\(?(?:\w{1,20}=)?)?(?:(?<!\\)\"(?:[^\"\\]|\\.)*|(?<!\\)'(?:[^'\\]|\\.)*|\"[^\"\\]*|'[^'\\]*)"
    r"|\[[^\]]*|(?:Bearer|Basic|Token)\s+[^\s,;\"'\\]+|[^\s,;&\"'\\})\]]+)",
    re.IGNORECASE,
)
# Headers whose values are more than one word.
_HEADER = re.compile(
    r"((?:authorization|cookie)\s{0,4}:\s{0,4})[^\"'\\\n]+(?:=\"[^\"\n]*\"[^\"'\\\n]*)*", re.IGNORECASE
)
_OPTION = re.compile(rf"(--?[\w-]{{0,20}}(?:{_NAMES})[\w-]{{0,24}}\s{{1,4}})(?![-=:])[^\s\"']+", re.IGNORECASE)
_ELEMENT = re.compile(rf"(<[\w-]{{0,20}}(?:{_NAMES})[\w-]{{0,24}}>)[^<]+", re.IGNORECASE)
# A line of a key in PEM, whatever stands before it; its first line may be another event. Then keys of 40 such letters.
_PEM = re.compile(
    r"(?m)^([\s|>+\"']*)(?:(?!/)[A-Za-z0-9+/]{40,}={0,2}|[A-Za-z0-9+/]{4,}={1,2})(?=(?:\\[nr])*[\"',\s]*$)"
)
_KEY = re.compile(r"(?<![\w/+])[A-Za-z0-9/+]{40}(?![\w/+])")
_HOOK = re.compile(r"((?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/)\S+")
_USER = re.compile(r"(\w://)[^\s:/@\"']{8,}@")
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_IN_URL = re.compile(r"(\w://[^\s:/@]{0,100}:)(?!\d+[/?])[^\s\"']+@")
_KNOWN = re.compile(
    r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"  # JSON web tokens
    r"|\b(?:AKIA|ASIA|AIza|gh[pousr]_|github_pat_|glpat-|xox[a-z]-|sk[-_]|rk_|whsec_)[A-Za-z0-9_-]{10,}"
    r"|\bAGE-SECRET-KEY-[0-9A-Z]+"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[^-]|-(?!----))*"
    r"(?:-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?"
)
_LONG = re.compile(r"[A-Za-z0-9+_-]{32,}={0,2}")
_MIXED = (re.compile("[a-z]"), re.compile("[A-Z]"), re.compile("[0-9]"))
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_COLOUR = re.compile("\x1b\\[[0-9;]*m")


def redact(text: str) -> str:
    """The text with `<redacted>` in the place of passwords, tokens and keys.

    What is replaced never depends on which digit stands somewhere, only on whether one does.
    """
    text = _KNOWN.sub(REDACTED, text)
    text = _HOOK.sub(rf"\1{REDACTED}", text)
    text = _HEADER.sub(rf"\1{REDACTED}", text)
    for pattern in (_OPTION, _ELEMENT, _PEM):
        text = pattern.sub(rf"\1{REDACTED}", text)
    text = _NAMED.sub(_hide_value, text)
    text = _BEARER.sub(rf"\1 {REDACTED}", text)
    text = _IN_URL.sub(rf"\1{REDACTED}@", text)
    text = _USER.sub(rf"\1{REDACTED}@", text)
    return _LONG.sub(_hide_if_random, _KEY.sub(_hide_if_random, text))


def clean(data: bytes, most: int) -> str:
    """At most `most` characters of a line as text that can be shown: redacted, without control characters."""
    text = _COLOUR.sub("", data[: 2 * most].decode("utf-8", "replace"))
    text = _ACTING.sub(_visible, redact(text))
    return text if len(text) <= most else text[: most - 1] + "…"


def shown(name: str) -> str:
    """The name of a file as text that can be stored and shown, whatever its bytes are."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return re.sub("[\t\n]", _visible, _ACTING.sub(_visible, text))


def _hide_value(match: re.Match[str]) -> str:
    quote = match[2][0] if match[2][0] in "\"'" else ""
    return f"{match[1]}{quote}{REDACTED}"


def _hide_if_random(match: re.Match[str]) -> str:
    return REDACTED if all(kind.search(match[0]) for kind in _MIXED) else match[0]


def _visible(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}" if match[0] < "\u0100" else f"\\u{ord(match[0]):04x}"
