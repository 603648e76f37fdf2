"""JSON texts and their canonical spelling."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["canonical", "canonical_start"]

_PART = re.compile(
    r"""(?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")|(?P<blank>[ \t\r\n]+)|(?P<open>"(?:[^"\\\x00-\x1f]|\\.)*\\?\Z)"""
    r"""|(?P<mark>[\[\]{}:,])|(?P<word>[^"\s\[\]{}:,]+)""",
    re.DOTALL,
)
_UNFINISHED = re.compile(
    r"""(?<!\\)((?:\\\\)*)(?:(?:\\u[dD][89abAB][0-9a-fA-F]{2})?\\(?:u[0-9a-fA-F]{0,3})?|\\u[dD][89abAB][0-9a-fA-F]{2})\Z"""
)
"""An escape that more has to follow, at the end of a text."""


def canonical(text: str) -> str | None:
    """The text as most programs read it, or None where it is no JSON.

    A name that repeats keeps its last value, and names and strings are spelled without needless escapes:
    ``{"a": 1, "\\u0061": 2}`` is ``{"a":2}``. Numbers stay as they are written.
    """
    try:
        value = json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_refuse)
        return _write(value)
    except (ValueError, RecursionError):
        return None


def canonical_start(text: str) -> str | None:
    """The beginning of a JSON text, spelled as ``canonical`` does; None where no JSON text begins so.

    What has to be followed by more is left out: blanks at the end, half of an escape.
    """
    found: list[str] = []
    blank, place = False, 0
    while place < len(text):
        part = _PART.match(text, place)
        if part is None:
            return None
        place = part.end()
        kind, spelled = part.lastgroup, part[0]
        if kind == "blank":
            blank = True
            continue
        if blank and kind == "word" and found and found[-1][-1] not in "[]{}:,":
            return None  # blanks part two words
        blank = False
        try:
            if kind == "string":
                spelled = _write(json.loads(spelled))
            elif kind == "open":
                spelled = _write(json.loads(_UNFINISHED.sub(r"\1", spelled) + '"'))[:-1]
        except ValueError:
            return None
        found.append(spelled)
    return "".join(found)


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _write(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{_write(name)}:{_write(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_write, value)) + "]"
    if isinstance(value, _Number):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
