"""JSON texts and their canonical spelling."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["canonical", "unescaped_slashes"]

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


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


def unescaped_slashes(text: str) -> str:
    """The beginning of a JSON text with ``/`` for ``\\/``, which one matcher allows and another doesn't."""
    return _ESCAPE.sub(lambda escape: "/" if escape[1] == "/" else escape[0], text)


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
