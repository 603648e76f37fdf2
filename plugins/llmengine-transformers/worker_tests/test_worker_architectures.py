"""Every declared architecture gives the library's own text and log probabilities, in any company."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, END, VOCABULARY, engine_of, small

from llmengine_core.worker.contract import Emitted, Order
from llmengine_transformers.plugin import ARCHITECTURES as DECLARED

TIE = 1e-3
"""Log probabilities closer than this may come out either way round."""


def orders() -> list[Order]:
    """Prompts shorter and longer than a piece and than a window, in no order of length."""
    chance = random.Random(3)
    lengths = [(5, 30), (37, 9), (1, 20), (64, 25), (16, 3), (9, 40), (50, 1), (17, 16)]
    return [
        Order(
            id=at,
            tokens=tuple(chance.randrange(3, VOCABULARY) for _ in range(prompt)),
            max_tokens=new,
            logprobs=True,
        )
        for at, (prompt, new) in enumerate(lengths)
    ]


def come_and_go(engine: Any) -> dict[int, list[Emitted]]:
    """Four rows at most; others join as soon as there is room, and the sixth is dropped on its way."""
    waiting = orders()
    there: set[int] = set()
    found: dict[int, list[Emitted]] = {order.id: [] for order in waiting}
    while waiting or there:
        while waiting and len(there) < 4:
            there.add(waiting[0].id)
            engine.join(waiting.pop(0))
        for emitted in engine.step():
            found[emitted.order].append(emitted)
            if emitted.finish:
                there.remove(emitted.order)
        if len(found[5]) == 11 and 5 in there:
            engine.leave(5)
            there.remove(5)
    return found


def library_logprobs(model: Any, tokens: tuple[int, ...]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([tokens]), use_cache=False).logits[0].float().log_softmax(-1)


def library_greedy(model: Any, order: Order, count: int) -> list[int]:
    prompt = torch.tensor([order.tokens])
    found = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=END,
    )
    tokens: list[int] = found[0, len(order.tokens) :].tolist()
    return tokens


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_greedy_text_is_the_librarys(architecture: str) -> None:
    model = small(architecture)
    found = come_and_go(engine_of(model))
    assert len(found[5]) == 11
    for order in orders():
        emitted = found[order.id]
        tokens = [each.token for each in emitted]
        theirs = library_logprobs(model, order.tokens + tuple(tokens))
        greedy = library_greedy(model, order, len(tokens))
        for at, each in enumerate(emitted):
            row = theirs[len(order.tokens) + at - 1]
            assert each.logprob == pytest.approx(float(row[each.token]), abs=TIE)
            assert float(row.max() - row[each.token]) < TIE
        parted = next(
            (at for at, pair in enumerate(zip(tokens, greedy, strict=False)) if pair[0] != pair[1]), None
        )
        if parted is not None:
            row = theirs[len(order.tokens) + parted - 1]
            assert abs(float(row[tokens[parted]] - row[greedy[parted]])) < TIE


def test_each_small_model_is_of_a_declared_architecture() -> None:
    assert set(ARCHITECTURES) == DECLARED
