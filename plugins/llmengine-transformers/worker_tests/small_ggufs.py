"""Small GGUF files of every architecture that is converted, written by the format's own package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

WIDTH, INNER, LAYERS, HEADS, KV_HEADS = 64, 96, 2, 4, 2
CONTROL, NORMAL, USER_DEFINED = 3, 1, 4


def byte_alphabet() -> list[str]:
    """How byte-level tokenizers write each byte: printable ones as they are, the others from U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = {byte: chr(256 + n) for n, byte in enumerate(byte for byte in range(256) if byte not in plain)}
    return [others.get(byte, chr(byte)) for byte in range(256)]


SPACE = byte_alphabet()[32]
MERGES = [
    "t h", "th e", f"{SPACE} the", f"{SPACE} t", "i n", f"{SPACE} 1", "1 2", "12 3", "' s", f"{SPACE} {SPACE}", "Ċ Ċ",
]  # fmt: skip
TOKENS = [
    "<|start|>", "<|end|>", *byte_alphabet(), *["".join(merge.split(" ")) for merge in MERGES], "<think>", "<|turn|>",
]  # fmt: skip
TYPES = [CONTROL, CONTROL, *[NORMAL] * (len(TOKENS) - 4), USER_DEFINED, CONTROL]


def head_size(architecture: str) -> int:
    """The library doesn't read how wide the heads of qwen3 are, and takes them for 128."""
    return 128 if architecture == "qwen3" else 16


def shapes(architecture: str, *, tied: bool) -> dict[str, tuple[int, ...]]:
    """All tensors of a model, by name; the length of a row last."""
    head = head_size(architecture)
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(TOKENS), WIDTH)}
    for layer in range(LAYERS):
        each = {
            "attn_norm.weight": (WIDTH,),
            "attn_q.weight": (HEADS * head, WIDTH),
            "attn_k.weight": (KV_HEADS * head, WIDTH),
            "attn_v.weight": (KV_HEADS * head, WIDTH),
            "attn_output.weight": (WIDTH, HEADS * head),
            "ffn_norm.weight": (WIDTH,),
            "ffn_gate.weight": (INNER, WIDTH),
            "ffn_up.weight": (INNER, WIDTH),
            "ffn_down.weight": (WIDTH, INNER),
        }
        if architecture == "qwen2":
            each |= {"attn_q.bias": (HEADS * head,), "attn_k.bias": (KV_HEADS * head,)}
            each |= {"attn_v.bias": (KV_HEADS * head,)}
        if architecture == "qwen3":
            each |= {"attn_q_norm.weight": (head,), "attn_k_norm.weight": (head,)}
        found |= {f"blk.{layer}.{name}": shape for name, shape in each.items()}
    found["output_norm.weight"] = (WIDTH,)
    return found if tied else found | {"output.weight": (len(TOKENS), WIDTH)}


def write(
    path: Path,
    architecture: str = "llama",
    *,
    pre: str = "gpt-2",
    kind: str = "F16",
    tied: bool = True,
    add: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray | None] | None = None,
    tokens: list[str] | None = None,
) -> Path:
    """A whole file. ``add`` replaces metadata, ``tensors`` weights; None leaves one out."""
    writer = gguf.GGUFWriter(path, architecture)
    metadata = {
        f"{architecture}.context_length": 128,
        f"{architecture}.embedding_length": WIDTH,
        f"{architecture}.block_count": LAYERS,
        f"{architecture}.feed_forward_length": INNER,
        f"{architecture}.attention.head_count": HEADS,
        f"{architecture}.attention.head_count_kv": KV_HEADS,
        f"{architecture}.attention.key_length": head_size(architecture),
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{architecture}.rope.freq_base": 10_000.0,
        f"{architecture}.vocab_size": len(TOKENS),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens or TOKENS,
        "tokenizer.ggml.token_type": TYPES,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}",
        **(add or {}),
    }
    for name, value in metadata.items():
        if value is None:
            continue
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_float32(name, value)
    numbers = np.random.default_rng(7)
    weights: dict[str, np.ndarray | None] = {
        name: numbers.normal(scale=0.1, size=shape).astype(np.float32) + (1.0 if "norm" in name else 0.0)
        for name, shape in shapes(architecture, tied=tied).items()
    }
    for name, weight in (weights | dict(tensors or {})).items():
        if weight is None:
            continue
        stored = gguf.GGMLQuantizationType[kind if weight.ndim > 1 and weight.shape[-1] % 32 == 0 else "F32"]
        data = gguf.quants.quantize(weight.astype(np.float32), stored)
        writer.add_tensor(name, data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
