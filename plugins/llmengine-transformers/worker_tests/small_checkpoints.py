"""Small random models with a tokenizer, saved as checkpoints are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from small_tokenizers import byte_level, made
from transformers import LlamaConfig, LlamaForCausalLM

__all__ = ["save_llama", "tiny_llama"]


def tiny_llama(seed: int = 0, **options: Any) -> LlamaForCausalLM:
    """Two layers of 64 numbers, whose head is the embedding."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        **{
            "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
            "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 1, "initializer_range": 0.3,
        } | options
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def save_llama(folder: Path, dtype: torch.dtype = torch.float32, shard: str = "5GB", **options: Any) -> Path:
    """A checkpoint of one, with a byte-level tokenizer."""
    tiny_llama(**options).to(dtype).save_pretrained(folder, max_shard_size=shard)
    made(byte_level()).save_pretrained(folder)
    return folder
