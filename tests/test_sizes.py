"""What names tell of a model's size (M06)."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.sizes import (
    bits_by_name,
    cache_by_config,
    cache_by_header,
    cache_bytes,
    parameters_by_name,
)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("llama-2-7b", 7),
        ("llama-2-70b-chat", 70),
        ("llama-3-1-405b-instruct", 405),
        ("llama-3-8b-instruct-262k", 8),
        ("mistral-7b-instruct-v0.1", 7),
        ("qwen2.5-1.5b", 1.5),
        ("Llama-3.2-1B-Instruct", 1),
        ("meta-llama/Llama-2-13b-hf", 13),
        ("01-ai/Yi-34B-200K", 34),
        ("smollm2-135m-instruct", 0.135),
        ("mixtral-8x7b", 56),
        ("mixtral-8x22b-instruct-v0.1", 176),
        ("llama7b", 7),
        ("llama_2_7b", 7),
        ("open_llama_3b_600bt_preview", 3),
        ("stablelm-2-1_6b", 1.6),
        ("bloomz-7b1", 7.1),
        ("qwen3-30b-a3b", 30),
        ("gpt-j-6b-zh-en", 6),
        ("llama-2-7b.240131-120501", 7),
        ("tinyllama-1.1b-intermediate-step-1431k-3t", 1.1),
        ("a-draft-1b-for-70b", 70),
    ],
)
def test_m06_a_name_tells_its_size(name: str, billions: float) -> None:
    assert parameters_by_name(name) == round(billions * 10**9)


@pytest.mark.parametrize(
    "name",
    [
        "", "llama", "flan-t5-xxl", "gpt4all-j", "phi-3-mini-4k-instruct", "phi-3-small-128k", "model-v0.1", "a-4bit",
        "gpt-4-2024-07-18", "gpt-3.5-turbo-0301", "w4a16", "q4_k_m", "int8", "gemma-3n-e2b", "x-a3b", "v1.2b", "0b",
        "llama-4-scout-17b-16e", "70b-labs/small", "99999b", "b", "m", "x-5mb", "600bt", "7.b", "\u0667b", "１b",
    ],
)  # fmt: skip
def test_m06_what_is_no_size_is_not_read_as_one(name: str) -> None:
    assert parameters_by_name(name) is None


WORDS = st.lists(st.sampled_from(["llama", "chat", "v0.1", "4k", "128k", "instruct", "3.1", "2024", "a3b"]))


@given(WORDS, st.integers(1, 9999), st.integers(0, 999), st.sampled_from("bBmM"), WORDS)
def test_m06_a_size_is_read_wherever_it_stands(
    before: list[str], whole: int, part: int, unit: str, after: list[str]
) -> None:
    number = f"{whole}.{part}" if part else f"{whole}"
    expected = int(Decimal(number) * {"b": 10**9, "m": 10**6}[unit.lower()])
    assert parameters_by_name("-".join([*before, f"{number}{unit}", *after])) == expected


@given(st.text(max_size=200))
def test_m06_any_text_is_a_size_or_none(name: str) -> None:
    found = parameters_by_name(name)
    assert found is None or (0 < found <= 10**13)


def originals(name: str) -> int | None:
    """How the original reads a size: the last whole number before a "b"."""
    numbers = re.findall(r"(\d+)b", name.lower())
    return int(numbers[-1]) * 10**9 if numbers else None


def test_m06_the_original_reads_sizes_otherwise_where_it_is_wrong() -> None:
    for name in ("llama-2-7b", "codellama-34b-instruct", "falcon-180b-chat", "gemma-2-2b", "dolly-v2-12b"):
        assert parameters_by_name(name) == originals(name)
    for name, ours, theirs in (
        ("qwen2-1.5b", 1_500_000_000, 5 * 10**9),  # it takes what follows the point
        ("smollm2-135m", 135_000_000, None),
        ("mixtral-8x7b", 56 * 10**9, 7 * 10**9),  # it has its own table for this one: 47
        ("llama-2-7b-4bit", 7 * 10**9, 4 * 10**9),
        ("qwen3-30b-a3b", 30 * 10**9, 3 * 10**9),
    ):
        assert (parameters_by_name(name), originals(name)) == (ours, theirs)


@pytest.mark.parametrize(
    ("method", "bits"),
    [
        ("awq", 5), ("gptq", 5), ("bitsandbytes", 9), ("bitsandbytes-nf4", 5), ("bitsandbytes-fp4", 5), ("q4_k_m", 5),
        ("q8_0", 9), ("q5_1", 6), ("fp8", 9), ("int4", 5), ("f16", 16), ("bf16", 16), ("f32", 32), ("odd", 0), ("", 0),
        ("w99", 0),
    ],
)  # fmt: skip
def test_m06_quantizations_tell_bits(method: str, bits: float) -> None:
    assert bits_by_name(method) == bits


def test_m06_a_cache_holds_keys_and_values() -> None:
    # The original's own reckoning for Llama 2 70B: 2 x 2 x layers x hidden / (heads / heads of keys).
    assert cache_bytes(layers=80, heads=8, head_size=128) == 2 * 2 * 80 * 8192 // (64 // 8)


LLAMA = {"num_hidden_layers": 80, "hidden_size": 8192, "num_attention_heads": 64}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LLAMA, 2 * 2 * 80 * 8192),
        (LLAMA | {"num_key_value_heads": 8}, 2 * 2 * 80 * 8 * 128),
        (LLAMA | {"num_key_value_heads": 4, "head_dim": 256}, 2 * 2 * 80 * 4 * 256),
        ({"n_layer": 28, "n_embd": 4096, "n_head": 16}, 2 * 2 * 28 * 4096),  # GPT-J
        ({"n_layers": 32, "d_model": 4096, "n_heads": 32}, 2 * 2 * 32 * 4096),  # MPT
        (LLAMA | {"multi_query": True}, 2 * 2 * 80 * 128),  # Falcon 7B
        (
            LLAMA | {"multi_query": True, "new_decoder_architecture": True, "num_kv_heads": 8},
            2 * 2 * 80 * 8 * 128,
        ),  # Falcon 40B
        (LLAMA | {"kv_lora_rank": 512}, None),  # DeepSeek V2
        (LLAMA | {"hidden_size": "8192"}, None),
        (LLAMA | {"num_hidden_layers": True}, None),
        ({}, None),
    ],
)
def test_m06_a_configuration_tells_the_cache(config: dict[str, object], expected: int | None) -> None:
    assert cache_by_config(config) == expected


def test_m06_a_header_tells_the_cache() -> None:
    header = {"block_count": 30, "embedding_length": 576, "attention.head_count": 9}
    assert cache_by_header(header.get) == 2 * 2 * 30 * 576
    assert cache_by_header((header | {"attention.head_count_kv": 3}).get) == 2 * 2 * 30 * 3 * 64
    assert cache_by_header((header | {"attention.key_length": 32}).get) == 2 * 2 * 30 * 9 * 32
    assert cache_by_header((header | {"attention.kv_lora_rank": 1}).get) is None
    assert cache_by_header(dict[str, int]().get) is None
