# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign text made harmless, and HTML made of elements: what is not `Markup` is escaped, wherever it is put."""

from __future__ import annotations

import html
import unicodedata
from typing import Union

# Longest text of a message or a name; samples may be longer, tracebacks are read in them.
TEXT_LIMIT = 400
SAMPLE_LIMIT = 6000
# Control and format characters (direction, zero width), surrogates, private and unassigned ones, line separators.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Marks that are drawn over the character before them: many would be drawn over the lines above and below.
_MARKS = {"Mn", "Me"}
_MOST_MARKS = 2
_VOID = {"meta", "line", "rect", "circle", "path"}

Attribute = Union[str, int, None]


def visible(text: str, limit: int = TEXT_LIMIT, *, lines: bool = False) -> str:
    """A text that shows what it holds: characters that are not seen, or that change what is seen, become escapes.

    Args:
        limit: characters that are kept; how many are cut off is said.
        lines: whether line ends and tabs stay what they are.
    """
    cut = len(text) - limit
    text = text[:limit]
    cut_off = f"… ({cut:,} more characters)" if cut > 0 else ""
    if text.isascii() and text.isprintable():
        return text + cut_off
    marks = 0
    shown: list[str] = []
    for character in text:
        category = unicodedata.category(character) if character > "~" or character < " " else ""
        marks = marks + 1 if category in _MARKS else 0
        if lines and character in "\n\t":
            shown.append(character)
        elif character == "\x7f" or category in _UNSEEN or marks > _MOST_MARKS or (marks and not shown):
            shown.append(_escape(character))
        else:
            shown.append(character)
    return "".join(shown) + cut_off


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Markup(str):
    """Text that is HTML, or SVG in it."""

    __slots__ = ()


def tag(element: str, *children: str, **attributes: Attribute) -> Markup:
    """An element. Children that are not Markup are escaped, as all attributes are; an attribute of None is left out.

    `class_` stands for `class`, and `_` for `-` in the names of attributes.
    """
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(visible(str(value)))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if element in _VOID and not children:
        return Markup(f"<{element}{named}>" if element == "meta" else f"<{element}{named}/>")
    return Markup(f"<{element}{named}>{join(*children)}</{element}>")


def join(*parts: str) -> Markup:
    """Parts one after the other; those that are not Markup are escaped."""
    return Markup("".join(part if isinstance(part, Markup) else html.escape(visible(part)) for part in parts))


def foreign(text: str, element: str = "bdi", *, limit: int = TEXT_LIMIT, class_: str | None = None) -> Markup:
    """A text that somebody else has written, apart from what stands around it, also in its direction of writing."""
    return tag(element, Markup(html.escape(visible(text, limit))), class_=class_)


def foreign_lines(text: str) -> Markup:
    """Such a text with its lines."""
    return tag("pre", tag("bdi", Markup(html.escape(visible(text, SAMPLE_LIMIT, lines=True)))))
