"""The base models that are known by name: what their cards say, and that it is so."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hub_uses import bring
from tests.servers.hub import Hub

from llmengine_core.cards import cards_here
from llmengine_core.registry import Registry
from llmengine_core.settings import Settings
from llmengine_core.sizes import parameters_by_name
from llmengine_core.types.models import ModelCard
from llmengine_hub import plugin
from llmengine_hub.storage import HubStorage
from llmengine_hub.zoo import DATA, cards

CARDS = {card.name: card for card in cards()}
ENTRIES: dict[str, dict[str, Any]] = json.loads(DATA.read_bytes())

TABLE = """
    mpt-7b mpt-7b-instruct flan-t5-xxl llama-7b llama-2-7b llama-2-7b-chat llama-2-13b llama-2-13b-chat llama-2-70b
    llama-2-70b-chat llama-3-8b llama-3-8b-instruct llama-3-8b-instruct-262k llama-3-70b llama-3-70b-instruct
    llama-3-1-8b llama-3-1-8b-instruct llama-3-1-70b llama-3-1-70b-instruct llama-3-1-405b llama-3-1-405b-instruct
    falcon-7b falcon-7b-instruct falcon-40b falcon-40b-instruct falcon-180b falcon-180b-chat codellama-7b
    codellama-7b-instruct codellama-13b codellama-13b-instruct codellama-34b codellama-34b-instruct codellama-70b
    codellama-70b-instruct llm-jp-13b-instruct-full llm-jp-13b-instruct-full-dolly mistral-7b mistral-7b-instruct
    mixtral-8x7b mixtral-8x7b-instruct mixtral-8x22b mixtral-8x22b-instruct mammoth-coder-llama-2-7b
    mammoth-coder-llama-2-13b mammoth-coder-llama-2-34b gpt-j-6b gpt-j-6b-zh-en gpt4all-j dolly-v2-12b
    stablelm-tuned-7b vicuna-13b zephyr-7b-alpha zephyr-7b-beta gemma-2-2b gemma-2-2b-instruct gemma-2-7b
    gemma-2-7b-instruct phi-3-mini-4k-instruct phi-3-mini-128k-instruct phi-3-small-8k-instruct
    phi-3-small-128k-instruct phi-3-medium-4-instruct phi-3-medium-128k-instruct deepseek-coder-v2
    deepseek-coder-v2-instruct deepseek-coder-v2-lite deepseek-coder-v2-lite-instruct qwen2-72b-instruct
"""
"""The names of the original's table."""
ORIGINALS = TABLE.split()


# -- parameters, counted by what config.json says ------------------------------------------------------------------


def llama(
    vocab: int,
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    key_heads: int,
    *,
    tied: bool = False,
    head: int = 0,
    norms: int = 2,
    biases: bool = False,
    experts: int = 0,
) -> int:
    """Of the family of LLaMA: Mistral, Mixtral, Qwen2, Gemma and Phi-3 differ by what is named here."""
    head = head or hidden // heads
    attention = 2 * hidden * heads * head + 2 * hidden * key_heads * head
    if biases:
        attention += (heads + 2 * key_heads) * head
    feeding = 3 * hidden * inner
    if experts:
        feeding = experts * feeding + experts * hidden
    return vocab * hidden * (2 - tied) + layers * (attention + feeding + norms * hidden) + hidden


def falcon(hidden: int, layers: int, key_heads: int, norms: int) -> int:
    """The output layer is the embedding, stored a second time."""
    attention = hidden * (hidden + 2 * key_heads * 64) + hidden * hidden
    return 2 * 65024 * hidden + layers * (attention + 8 * hidden * hidden + 2 * norms * hidden) + 2 * hidden


def deepseek(
    hidden: int, inner: int, layers: int, heads: int, query_rank: int, expert: int, experts: int
) -> int:
    """One dense layer, then experts of which two are shared; keys and values compressed to 512 + 64."""
    query = hidden * heads * 192
    if query_rank:
        query = hidden * query_rank + query_rank + query_rank * heads * 192
    attention = query + hidden * 576 + 512 + 512 * heads * 256 + heads * 128 * hidden
    sparse = 3 * hidden * expert * (experts + 2) + experts * hidden
    return (
        2 * 102400 * hidden
        + layers * (attention + 2 * hidden)
        + 3 * hidden * inner
        + (layers - 1) * sparse
        + hidden
    )


def mpt() -> int:
    """No biases, and the embedding is the output layer."""
    return 50432 * 4096 + 32 * (12 * 4096**2 + 2 * 4096) + 4096


def gpt_j() -> int:
    """One norm for a layer; biases but in the attention."""
    return 2 * 50400 * 4096 + 50400 + 28 * (12 * 4096**2 + 7 * 4096) + 2 * 4096


