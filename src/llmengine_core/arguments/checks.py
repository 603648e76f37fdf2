"""The checks that every argument is put together from.

Each takes the field's name and the value as given, returns it in the core's own type, or raises
``BadRequestError`` naming the field, the value seen and what is allowed. NumPy scalars are numbers;
booleans and strings never are. Nothing else is coerced.
"""

from __future__ import annotations

import operator
import re
from numbers import Integral, Real
from typing import NoReturn
from urllib.parse import urlsplit

from llmengine_core.errors import BadRequestError

__all__ = [
    "MOST",
    "boolean",
    "headers",
    "http_url",
    "integer",
    "matching",
    "one_of",
    "real",
    "refuse",
    "shown",
    "text",
    "text_map",
    "texts",
]

SHOWN = 60
MOST = 2**63 - 1
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def shown(value: object) -> str:
    """A value for a message: its repr, at most about 60 characters, never an exception."""
    try:
        if isinstance(value, (str, bytes, list, tuple)) and len(value) > SHOWN:
            value = value[:SHOWN]
        written = repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
    return written if len(written) <= SHOWN else f"{written[:SHOWN]}…"


def refuse(field: str, value: object, allowed: str) -> NoReturn:
    """Raise the error of a field whose value isn't allowed."""
    raise BadRequestError(f"{field} is {shown(value)}; it must be {allowed}")


def integer(field: str, value: object, low: int, allowed: str, *, high: float = MOST) -> int:
    """A whole number from ``low`` to ``high``: an int or a NumPy integer, not a float such as 2.0."""
    if type(value) is not int:
        if not isinstance(value, Integral) or isinstance(value, bool):
            refuse(field, value, allowed)
        value = operator.index(value)
    if not low <= value <= high:
        refuse(field, value, allowed if value < low else f"{allowed}, and below 2**63")
    return value


def real(field: str, value: object, low: float, high: float, allowed: str) -> float:
    """A number from ``low`` to ``high``, both finite and allowed: int, float or a NumPy number; no NaN."""
    if type(value) is not float:
        if not isinstance(value, Real) or isinstance(value, bool):
            refuse(field, value, allowed)
        try:
            value = float(value)
        except OverflowError:
            refuse(field, value, allowed)
    if not low <= value <= high:
        refuse(field, value, allowed)
    return value + 0.0  # -0.0 is 0.0


def boolean(field: str, value: object) -> bool:
    """True or False, also NumPy's."""
    if value is True or value is False:
        return value
    kind = type(value)
    if kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"):
        return bool(value)
    refuse(field, value, "True or False")


def text(field: str, value: object, allowed: str = "", *, empty: bool = False) -> str:
    """A text that has a UTF-8 form: no lone surrogates. Members of string enums give their value."""
    if type(value) is not str:
        if not isinstance(value, str):
            refuse(field, value, allowed or ("a text" if empty else "a non-empty text"))
        value = str.__str__(value)
    if not value and not empty:
        refuse(field, value, allowed or "a non-empty text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            code, at = ord(value[error.start]), error.start
            raise BadRequestError(
                f"{field} holds the lone surrogate U+{code:04X} at character {at}, which UTF-8 can't write; "
                "decode the text's bytes with errors='replace' instead of 'surrogateescape'"
            ) from None
    return value


def texts(field: str, value: object, allowed: str, *, empty: bool = False) -> tuple[str, ...]:
    """A list or tuple of texts; ``empty`` says whether one of them may be ""."""
    if not isinstance(value, (list, tuple)):
        refuse(field, value, allowed)
    return tuple(text(f"{field}[{at}]", each, empty=empty) for at, each in enumerate(value))


def matching(field: str, value: object, pattern: re.Pattern[str], allowed: str) -> str:
    """A text that matches a pattern from its first to its last character."""
    found = text(field, value, allowed)
    if not pattern.fullmatch(found):
        refuse(field, found, allowed)
    return found


def one_of(field: str, value: object, allowed: tuple[str, ...]) -> str:
    """One of some texts."""
    choices = " or ".join(repr(each) for each in allowed)
    found = text(field, value, choices)
    if found not in allowed:
        refuse(field, found, choices)
    return found


def text_map(field: str, value: object) -> dict[str, str]:
    """A dict of text to text, copied; None is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        refuse(field, value, "a dict of text to text")
    return {
        text(f"a key of {field}", key): text(f"{field}[{key!r}]", each, empty=True)
        for key, each in value.items()
    }


def headers(field: str, value: object) -> dict[str, str]:
    """HTTP headers: a dict of names to values that can go out as they are (RFC 9110); None is none."""
    found = text_map(field, value)
    for name, content in found.items():
        if not HEADER_NAME.fullmatch(name):
            refuse(f"a key of {field}", name, "a header name: letters, digits and !#$%&'*+.^_`|~-")
        if not HEADER_VALUE.fullmatch(content):
            refuse(f"{field}[{name!r}]", content, "one line of printable Latin-1 characters")
    return found


def http_url(field: str, value: object) -> str:
    """An absolute http or https URL with a host."""
    allowed = "an http:// or https:// URL with a host"
    found = text(field, value, allowed)
    try:
        parts = urlsplit(found)
        reachable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        reachable = False
    if not reachable or not found.isprintable() or " " in found:
        refuse(field, found, allowed)
    return found
