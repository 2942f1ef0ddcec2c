# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts of logs as they may be shown: without secrets, without characters that act instead of being seen."""

from __future__ import annotations

import re

REDACTED = "<redacted>"
_NAMES = (
    "passw(?:or)?d|passphrase|pwd|secret|token|api[ _-]?key|authorization|private[ _-]?key|access[ _-]?key|credential|"
    "cookie|session[ _-]?id|signature|(?:signing|encryption|listen|account)[ _-]?key|(?<![a-z])(?:auth|pass)(?![a-z])"
)
# Each name has one of these in it, which are found much faster.
_PARTS = ("pass", "pwd", "secret", "token", "key", "auth", "credential", "cookie", "session", "signature")
_EQUALS = r"(?:\\?[\"']\s{0,20},|\\?[\"']?\s{0,20}(?:=>|->|:=|[:=]+|%3d))\s{0,20}\\?"
_QUOTED = r"(?:\w{0,20}\(?(?:\w{1,20}=)?)?"  # what may stand before the quote: b"", SecretStr('')
# What nothing encloses ends at a blank, at a separator before a blank, and where the next name follows.
_NEXT = r"[A-Za-z_][\w.-]{0,40}\s?="
_BARE = rf"(?:[^\s,;&\"'\\}})\]]|[,;&\"'}})\]](?=[^\s,;&\"'\\}})\]])(?!{_NEXT})|\\(?=\w))+"
# A name, and behind `=` or `:` its value, quoted in any way that JSON, Python or a shell may have.
_NAMED = re.compile(
    rf"((?:{_NAMES})[\w-]{{0,24}}{_EQUALS})"
    rf"({_QUOTED}(?:(?<!\\)\"(?:[^\"\\]|\\.)*|(?<!\\)'(?:[^'\\]|\\.)*|\"[^\"\\]*|'[^'\\]*)"
    rf"|\[[^\]]*|(?:Bearer|Basic|Token)\s+[^\s,;\"'\\]+|{_BARE})",
    re.IGNORECASE,
)
# What people choose may have blanks in it: up to the next name, or to what no sentence goes on behind.
_CHOSEN_NAMES = r"(?:passw(?:or)?d|passphrase|pwd|(?<![a-z])pass(?![a-z]))[\w-]{0,24}"
_WORDS = rf"{_BARE}(?:[ \t]{{1,8}}(?!{_NEXT}|[A-Za-z_][\w.-]{{0,40}}:|HTTP/|[-|>]\s){_BARE})*"
_CHOSEN = re.compile(rf"({_CHOSEN_NAMES}{_EQUALS})(?!{_QUOTED}[\"'\[]){_WORDS}", re.IGNORECASE)
# "the password is x", but not "the password is wrong".
_ORDINARY = (
    "a|an|about|absent|accepted|all|already|also|always|available|bad|based|being|blank|cached|changed|checked|"
    "configured|created|deleted|denied|deprecated|different|disabled|due|empty|enabled|encrypted|equal|expired|"
    "expiring|for|from|generated|ignored|in|incorrect|invalid|kept|loaded|long|longer|lost|malformed|mandatory|"
    "missing|needed|never|no|none|not|now|null|of|ok|on|only|optional|present|provided|read|refreshed|refused|"
    "rejected|removed|renewed|required|reset|revoked|rotated|sent|set|short|shorter|still|stored|supplied|the|to|"
    "too|unavailable|unchanged|unknown|unset|unsupported|unused|updated|used|valid|verified|weak|wrong"
)
_IS = (
    r"\s{1,4}(?:(?:set|changed|reset)\s{1,4}to|is|was|are|were)(?:\s{0,4}:)?\s{1,4}"
    rf"(?!(?:{_ORDINARY})(?![\w/+-]))"
)
_SAID = re.compile(rf"((?:{_NAMES})[\w-]{{0,24}}{_IS})(?:\"[^\"]*|'[^']*|{_BARE})", re.IGNORECASE)
_CHOSEN_SAID = re.compile(rf"({_CHOSEN_NAMES}(?:{_IS}|\s{{1,4}}(?=[\"'])))(?:\"[^\"]*|'[^']*|{_WORDS})", re.IGNORECASE)
# Headers whose values are more than one word.
_HEADER = re.compile(
    r"((?:authorization|cookie)\s{0,4}:\s{0,4})(?:[^\"'\\\n=]|=\"[^\"\n]*\"?|=\\\"[^\"\n]*\"?|=)+", re.IGNORECASE
)
_DIGEST = re.compile(
    r"\b(Digest\s{1,4})(?=(?:username|realm|c?nonce|nc|qop|uri|response|opaque|algorithm)\s{0,4}=)[^\n]+", re.IGNORECASE
)
_OPTION = re.compile(
    rf"((?<![\w-])--?[\w-]{{0,40}}(?:{_NAMES})[\w-]{{0,24}}\s{{1,4}})(?![-=:])(?:\"[^\"]*|'[^']*|[^\s\"']+)",
    re.IGNORECASE,
)
_ELEMENT = re.compile(rf"(<[\w-]{{0,20}}(?:{_NAMES})[\w-]{{0,24}}>)[^<]+", re.IGNORECASE)
# A line of a key in PEM, whatever stands before it; its first line may be another event.
_PEM = re.compile(
    r"(?m)^((?:[^\S\n]|[|>+\"']){0,80})(?![/+])(?:[A-Za-z0-9+/]{40,}={0,2}|[A-Za-z0-9+/]{4,}={1,2})"
    r"(?=(?:\\[nr])*[\",\s]*$)"
)
_HOOK = re.compile(r"((?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/)\S+")
_USER = re.compile(r"(\w://)[^\s:/@\"']{8,}@")
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_URL = re.compile(r"\w://[^\s\"']+")
_BEFORE_PASSWORD = re.compile(r"\w://[^\s:/@]{0,100}:(?!\d+[/?])")
_JSON_WEB_TOKEN = re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]{8,}(?:\.[\w-]*)?)?")
_KNOWN = re.compile(
    r"\b(?:AKIA|ASIA|AIza|gh[pousr]_|github_pat_|glpat-|xox[a-z]-|sk[-_]|rk_|whsec_)[A-Za-z0-9_-]{10,}"
    r"|\bAGE-SECRET-KEY-[0-9A-Z]+"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[^-]|-(?!----))*"
    r"(?:-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?"
)
# Keys by their looks: 40 letters of base64; 32 of three kinds; 32 hexadecimal digits.
_LEAST_RUN = 32
_RUN = re.compile(rf"[A-Za-z0-9+/_-]{{{_LEAST_RUN}}}")
_KEY = re.compile(r"(?<![\w/+])[A-Za-z0-9/+]{40}(?![\w/+])")
_LONG = re.compile(r"[A-Za-z0-9+_-]{32,}={0,2}")
_MIXED = (re.compile("[a-z]"), re.compile("[A-Z]"), re.compile("[0-9]"))
_HEX = re.compile(r"(?<![0-9A-Za-z])(?=[0-9]*[A-Fa-f])(?=[A-Fa-f]*[0-9])(?:[0-9a-f]{32,}|[0-9A-F]{32,})(?![0-9A-Za-z])")
# Hexadecimal digits behind one of these are no key: digests of what everybody may have, revisions, ids of events.
_PUBLIC = re.compile(
    r"(?<![a-z])(?:sha-?\d{1,3}|md5|blake\w{1,4}|digest|checksum|etag|commit|revision|rev|release|version"
    r"|(?:trace|span|request|correlation|order|trade|job|run|task|event|message)[ _-]?id"
    r"|(?<!session[ _-])(?<!key[ _-])id)"
    r"(?:\\?[\"'])?\s{0,4}[=:@/_-]?\s{0,4}(?:\\?[\"'(])?(?:sha\d{1,3}[:-])?$",
    re.IGNORECASE,
)
_MOST_BEFORE = 60
_BEGINNINGS = (
    *("AKIA", "ASIA", "AIza", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "sk-", "sk_"),
    *("rk_", "whsec_", "AGE-SECRET-KEY-", "-----BEGIN "),
)
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_COLOUR = re.compile("\x1b\\[[0-9;]*m")