def t5() -> int:
    """T5 1.1: a gated feed-forward, an output layer of its own, positions by 32 buckets for each of 64 heads."""
    attention, feeding = 4 * 4096 * 4096, 3 * 4096 * 10240
    encoder, decoder = attention + feeding + 2 * 4096, 2 * attention + feeding + 3 * 4096
    return 2 * 32128 * 4096 + 24 * (encoder + decoder) + 2 * 32 * 64 + 2 * 4096


def phi_small() -> int:
    """Biases everywhere, a gated feed-forward twice as wide on its way in, a tied embedding."""
    attention = 4096 * 6144 + 6144 + 4096 * 4096 + 4096
    feeding = 4096 * 28672 + 28672 + 14336 * 4096 + 4096
    return 100352 * 4096 + 32 * (attention + feeding + 4 * 4096) + 2 * 4096


SEVEN = (4096, 11008, 32, 32, 32)
MISTRAL = llama(32000, 4096, 14336, 32, 32, 8)
LLAMA_3 = {
    "8b": llama(128256, 4096, 14336, 32, 32, 8),
    "70b": llama(128256, 8192, 28672, 80, 64, 8),
    "405b": llama(128256, 16384, 53248, 126, 128, 8),
}
COUNTED: dict[str, int] = {
    r"mpt-7b.*": mpt(),
    r"flan-t5-xxl": t5(),
    r"llama-7b|llama-2-7b.*": llama(32000, *SEVEN),
    r"llama-2-13b.*|vicuna-13b": llama(32000, 5120, 13824, 40, 40, 40),
    r"llama-2-70b.*": llama(32000, 8192, 28672, 80, 64, 8),
    r"llama-3-(1-)?8b.*": LLAMA_3["8b"],
    r"llama-3-(1-)?70b.*": LLAMA_3["70b"],
    r"llama-3-1-405b.*": LLAMA_3["405b"],
    r"falcon-7b.*": falcon(4544, 32, 1, 1),
    r"falcon-40b.*": falcon(8192, 60, 8, 2),
    r"falcon-180b.*": falcon(14848, 80, 8, 2),
    r"codellama-7b.*": llama(32016, *SEVEN),
    r"codellama-13b.*": llama(32016, 5120, 13824, 40, 40, 40),
    r"codellama-34b.*": llama(32000, 8192, 22016, 48, 64, 8),
    r"codellama-70b.*": llama(32016, 8192, 28672, 80, 64, 8),
    r"mistral-7b.*|zephyr-7b.*": MISTRAL,
    r"mixtral-8x7b.*": llama(32000, 4096, 14336, 32, 32, 8, experts=8),
    r"mixtral-8x22b": llama(32000, 6144, 16384, 56, 48, 8, experts=8),
    r"mixtral-8x22b-instruct": llama(32768, 6144, 16384, 56, 48, 8, experts=8),
    r"mammoth-coder-llama-2-7b": llama(32017, *SEVEN),
    r"gpt-j-6b.*": gpt_j(),
    r"gemma-2-2b.*": llama(256000, 2304, 9216, 26, 8, 4, tied=True, head=256, norms=4),
    r"gemma-2-7b.*": llama(256000, 3072, 24576, 28, 16, 16, tied=True, head=256),
    r"phi-3-mini.*": llama(32064, 3072, 8192, 32, 32, 32),
    r"phi-3-small.*": phi_small(),
    r"phi-3-medium.*": llama(32064, 5120, 17920, 40, 40, 10),
    r"deepseek-coder-v2(-instruct)?": deepseek(5120, 12288, 60, 128, 1536, 1536, 160),
    r"deepseek-coder-v2-lite.*": deepseek(2048, 10944, 27, 16, 0, 1408, 64),
    r"qwen2-72b.*": llama(152064, 8192, 29568, 80, 64, 8, biases=True),
    r"smollm2-135m": llama(49152, 576, 1536, 30, 9, 3, tied=True),
    r"smollm2-360m.*": llama(49152, 960, 2560, 32, 15, 5, tied=True),
    r"smollm2-1\.7b.*": llama(49152, 2048, 8192, 24, 32, 32, tied=True),
}
"""Parameters by layers, widths and heads as the repositories' config.json give them."""


@pytest.mark.parametrize("name", CARDS)
def test_parameters_are_those_that_the_configuration_counts(name: str) -> None:
    counts = [count for pattern, count in COUNTED.items() if re.fullmatch(pattern, name)]
    entry = ENTRIES[name]
    if entry["parameters_from"] == "config":
        assert [CARDS[name].parameters] == counts
    else:
        assert entry["parameters_from"] == "model card, rounded"
        assert counts == []
        assert entry["parameters"] % 10**7 == 0


def test_every_base_model_of_the_original_has_a_card() -> None:
    assert len(ORIGINALS) == len(set(ORIGINALS)) == 69
    others = CARDS.keys() - set(ORIGINALS)
    assert all(name.startswith("smollm2-") for name in others)
    assert set(ORIGINALS) <= CARDS.keys()


