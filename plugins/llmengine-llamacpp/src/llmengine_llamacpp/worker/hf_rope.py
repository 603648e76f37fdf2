"""How positions turn a head's numbers, as config.json has it, and as llama.cpp does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["frequency_factors", "rope_base"]


def rope_base(config: Mapping[str, Any]) -> float:
    """The base of the frequencies. Raises ``ValueError`` for positions that are scaled in a way not known here."""
    rope = _rope(config)
    known = ("default", "llama3") if config.get("model_type") == "llama" else ("default",)
    if _kind(rope) not in known or rope.get("partial_rotary_factor", 1) != 1:
        raise ValueError(f"its positions are scaled ({rope}), which can't be carried over")
    return float(rope.get("rope_theta", config.get("rope_theta", 10_000.0)))


def frequency_factors(config: Mapping[str, Any], head_size: int) -> list[float] | None:
    """What each of a head's ``head_size / 2`` frequencies is divided by; None where all stay as they are.

    Scaled as since Llama 3.1: waves shorter than the original context's ``high_freq_factor``-th part stay, those
    longer than its ``low_freq_factor``-th part are stretched by ``factor``, and those between them in between.
    """
    rope = _rope(config)
    if _kind(rope) == "default":
        return None
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    factor, low, high, original = (float(rope[name]) for name in names)
    if not (factor >= 1 and 0 < low < high and original > 0):
        raise ValueError(f"its positions are scaled ({rope}) in a way that makes no sense")
    base, found = rope_base(config), []
    for number in range(0, head_size, 2):
        length = 2 * math.pi * base ** (number / head_size)
        share = min(1.0, max(0.0, (original / length - low) / (high - low)))
        found.append(1 / ((1 - share) / factor + share))
    return found


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return found


def _kind(rope: Mapping[str, Any]) -> Any:
    return rope.get("rope_type", rope.get("type", "default"))
