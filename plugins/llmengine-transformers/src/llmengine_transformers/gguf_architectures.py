"""Which GGUF files come out right as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["CLASSES"]

CLASSES: Final[Mapping[str, str]] = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""By architecture, the model's class. Their converted models were held against llama.cpp's; what else there is, is
refused, not guessed."""
