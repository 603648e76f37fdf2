"""Small checkpoints for transforms to work on, written from the formats' own descriptions.

All numbers come from a generator with a fixed seed: each call writes the same bytes.
"""

from __future__ import annotations

import array
import json
import random
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["GGUF_SHAPES", "KINDS", "gguf_bytes", "gguf_file", "hugging_face_folder"]

KINDS = ("llama", "qwen2", "qwen3")
"""Architectures that a folder can be of."""
WIDTH, INNER, HEADS, KV_HEADS = 64, 96, 4, 2
HEAD = WIDTH // HEADS
MERGES = ("t h", "th e", "i n", "1 2")
ALIGNMENT = 32
GGUF_SHAPES: Mapping[str, tuple[int, ...]] = {
    "token_embd.weight": (96, WIDTH),
    "blk.0.attn_norm.weight": (WIDTH,),
    "blk.0.attn_q.weight": (WIDTH, WIDTH),
    "blk.0.ffn_down.weight": (WIDTH, INNER),
    "blk.0.ffn_up.weight": (INNER, WIDTH),
    "output_norm.weight": (WIDTH,),
}
"""Tensors of a GGUF file by name, rows first."""


def hugging_face_folder(folder: Path, kind: str = "llama") -> Path:
    """A language model of one layer as Transformers stores it: config, tokenizer, and weights as 32-bit floats."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = _tokens()
    shapes = _shapes(kind, len(tokens))
    written = {
        "config.json": _config(kind, len(tokens)),
        "tokenizer.json": _tokenizer(tokens),
        "tokenizer_config.json": {"eos_token": tokens[1], "tokenizer_class": "PreTrainedTokenizerFast"},
    }
    for name, content in written.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "model.safetensors").write_bytes(_safetensors(shapes))
    return folder


def gguf_file(path: Path, architecture: str = "llama") -> Path:
    """A GGUF file of such a model, without a vocabulary, so that no engine serves it."""
    tensors = {name: (0, _floats(name, shape)) for name, shape in GGUF_SHAPES.items()}
    path.write_bytes(gguf_bytes(architecture, tensors, file_type=0))
    return path


def gguf_bytes(architecture: str, tensors: Mapping[str, tuple[int, bytes]], *, file_type: int) -> bytes:
    """A whole file with the tensors of ``GGUF_SHAPES``: of each, GGUF's number for its type, and its content."""
    numbers = {
        "context_length": 512, "embedding_length": WIDTH, "block_count": 1, "feed_forward_length": INNER,
        "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS,
    }  # fmt: skip
    entries = [_text("general.architecture") + struct.pack("<I", 8) + _text(architecture)]
    entries += [_text(f"{architecture}.{name}") + struct.pack("<II", 4, n) for name, n in numbers.items()]
    entries.append(_text("general.file_type") + struct.pack("<II", 4, file_type))
    described, data = b"", b""
    for name, (kind, content) in tensors.items():
        shape = GGUF_SHAPES[name]
        described += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        described += struct.pack("<IQ", kind, len(data))
        data += content + b"\0" * (-len(content) % ALIGNMENT)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries)) + b"".join(entries) + described
    return head + b"\0" * (-len(head) % ALIGNMENT) + data


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _floats(name: str, shape: tuple[int, ...]) -> bytes:
    """Weights of a tensor, around 1 where they scale and around 0 elsewhere, as little-endian 32-bit floats."""
    size = 1
    for each in shape:
        size *= each
    generator = random.Random(name)
    middle = 1.0 if "norm" in name else 0.0
    found = array.array("f", (middle + generator.gauss(0.0, 0.3) for _ in range(size)))
    if sys.byteorder == "big":
        found.byteswap()
    return found.tobytes()


def _safetensors(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, shape in shapes.items():
        content = _floats(name, shape)
        header[name] = {
            "dtype": "F32",
            "shape": list(shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + data


def _shapes(kind: str, vocabulary: int) -> dict[str, tuple[int, ...]]:
    layer = "model.layers.0."
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, WIDTH),
        f"{layer}input_layernorm.weight": (WIDTH,),
        f"{layer}post_attention_layernorm.weight": (WIDTH,),
        f"{layer}self_attn.o_proj.weight": (WIDTH, WIDTH),
        f"{layer}mlp.gate_proj.weight": (INNER, WIDTH),
        f"{layer}mlp.up_proj.weight": (INNER, WIDTH),
        f"{layer}mlp.down_proj.weight": (WIDTH, INNER),
        "model.norm.weight": (WIDTH,),
    }
    for name, count in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
        found[f"{layer}self_attn.{name}_proj.weight"] = (count * HEAD, WIDTH)
        if kind == "qwen2":
            found[f"{layer}self_attn.{name}_proj.bias"] = (count * HEAD,)
        if kind == "qwen3" and name != "v":
            found[f"{layer}self_attn.{name}_norm.weight"] = (HEAD,)
    return found


def _config(kind: str, vocabulary: int) -> dict[str, Any]:
    return {
        "architectures": [f"{kind.capitalize()}ForCausalLM"],
        "model_type": kind,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "vocab_size": vocabulary,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
    }


def _tokens() -> list[str]:
    """Two that mark the ends, one for each byte as byte-level tokenizers write it, and what is merged."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = {byte: chr(256 + n) for n, byte in enumerate(byte for byte in range(256) if byte not in plain)}
    alphabet = [others.get(byte, chr(byte)) for byte in range(256)]
    return ["<|start|>", "<|end|>", *alphabet, *("".join(merge.split()) for merge in MERGES)]


def _tokenizer(tokens: list[str]) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": n, "content": tokens[n], "special": True, **flags} for n in (0, 1)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": list(MERGES),
        },
    }