def redact(text: str) -> str:
    """The text with `<redacted>` in the place of passwords, tokens and keys; in time proportional to its length.

    What is replaced never depends on which digit stands somewhere, only on whether one does.
    """
    folded = text.casefold()
    if "eyj" in folded:
        text = _JSON_WEB_TOKEN.sub(_hide_if_dotted, text)
    if _one_of(_BEGINNINGS, text):
        text = _KNOWN.sub(REDACTED, text)
    if "/services/" in text or "/webhooks/" in text:
        text = _HOOK.sub(rf"\1{REDACTED}", text)
    if "digest" in folded:
        text = _DIGEST.sub(rf"\1{REDACTED}", text)
    named = _one_of(_PARTS, folded)
    if named:
        for pattern in (_HEADER, _OPTION, _ELEMENT):
            text = pattern.sub(rf"\1{REDACTED}", text)
    if "\n" in text or _PEM.match(text):
        text = _PEM.sub(rf"\1{REDACTED}", text)
    if named:
        for pattern in (_CHOSEN, _CHOSEN_SAID, _NAMED, _SAID):
            text = pattern.sub(_hide_value, text)
    if "bearer" in folded or "basic" in folded:
        text = _BEARER.sub(rf"\1 {REDACTED}", text)
    if "://" in text and "@" in text:
        text = _USER.sub(rf"\1{REDACTED}@", _URL.sub(_hide_password, text))
    if len(max(text.split(), key=len, default="")) >= _LEAST_RUN and _RUN.search(text):
        text = _LONG.sub(_hide_if_random, _KEY.sub(_hide_if_random, text))
    return text


