"""Small checkpoints as Transformers stores them, and what they compute, from the models' descriptions."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, INNER, LAYERS, HEADS, KV_HEADS = 64, 96, 2, 4, 2
BASE, EPSILON = 500.0, 1e-5
STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": BASE,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
"""Positions as since Llama 3.1; of a head's frequencies, some stay, some are stretched, some in between."""
FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


def head_size(kind: str) -> int:
    """Wider than the model divided by its heads, where llama.cpp takes that."""
    return WIDTH // HEADS if kind == "qwen2" else 32


def byte_alphabet() -> list[str]:
    """How byte-level tokenizers write each byte: printable ones as they are, the others from U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = {byte: chr(256 + n) for n, byte in enumerate(byte for byte in range(256) if byte not in plain)}
    return [others.get(byte, chr(byte)) for byte in range(256)]


SPACE = byte_alphabet()[32]
MERGES = ["t h", "th e", f"{SPACE} the", "i n", f"{SPACE} 1", "1 2"]
TOKENS = ["<|start|>", "<|end|>", *byte_alphabet(), *["".join(merge.split()) for merge in MERGES], "<think>"]
VOCABULARY = len(TOKENS) + 3
"""Embeddings that no token has, at the end."""


def tokenizer() -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": TOKENS[number], "special": number < 2, **FLAGS}
            for number in (0, 1, len(TOKENS) - 1)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "post_processor": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": False,
            "use_regex": True,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "vocab": {token: number for number, token in enumerate(TOKENS[:-1])},
            "merges": MERGES,
        },
    }


def config(kind: str, *, tied: bool = True) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": head_size(kind),
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": EPSILON,
        "rope_parameters": {"rope_type": "default", "rope_theta": BASE},
        "tie_word_embeddings": tied,
        "vocab_size": VOCABULARY,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
    }


def weights(kind: str, *, tied: bool = True) -> dict[str, np.ndarray]:
    """Random ones, wide enough apart that the likeliest token is clear; it is a whole character."""
    head = head_size(kind)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for layer in range(LAYERS):
        each: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (WIDTH,),
            "post_attention_layernorm.weight": (WIDTH,),
            "self_attn.o_proj.weight": (WIDTH, HEADS * head),
            "mlp.gate_proj.weight": (INNER, WIDTH),
            "mlp.up_proj.weight": (INNER, WIDTH),
            "mlp.down_proj.weight": (WIDTH, INNER),
        }
        for name, count in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            each[f"self_attn.{name}_proj.weight"] = (count * head, WIDTH)
            if kind == "qwen2":
                each[f"self_attn.{name}_proj.bias"] = (count * head,)
            if kind == "qwen3" and name != "v":
                each[f"self_attn.{name}_norm.weight"] = (head,)
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in each.items()}
    shapes["model.norm.weight"] = (WIDTH,)
    if not tied:
        shapes["lm_head.weight"] = (VOCABULARY, WIDTH)
    random = np.random.default_rng(5)
    found = {
        name: (random.normal(scale=0.3, size=shape) + ("norm" in name)).astype(np.float32)
        for name, shape in shapes.items()
    }
    whole = np.array(
        [token.isascii() and len(token) < 4 for token in TOKENS] + [False] * (VOCABULARY - len(TOKENS))
    )
    for name in {"model.embed_tokens.weight", "lm_head.weight"} & set(found):
        found[name][~whole] *= 0.01  # the engine passes over tokens that are no character by themselves
    return found


def stored(tensor: np.ndarray, kind: str) -> bytes:
    if kind == "BF16":
        return (tensor.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return tensor.astype({"F32": np.float32, "F16": np.float16}[kind]).tobytes()


def safetensors(tensors: dict[str, np.ndarray], kind: str = "F32") -> bytes:
    header: dict[str, Any] = {}
    data = b""
    for name, tensor in tensors.items():
        content = stored(tensor, kind)
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": offsets}
        data += content
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


@dataclass
class Folder:
    """A checkpoint, its parts free to be changed before it is written."""

    kind: str = "llama"
    tied: bool = True
    type: str = "F32"
    config: dict[str, Any] = field(init=False)
    tokenizer: dict[str, Any] = field(default_factory=tokenizer)
    tokenizer_config: dict[str, Any] = field(default_factory=lambda: {"eos_token": "<|end|>"})
    weights: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        self.config, self.weights = config(self.kind, tied=self.tied), weights(self.kind, tied=self.tied)

    def write(self, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        for name in ("config", "tokenizer", "tokenizer_config"):
            (folder / f"{name}.json").write_text(json.dumps(getattr(self, name)))
        (folder / "model.safetensors").write_bytes(safetensors(self.weights, self.type))
        return folder

    def frequencies(self) -> np.ndarray:
        """By how much each place turns each pair of numbers, in radians."""
        head = self.config["head_dim"]
        found: np.ndarray = BASE ** -(np.arange(0, head, 2) / head)
        rope = self.config["rope_parameters"]
        if rope["rope_type"] == "default":
            return found
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        turns = rope["original_max_position_embeddings"] * found / (2 * np.pi)
        smooth = (turns - low) / (high - low)
        between = (1 - smooth) * found / rope["factor"] + smooth * found
        return np.where(turns < low, found / rope["factor"], np.where(turns > high, found, between))

    def logits(self, tokens: list[int]) -> np.ndarray:
        """What the model makes of a text, for its last place."""
        given = {name: tensor.astype(np.float64) for name, tensor in self.weights.items()}
        x = given["model.embed_tokens.weight"][tokens]
        for layer in range(LAYERS):
            part = {
                name.removeprefix(f"model.layers.{layer}."): tensor
                for name, tensor in given.items()
                if name.startswith(f"model.layers.{layer}.")
            }
            frequencies = self.frequencies()
            x = x + _attention(_norm(x, part["input_layernorm.weight"]), part, frequencies)
            inner = _norm(x, part["post_attention_layernorm.weight"])
            gate, up = inner @ part["mlp.gate_proj.weight"].T, inner @ part["mlp.up_proj.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ part["mlp.down_proj.weight"].T
        table = given.get("lm_head.weight", given["model.embed_tokens.weight"])
        found: np.ndarray = _norm(x, given["model.norm.weight"])[-1] @ table.T
        return found


def _norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * weight
    return scaled


def _attention(x: np.ndarray, part: dict[str, np.ndarray], frequencies: np.ndarray) -> np.ndarray:
    heads = {}
    for name, count in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
        found = x @ part[f"self_attn.{name}_proj.weight"].T + part.get(f"self_attn.{name}_proj.bias", 0)
        found = found.reshape(len(x), count, -1).swapaxes(0, 1)
        if name != "v":
            if (norm := part.get(f"self_attn.{name}_norm.weight")) is not None:
                found = _norm(found, norm)
            found = _rotated(found, frequencies)
        heads[name] = found.repeat(HEADS // count, axis=0)
    scores = heads["q"] @ heads["k"].swapaxes(1, 2) / np.sqrt(heads["q"].shape[-1])
    scores = np.where(np.tril(np.ones(scores.shape[1:], bool)), scores, -np.inf)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (scores / scores.sum(-1, keepdims=True)) @ heads["v"]
    out: np.ndarray = mixed.swapaxes(0, 1).reshape(len(x), -1) @ part["self_attn.o_proj.weight"].T
    return out


def _rotated(x: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Each half of a head turned against the other, by its place."""
    angles = np.arange(x.shape[1])[:, None] * frequencies
    one, two = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([one * cos - two * sin, two * cos + one * sin], axis=-1)
