"""The range that a schema leaves to numbers, in bounds that the compiler keeps exactly."""

from __future__ import annotations

import math
from typing import Any

from llmengine_llguidance import limits

__all__ = ["InexactBoundError", "number_range"]


class InexactBoundError(Exception):
    """A bound is where doubles are too far apart to keep it."""

    def __init__(self, keyword: str, value: float) -> None:
        super().__init__(f"{value} is not exact as a double")
        self.keyword = keyword


def number_range(schema: dict[str, Any], *, whole: bool) -> dict[str, Any] | None:
    """At most one lower and one upper bound that say what the schema's four may say; None where they meet nowhere.

    ``whole`` numbers get whole, inclusive bounds. A bound further out than doubles are exact is drawn in.
    """
    lows = [(schema[each], each) for each in ("minimum", "exclusiveMinimum") if each in schema]
    highs = [(schema[each], each) for each in ("maximum", "exclusiveMaximum") if each in schema]
    # Of equal bounds the exclusive one is the tighter; its name is the smaller one.
    low, low_keyword = max(
        lows, key=lambda bound: (bound[0], bound[1] == "exclusiveMinimum"), default=(None, "")
    )
    high, high_keyword = min(
        highs, key=lambda bound: (bound[0], bound[1] != "exclusiveMaximum"), default=(None, "")
    )
    if whole and low is not None:
        low = math.floor(low) + 1 if low_keyword == "exclusiveMinimum" else math.ceil(low)
        low_keyword = "minimum"
    if whole and high is not None:
        high = math.ceil(high) - 1 if high_keyword == "exclusiveMaximum" else math.floor(high)
        high_keyword = "maximum"
    if low is not None and high is not None and low >= high:
        inclusive = (low_keyword, high_keyword) == ("minimum", "maximum")
        if low > high or not inclusive:
            return None
    if low is not None and low > limits.EXACT_INTEGER:
        raise InexactBoundError(low_keyword, low)
    if high is not None and high < -limits.EXACT_INTEGER:
        raise InexactBoundError(high_keyword, high)
    bounds: dict[str, Any] = {}
    if low is not None:
        bounds[low_keyword] = max(low, -limits.EXACT_INTEGER)
    if high is not None:
        bounds[high_keyword] = min(high, limits.EXACT_INTEGER)
    return bounds
