"""A real model in the dtype that it is stored in, beside the library's own ``generate()``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import run
from transformers import AutoModelForCausalLM

from llmengine_core.worker.contract import Emitted, Order, Refused
from llmengine_transformers.worker.engine import TransformersEngine

TIE = 0.25
"""Two tokens whose log probabilities differ by less may come out either way round in bfloat16."""
LONG = (
    "The lighthouse keeper wrote down the weather every morning, as his father had done before him. On the first"
    " day of March he noted a wind from the north, and that a ship had passed which flew no flag. In the village"
)
PROMPTS = [
    "The capital of France is",
    "Once upon a time there was a programmer who",
    "def fibonacci(n):\n    ",
    LONG,
]


def loaded(weights: Path, **told: Any) -> TransformersEngine:
    document = {
        "weights": str(weights),
        "accelerator": "cpu",
        "allow_remote_code": False,
        "context_length": 512,
        "dtype": "auto",
        "load_options": {},
        "per_worker": 8,
        "threads": 1,
        "memory": 4 << 30,
    } | told
    return TransformersEngine.load(document, None, lambda phase, done: None)


@pytest.fixture(scope="module")
def engine(weights: Path) -> TransformersEngine:
    return loaded(weights)


def test_the_cache_takes_at_most_half_of_the_memory_that_may_be_used(
    weights: Path, engine: TransformersEngine
) -> None:
    bytes_of_rows = 8 * engine.forward.cache.bytes_per_token
    memory = 2 * 1700 * bytes_of_rows
    assert memory > 300 << 20  # or there would be no room for the weights
    assert loaded(weights, context_length=None, memory=memory).facts.context_length == 1700
    with pytest.raises(Refused, match="room for 1700 tokens in each request's cache; lower"):
        loaded(weights, context_length=1701, memory=memory)


@pytest.fixture(scope="module")
def library(weights: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(weights, dtype="auto").eval()


def test_greedy_text_parts_from_the_librarys_at_ties_only(engine: TransformersEngine, library: Any) -> None:
    orders = [
        Order(id=at, tokens=engine.encode(prompt), max_tokens=10 + 2 * at)
        for at, prompt in enumerate(PROMPTS)
    ]
    together = run(engine, *orders)
    for order in orders:
        alone = run(engine, order)[order.id]
        theirs = generated(library, order)
        held_to(theirs, alone, order, library)
        held_to(theirs, together[order.id], order, library)


def generated(library: Any, order: Order) -> list[int]:
    prompt = torch.tensor([order.tokens])
    mask = torch.ones_like(prompt)
    with torch.inference_mode():
        found = library.generate(
            prompt, attention_mask=mask, max_new_tokens=order.max_tokens, do_sample=False
        )
    tokens: list[int] = found[0, len(order.tokens) :].tolist()
    return tokens


def held_to(theirs: list[int], mine: list[Emitted], order: Order, library: Any) -> None:
    for at, (token, each) in enumerate(zip(theirs, mine, strict=False)):
        if token != each.token:
            with torch.inference_mode():
                logits = library(torch.tensor([[*order.tokens, *theirs[:at]]])).logits[0, -1].float()
            assert abs(float(logits[token] - logits[each.token])) < TIE
            return
    assert len(theirs) == len(mine)


def test_a_seed_repeats_its_text_alone(engine: TransformersEngine) -> None:
    def sampled(seed: int) -> list[int]:
        tokens = engine.encode("Once upon a time")
        order = Order(id=1, tokens=tokens, max_tokens=8, temperature=1.0, top_p=0.9, top_k=60, seed=seed)
        return [each.token for each in run(engine, order)[1]]

    first = sampled(5)
    assert sampled(5) == first
    assert len({tuple(first), tuple(sampled(6)), tuple(sampled(7))}) == 3


def test_facts_are_of_what_was_loaded(engine: TransformersEngine) -> None:
    facts = engine.facts
    assert (facts.context_length, facts.max_concurrent) == (512, 8)
    assert set(facts.versions) == {"transformers", "torch"}
    assert facts.lacks == {"structured"}, "no masker was given"
