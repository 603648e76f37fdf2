"""The models that Transformers stores, as llama.cpp knows them: metadata, names and layout of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmengine_llamacpp.worker.gguf_head import Value
from llmengine_llamacpp.worker.hf_rope import rope_base

__all__ = ["ARCHITECTURES", "Weight", "head_size", "metadata_of", "weights_of"]

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""``model_type``s whose converted models answer in llama.cpp as in Transformers; others are refused, not guessed.
llama.cpp has the same names for them."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "hidden_act": ("silu",),
    "mlp_bias": (False,),
    "quantization_config": (),
    "use_sliding_window": (False,),
}
"""What config.json may say, or nothing, where what else it says would change the computation."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor of the model."""

    stored: str
    """Its name in the safetensors."""
    shape: tuple[int, ...]
    heads: int | None = None
    """Where llama.cpp wants the halves of each head's rows interleaved: how many heads there are."""

    def row(self, number: int) -> int:
        """Which stored row comes there."""
        if self.heads is None:
            return number
        size = self.shape[0] // self.heads
        head, place = divmod(number, size)
        pair, half = divmod(place, 2)
        return head * size + half * (size // 2) + pair


def metadata_of(config: Mapping[str, Any]) -> dict[str, Value]:
    """What a GGUF file says of the model. Raises ``ValueError`` for what isn't known to be carried over."""
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ValueError(f"its architecture is {kind!r}; what is known to come out right is {known}")
    for name, allowed in NEUTRAL.items():
        if config.get(name) is not None and config[name] not in allowed:
            raise ValueError(f"its config.json says {name}={config[name]!r}, which can't be carried over")
    if set(config.get("layer_types") or ()) - {"full_attention"}:
        raise ValueError("some of its layers don't attend to everything, which can't be carried over")
    if kind == "qwen2" and config.get("num_attention_heads", 0) * head_size(config) != config.get(
        "hidden_size"
    ):
        raise ValueError(f"its heads are {head_size(config)} wide; llama.cpp takes them for another size")
    said: dict[str, Value] = {
        "context_length": number(config, "max_position_embeddings"),
        "embedding_length": number(config, "hidden_size"),
        "block_count": number(config, "num_hidden_layers"),
        "feed_forward_length": number(config, "intermediate_size"),
        "attention.head_count": number(config, "num_attention_heads"),
        "attention.head_count_kv": kv_heads(config),
        "attention.key_length": head_size(config),
        "attention.value_length": head_size(config),
        "attention.layer_norm_rms_epsilon": float(config.get("rms_norm_eps", 1e-6)),
        "rope.dimension_count": head_size(config),
        "rope.freq_base": rope_base(config),
        "vocab_size": number(config, "vocab_size"),
    }
    return {
        "general.architecture": kind,
        "general.type": "model",
        "general.file_type": 1,  # most tensors are f16
        **{f"{kind}.{name}": value for name, value in said.items()},
    }


def weights_of(config: Mapping[str, Any]) -> dict[str, Weight]:
    """All tensors by llama.cpp's names, in the order in which they are written."""
    width = number(config, "hidden_size")
    table = (number(config, "vocab_size"), width)
    weights = {"token_embd.weight": Weight("model.embed_tokens.weight", table)}
    for layer in range(number(config, "num_hidden_layers")):
        for name, stored, shape, heads in _layer(config):
            weights[f"blk.{layer}.{name}"] = Weight(f"model.layers.{layer}.{stored}", shape, heads)
    weights["output_norm.weight"] = Weight("model.norm.weight", (width,))
    if not config.get("tie_word_embeddings", False):
        weights["output.weight"] = Weight("lm_head.weight", table)
    return weights


def _layer(config: Mapping[str, Any]) -> Iterator[tuple[str, str, tuple[int, ...], int | None]]:
    """One layer: llama.cpp's name, the stored one, the shape, and the heads that are interleaved."""
    kind, width, inner = config["model_type"], config["hidden_size"], config["intermediate_size"]
    heads, kv, head = config["num_attention_heads"], kv_heads(config), head_size(config)
    yield "attn_norm.weight", "input_layernorm.weight", (width,), None
    for each, count in (("q", heads), ("k", kv), ("v", kv)):
        turned = count if kind == "llama" and each != "v" else None
        yield f"attn_{each}.weight", f"self_attn.{each}_proj.weight", (count * head, width), turned
        if kind == "qwen2":
            yield f"attn_{each}.bias", f"self_attn.{each}_proj.bias", (count * head,), None
        if kind == "qwen3" and each != "v":
            yield f"attn_{each}_norm.weight", f"self_attn.{each}_norm.weight", (head,), None
    yield "attn_output.weight", "self_attn.o_proj.weight", (width, heads * head), None
    yield "ffn_norm.weight", "post_attention_layernorm.weight", (width,), None
    yield "ffn_gate.weight", "mlp.gate_proj.weight", (inner, width), None
    yield "ffn_up.weight", "mlp.up_proj.weight", (inner, width), None
    yield "ffn_down.weight", "mlp.down_proj.weight", (width, inner), None


def number(config: Mapping[str, Any], name: str) -> int:
    """A whole number of config.json, at least 1."""
    found = config.get(name)
    if type(found) is not int or not 1 <= found < 2**31:
        raise ValueError(f"its config.json says {name}={found!r}; it must be a whole number of at least 1")
    return found


def kv_heads(config: Mapping[str, Any]) -> int:
    """Heads of keys and values; as many as of queries where nothing is said."""
    name = "num_key_value_heads"
    return number(config, name if config.get(name) is not None else "num_attention_heads")


def head_size(config: Mapping[str, Any]) -> int:
    """Numbers in one head, an even count."""
    given = config.get("head_dim")
    size = number(config, "head_dim") if given else config["hidden_size"] // config["num_attention_heads"]
    if size < 2 or size % 2:
        raise ValueError(f"its heads are {size} wide; it must be an even number")
    return size
