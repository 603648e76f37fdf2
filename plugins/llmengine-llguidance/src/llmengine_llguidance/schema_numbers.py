"""Numbers of a schema, and the range that it leaves to those of a text, as far as the compiler keeps them exactly.

It holds them as doubles and writes them out in decimal: whole numbers are exact up to 2⁵³, others where they
have few digits. A bound that is not exact is drawn in to one that is.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from llmengine_llguidance import limits

__all__ = ["InexactNumberError", "is_exact", "number_range"]


class InexactNumberError(Exception):
    """A number is where doubles are too far apart to keep it."""

    def __init__(self, keyword: str, value: float) -> None:
        super().__init__(f"{value} is not exact as a double")
        self.keyword = keyword


def is_exact(value: float) -> bool:
    """Whether the compiler keeps the number as it is."""
    if isinstance(value, int):
        return abs(value) <= limits.EXACT_INTEGER
    exponent, digits = _exponent(value), len(Decimal(repr(value)).normalize().as_tuple().digits)
    return (
        abs(value) <= limits.EXACT_INTEGER
        and digits <= limits.EXACT_DIGITS
        and -exponent <= limits.EXACT_DIGITS
    )


def number_range(schema: dict[str, Any], *, whole: bool) -> dict[str, Any] | None:
    """At most a ``minimum`` and a ``maximum`` that say what the schema's four bounds say; None where they never meet.

    An exclusive bound becomes the next inclusive one: of exclusive ones beside fractions, llguidance lets the
    bound itself through. Raises ``InexactNumberError`` where a bound leaves only numbers that are not exact.
    """
    lows = [
        (schema[each], each == "exclusiveMinimum")
        for each in ("minimum", "exclusiveMinimum")
        if each in schema
    ]
    highs = [
        (schema[each], each != "exclusiveMaximum")
        for each in ("maximum", "exclusiveMaximum")
        if each in schema
    ]
    bounds: dict[str, Any] = {}
    if lows:
        low, is_exclusive = max(lows)
        bounds["minimum"] = _next(low, 1, whole=whole, is_exclusive=is_exclusive)
    if highs:
        high, is_inclusive = min(highs)
        bounds["maximum"] = _next(high, -1, whole=whole, is_exclusive=not is_inclusive)
    return None if lows and highs and bounds["minimum"] > bounds["maximum"] else bounds


def _next(bound: float, inward: int, *, whole: bool, is_exclusive: bool) -> float:
    """The first exact number from the bound in this direction, 1 or -1; not the bound itself where exclusive."""
    if inward * bound >= limits.EXACT_INTEGER:
        raise InexactNumberError("minimum" if inward > 0 else "maximum", bound)
    if inward * bound <= -limits.EXACT_INTEGER:
        return -inward * limits.EXACT_INTEGER
    integer_digits = len(str(abs(int(bound)))) if abs(bound) >= 1 else 0
    places = 0 if whole else max(limits.EXACT_DIGITS - integer_digits, 0)
    step = Decimal(1).scaleb(-places)
    rounded = Decimal(repr(bound)).quantize(step, rounding=ROUND_CEILING if inward > 0 else ROUND_FLOOR)
    if is_exclusive and rounded == Decimal(repr(bound)):
        rounded += inward * step
    return int(rounded) if rounded == int(rounded) else float(rounded)


def _exponent(value: float) -> int:
    return int(Decimal(repr(value)).normalize().as_tuple().exponent)
