"""The models that GGUF files describe, as Transformers knows them: configuration, names and layout of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmengine_transformers.gguf_architectures import CLASSES
from llmengine_transformers.worker.gguf_file import Gguf, NotFit
from llmengine_transformers.worker.gguf_rope import rope_parameters

__all__ = ["Model", "Weight", "model_of"]

HYPERPARAMETERS = {
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocab_size",
}
CHECKED = ("attention.value_length", "rope.dimension_count")
"""Held to be ``head_dim``."""
IDLE = (0, 0.0, 1.0, "", "none", False)
"""Values by which a key that isn't known here changes nothing: no experts, no scaling."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor of the model."""

    stored: str
    """Its name in the GGUF file."""
    shape: tuple[int, ...]
    heads: int | None = None
    """Where halves of each head's rows are stored interleaved: how many heads there are."""

    def restored(self, weights: np.ndarray) -> np.ndarray:
        """The weights in the order that Transformers has them in."""
        if self.heads is None:
            return weights
        pairs = weights.reshape(self.heads, -1, 2, weights.shape[-1])
        return pairs.swapaxes(1, 2).reshape(weights.shape)


@dataclass(frozen=True, slots=True)
class Model:
    """All that ``AutoModelForCausalLM`` needs but the weights themselves."""

    config: Mapping[str, Any]
    weights: Mapping[str, Weight]
    """By name, sorted."""


