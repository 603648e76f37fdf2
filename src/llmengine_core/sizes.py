"""How large a model is, as far as names and configurations tell."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["bits_by_name", "cache_by_config", "cache_by_header", "cache_bytes", "parameters_by_name"]

LARGEST = 10**13
"""No model has more parameters; a larger number is none."""
UNITS = {"b": 10**9, "m": 10**6}
SIZE = re.compile(
    r"""
    (?: (?<![a-z0-9.]) | (?<=[a-z][a-z]) )    # one letter before it makes it another's size: a3b are active ones
    (?: (?P<experts>\d{1,3}) x )?
    (?P<whole>\d{1,4}) (?: \.(?P<part>\d{1,3}) | (?<=-\d)_(?P<under>\d{1,3}) )?
    (?P<unit>[bm]) (?P<digit>\d)?             # 7b1 is how some write 7.1b
    (?![a-z0-9])
    """,
    re.VERBOSE | re.ASCII,
)
EXPERTS = re.compile(r"(?<![a-z0-9])\d{1,3}e(?![a-z0-9])", re.ASCII)
"""Behind the size of what is active: 17b-16e."""

BITS = {"awq": 4, "gptq": 4, "marlin": 4, "bitsandbytes": 8, "eetq": 8}
"""Of quantizations whose names don't tell; of bitsandbytes plain, the way with 8 bits has the name."""


def parameters_by_name(name: str) -> int | None:
    """The parameters that a model's name tells: "llama-2-7b" 7e9, "1.5b" 1.5e9, "135m" 135e6; None where it doesn't.

    Of several sizes it is the largest, and of experts ("8x7b") all of them together, more than share the rest of such
    a model: who counts on it gets enough. What comes before a "/" is an owner's name. Versions ("v0.1", "3.1"), lengths
    of contexts ("128k"), bits ("4bit"), parameters that are only active ("a3b") and dates are no sizes.
    """
    last = name.rpartition("/")[2].lower()
    if EXPERTS.search(last):
        return None
    sizes = [_size(found) for found in SIZE.finditer(last)]
    return max((size for size in sizes if 0 < size <= LARGEST), default=None)


def _size(found: re.Match[str]) -> int:
    part = found["part"] or found["under"] or found["digit"] or ""
    scaled: int = int(found["whole"] + part) * UNITS[found["unit"]] // 10 ** len(part)
    return scaled * int(found["experts"] or 1)


def bits_by_name(method: str) -> float:
    """Bits of a weight by what its quantization is called, "q8_0", "int4", "awq"; 0 where that tells nothing.

    One is added to few bits, for scales and for what is left in full precision.
    """
    number = re.search(r"\d+", method)
    bits = int(number[0]) if number else BITS.get(method, 0)
    return float(bits + (bits < 16)) if 1 <= bits <= 32 else 0.0


def cache_bytes(*, layers: int, heads: int, head_size: int) -> int:
    """What a token of context takes in a cache of 16 bits: a key and a value for each layer and head that has them."""
    return 2 * 2 * layers * heads * head_size


def cache_by_config(config: Mapping[str, Any]) -> int | None:
    """What a token of context takes by a model's config.json.

    None where that isn't told, or where keys and values are compressed, in which engines differ.
    """

    def count(*keys: str) -> int | None:
        return next((config[key] for key in keys if type(config.get(key)) is int and config[key] > 0), None)

    layers = count("num_hidden_layers", "n_layer", "num_layers", "n_layers")
    heads = count("num_attention_heads", "n_head", "num_heads", "n_heads")
    hidden = count("hidden_size", "n_embd", "d_model")
    if layers is None or heads is None or hidden is None or "kv_lora_rank" in config:
        return None
    having = count("num_key_value_heads", "num_kv_heads") or heads
    if config.get("multi_query") is True and not config.get("new_decoder_architecture"):
        having = 1
    return cache_bytes(layers=layers, heads=having, head_size=count("head_dim") or hidden // heads)


def cache_by_header(number: Callable[[str], int | None]) -> int | None:
    """The same by a GGUF file's metadata; ``number`` looks up a key of the architecture."""
    layers, hidden, heads = (
        number(key) for key in ("block_count", "embedding_length", "attention.head_count")
    )
    if not (layers and hidden and heads) or number("attention.kv_lora_rank"):
        return None
    having = number("attention.head_count_kv") or heads
    return cache_bytes(
        layers=layers, heads=having, head_size=number("attention.key_length") or hidden // heads
    )
