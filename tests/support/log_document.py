# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check that a data document of a log report is what its types say: each key, no other, of the right type."""

from __future__ import annotations

import types
import typing
from typing import Any

from fluxmaint.logs import summary


def mistakes(value: Any, wanted: Any = summary.Document, path: str = "document") -> list[str]:
    """What does not fit, each with its path; empty for a document that holds to its description."""
    origin = typing.get_origin(wanted)
    if typing.is_typeddict(wanted):
        if not isinstance(value, dict):
            return [f"{path} is no object"]
        hints = typing.get_type_hints(wanted)
        found = [f"{path}.{key} is missing" for key in sorted(set(hints) - set(value))]
        found += [f"{path}.{key} is not known" for key in sorted(set(value) - set(hints))]
        return found + [
            text for key in hints if key in value for text in mistakes(value[key], hints[key], f"{path}.{key}")
        ]
    if origin in (typing.Union, types.UnionType):
        tried = [mistakes(value, choice, path) for choice in typing.get_args(wanted)]
        return [] if [] in tried else tried[0]
    if origin is list:
        if not isinstance(value, list):
            return [f"{path} is no list"]
        inner = typing.get_args(wanted)[0]
        return [text for index, item in enumerate(value) for text in mistakes(item, inner, f"{path}[{index}]")]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{path} is no object"]
        inner = typing.get_args(wanted)[1]
        return [text for key, item in value.items() for text in mistakes(item, inner, f"{path}[{key!r}]")]
    fits = isinstance(value, (int, float) if wanted is float else wanted)
    if wanted is not bool and isinstance(value, bool):
        fits = False
    return [] if fits else [f"{path} is {value!r}, no {wanted.__name__}"]