def model_of(file: Gguf) -> Model:
    """Raises ``NotFit`` for what isn't known to be carried over in full."""
    architecture: str = file.metadata.get("general.architecture", "")
    if architecture not in CLASSES:
        known = ", ".join(CLASSES)
        raise NotFit(f"its architecture is {architecture!r}; what is known to come out right is {known}")
    if file.metadata.get("split.count", 1) > 1:
        raise NotFit("it is one part of several; merge them into one file first")
    found = _hyperparameters(file, architecture)
    weights = _weights(architecture, found)
    names = {weight.stored for weight in weights.values()}
    if missing := sorted(names - set(file.tensors)):
        raise NotFit(f"it has no tensor {missing[0]}, which {architecture} models have")
    factors = file.tensors.get("rope_freqs.weight") if architecture == "llama" else None
    if unknown := sorted(set(file.tensors) - names - ({factors.name} if factors else set())):
        raise NotFit(f"it has a tensor {unknown[0]}, which can't be carried over")
    for weight in weights.values():
        if (shape := file.tensors[weight.stored].shape) != weight.shape:
            raise NotFit(f"{weight.stored} has the shape {shape}; its metadata make it {weight.shape}")
    if factors and factors.shape != (found["head_dim"] // 2,):
        raise NotFit(f"{factors.name} has the shape {factors.shape}; heads are {found['head_dim']} wide")
    divisors = file.weights(factors) if factors else None
    return Model(_config(architecture, found, file.metadata, divisors), dict(sorted(weights.items())))


def _hyperparameters(file: Gguf, architecture: str) -> dict[str, Any]:
    prefix = f"{architecture}."
    stated = {key[len(prefix) :]: value for key, value in file.metadata.items() if key.startswith(prefix)}
    found: dict[str, Any] = {"rope_theta": 10_000.0}
    for key, value in stated.items():
        if key in HYPERPARAMETERS:
            found[HYPERPARAMETERS[key]] = value
        elif key not in CHECKED and value not in IDLE:
            raise NotFit(f"its metadata say {prefix}{key}={value!r}, which can't be carried over")
    needed = set(HYPERPARAMETERS.values()) - {"num_key_value_heads", "head_dim", "vocab_size"}
    if missing := sorted(needed - set(found)):
        raise NotFit(f"its metadata say no {missing[0]}")
    for name, value in found.items():
        kind = float if name in ("rms_norm_eps", "rope_theta") else int
        if type(value) is not kind or not 0 < value < 2**31:
            raise NotFit(f"its metadata say {name}={value!r}; it must be a positive number")
    if found["num_hidden_layers"] > len(file.tensors):
        raise NotFit(
            f"it has {len(file.tensors):,} tensors, too few for {found['num_hidden_layers']:,} layers"
        )
    found.setdefault("num_key_value_heads", found["num_attention_heads"])
    found.setdefault("head_dim", found["hidden_size"] // found["num_attention_heads"])
    if found["head_dim"] % 2 or not found["head_dim"]:
        raise NotFit(f"its heads are {found['head_dim']} wide; it must be an even number")
    for key in CHECKED:
        if stated.get(key, found["head_dim"]) != found["head_dim"]:
            raise NotFit(
                f"its metadata say {prefix}{key}={stated[key]!r}; heads are {found['head_dim']} wide"
            )
    if embeddings := file.tensors.get("token_embd.weight"):
        found["vocab_size"] = embeddings.shape[0]
    found["tie_word_embeddings"] = "output.weight" not in file.tensors
    return found


def _weights(architecture: str, found: Mapping[str, Any]) -> dict[str, Weight]:
    width, inner, head = found["hidden_size"], found["intermediate_size"], found["head_dim"]
    heads, kv_heads = found["num_attention_heads"], found["num_key_value_heads"]
    weights = {
        "model.embed_tokens.weight": Weight("token_embd.weight", (found.get("vocab_size", 0), width)),
        "model.norm.weight": Weight("output_norm.weight", (width,)),
    }
    if not found["tie_word_embeddings"]:
        weights["lm_head.weight"] = Weight("output.weight", weights["model.embed_tokens.weight"].shape)
    interleaved = architecture == "llama"
    for layer in range(found["num_hidden_layers"]):
        ours, theirs = f"model.layers.{layer}.", f"blk.{layer}."
        for name, stored, shape, turned in (
            ("input_layernorm", "attn_norm", (width,), None),
            ("self_attn.q_proj", "attn_q", (heads * head, width), heads),
            ("self_attn.k_proj", "attn_k", (kv_heads * head, width), kv_heads),
            ("self_attn.v_proj", "attn_v", (kv_heads * head, width), None),
            ("self_attn.o_proj", "attn_output", (width, heads * head), None),
            ("post_attention_layernorm", "ffn_norm", (width,), None),
            ("mlp.gate_proj", "ffn_gate", (inner, width), None),
            ("mlp.up_proj", "ffn_up", (inner, width), None),
            ("mlp.down_proj", "ffn_down", (width, inner), None),
        ):
            weights[f"{ours}{name}.weight"] = Weight(
                f"{theirs}{stored}.weight", shape, turned if interleaved else None
            )
        if architecture == "qwen2":
            for each, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
                weights[f"{ours}self_attn.{each}_proj.bias"] = Weight(
                    f"{theirs}attn_{each}.bias", (count * head,)
                )
        if architecture == "qwen3":
            for each in "qk":
                weights[f"{ours}self_attn.{each}_norm.weight"] = Weight(
                    f"{theirs}attn_{each}_norm.weight", (head,)
                )
    return weights


def _config(
    architecture: str, found: Mapping[str, Any], metadata: Mapping[str, Any], divisors: np.ndarray | None
) -> dict[str, Any]:
    """What config.json says. Numbers of 32 bits are written as short as they are meant: 1e-05."""
    config = {name: float(str(np.float32(v))) if type(v) is float else v for name, v in found.items()}
    config["rope_parameters"] = rope_parameters(config.pop("rope_theta"), found["head_dim"], divisors)
    ids = {each: metadata.get(f"tokenizer.ggml.{each}_token_id") for each in ("bos", "eos", "padding")}
    return config | {
        "architectures": [CLASSES[architecture]],
        "model_type": architecture,
        "bos_token_id": ids["bos"],
        "eos_token_id": ids["eos"],
        "pad_token_id": ids["padding"],
        "dtype": "bfloat16",
        "hidden_act": "silu",
    }