def test_m06_names_that_tell_a_size_tell_about_that_of_the_card() -> None:
    for name, card in CARDS.items():
        told = parameters_by_name(name)
        if told is not None:
            # Gemma's names leave the embedding out; experts share what isn't theirs.
            assert 0.75 < told / card.parameters < 1.3, name


def test_cards_are_sorted_and_say_what_must_be_known() -> None:
    assert list(ENTRIES) == sorted(ENTRIES)
    assert {frozenset(entry) - {"note"} for entry in ENTRIES.values()} == {frozenset(ENTRIES["mpt-7b"])}
    for card in CARDS.values():
        entry = ENTRIES[card.name]
        (source,) = card.sources
        assert re.fullmatch(r"hf://[\w.-]+/[\w.-]+", source.url)
        assert card.homepage == f"https://huggingface.co/{entry['repository']}"
        assert re.fullmatch(r"https://\S+|Apache-2\.0|MIT|CC-BY-NC-SA-4\.0", card.license)
        assert source.format in ("safetensors", "pytorch")
        assert card.context_length >= 512
        assert entry["description"]
        assert not entry["description"].endswith(".")


def test_gated_models_say_so_and_how_to_get_at_them() -> None:
    gated = {name for name, entry in ENTRIES.items() if entry["gated"]}
    assert {"llama-2-7b", "llama-3-1-405b", "gemma-2-2b-instruct", "falcon-180b"} <= gated
    for name, card in CARDS.items():
        assert ("Gated" in card.description) == (name in gated)
        mend = card.sources[0].mend
        if name in gated:
            assert card.license.startswith("https://")
            assert mend is not None
            assert str(card.homepage) in mend
            assert "HF_TOKEN" in mend
        else:
            assert mend is None


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("llama-2-7b", "meta-llama/Llama-2-7b-hf"),  # the original: huggyllama/llama-7b
        ("llama-7b", "huggyllama/llama-7b"),  # the original: decapoda-research/llama-7b-hf, which is gone
        ("phi-3-medium-4-instruct", "microsoft/Phi-3-medium-4k-instruct"),
        ("gemma-2-7b", "google/gemma-7b"),  # the original: google/gemma-2-7b, which never was
        ("vicuna-13b", "lmsys/vicuna-13b-v1.1"),  # the original: eachadea/vicuna-13b-1.1, a copy
        ("llama-3-1-8b", "meta-llama/Llama-3.1-8B"),  # the original: the former name
        ("gpt-j-6b-zh-en", "EleutherAI/gpt-j-6b"),
    ],
)
def test_odd_names_lead_to_the_right_repository_and_say_why(name: str, repository: str) -> None:
    assert ENTRIES[name]["repository"] == repository
    assert ENTRIES[name]["note"] in CARDS[name].description


def test_registering_is_quick() -> None:
    took = []
    for _ in range(20):
        began = time.perf_counter()
        plugin.register_models()
        took.append(time.perf_counter() - began)
    assert min(took) < 0.005


def test_no_name_is_somebody_elses() -> None:
    registry = Registry.build()
    assert not [fault for fault in registry.faults if fault.plugin in ("hub", "llamacpp")]
    assert "smollm2-135m-instruct" in registry.models
    assert all(registry.models[name] == card for name, card in CARDS.items())


# -- what is here ----------------------------------------------------------------------------------------------


PARTS = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]


async def test_weights_are_here_once_all_their_parts_are(
    server: Hub, opened: Callable[[str], HubStorage]
) -> None:
    server.put("org/name", {"config.json": b"{}", **dict.fromkeys(PARTS, b"weights")})
    url = "hf://org/name"
    assert not await opened(url).is_here()
    for wanted, here in ((["config.json"], False), (PARTS[:1], False), (PARTS[1:], True)):
        await bring(opened(url), wanted)
        asked = len(server.asked)
        assert await opened(url).is_here() is here
        assert len(server.asked) == asked
    assert not await opened("hf://org/other").is_here()


async def test_the_zoo_is_looked_through_without_asking_the_hub(
    server: Hub, opened: Callable[[str], HubStorage], tmp_path_factory: pytest.TempPathFactory
) -> None:
    card: ModelCard = CARDS["smollm2-360m"]
    name = card.sources[0].url.removeprefix("hf://")
    server.put(name, {"config.json": b"{}", "model.safetensors": b"weights"})
    await bring(opened(card.sources[0].url), ["model.safetensors"])
    asked = len(server.asked)
    home = tmp_path_factory.mktemp("home")
    settings = await asyncio.to_thread(lambda: Settings(home=home))
    registry = await asyncio.to_thread(Registry.build, settings)
    found = await cards_here(registry, settings)
    assert found & CARDS.keys() == {"smollm2-360m"}
    assert len(server.asked) == asked