def _one_of(parts: tuple[str, ...], text: str) -> bool:
    for part in parts:  # noqa: SIM110 - a generator takes longer than what it looks for
        if part in text:
            return True
    return False


def clean(data: bytes, most: int) -> str:
    """At most `most` characters of a line as text that can be shown: redacted, without control characters."""
    text = data[: 2 * most].decode("utf-8", "replace")
    if "\x1b" in text:
        text = _COLOUR.sub("", text)
    text = redact(text)
    if not text.isprintable():
        text = _ACTING.sub(_visible, text)
    return text if len(text) <= most else text[: most - 1] + "…"


def shown(name: str) -> str:
    """The name of a file as text that can be stored and shown, whatever its bytes are."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return re.sub("[\t\n]", _visible, _ACTING.sub(_visible, text))


def _hide_value(match: re.Match[str]) -> str:
    value = match[0][len(match[1]) :]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{match[1]}{quote}{REDACTED}"


def _hide_if_dotted(match: re.Match[str]) -> str:
    return REDACTED if "." in match[0] else match[0]


def _hide_password(match: re.Match[str]) -> str:
    """Whatever is between a user's name and the last @."""
    url = match[0]
    end = url.rfind("@")
    begin = _BEFORE_PASSWORD.search(url, 0, end) if end > 0 else None
    return f"{url[: begin.end()]}{REDACTED}{url[end:]}" if begin is not None and begin.end() < end else url


def _hide_if_random(match: re.Match[str]) -> str:
    if all(kind.search(match[0]) for kind in _MIXED):
        return REDACTED
    return _HEX.sub(lambda found: _hide_if_secret(found, match), match[0])


def _hide_if_secret(found: re.Match[str], run: re.Match[str]) -> str:
    end = run.start() + found.start()
    return found[0] if _PUBLIC.search(run.string[max(0, end - _MOST_BEFORE) : end]) else REDACTED


def _visible(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}" if match[0] < "\u0100" else f"\\u{ord(match[0]):04x}"
