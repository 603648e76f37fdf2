"""How positions turn a head's numbers: from the divisors that GGUF stores back to what they were made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from llmengine_transformers.worker.gguf_file import NotFit

__all__ = ["rope_parameters"]

LOW, HIGH, ORIGINAL = 1.0, 4.0, 8_192
"""Of every Llama since 3.1: waves longer than the original context are stretched, those shorter than a fourth of it
are not, and those between them in between."""


def rope_parameters(base: float, head_size: int, divisors: np.ndarray | None) -> Mapping[str, Any]:
    """What config.json says. Raises ``NotFit`` for divisors that come from no parameters known here."""
    if divisors is None:
        return {"rope_type": "default", "rope_theta": base}
    factor = float(divisors.max())
    waves = 2 * np.pi * base ** (np.arange(0, head_size, 2) / head_size)
    share = np.clip((ORIGINAL / waves - LOW) / (HIGH - LOW), 0, 1)
    if not np.isfinite(factor) or not np.allclose(
        1 / ((1 - share) / factor + share), divisors, rtol=1e-5, atol=0
    ):
        raise NotFit("its rope_freqs.weight scale positions in a way that isn't known here")
    return {
        "rope_type": "llama3",
        "rope_theta": base,
        "factor": float(round(factor)) if abs(factor - round(factor)) < 1e-4 else factor,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": ORIGINAL,
    }
