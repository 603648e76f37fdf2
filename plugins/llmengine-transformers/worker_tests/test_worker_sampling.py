"""Tokens are chosen as ``SamplingParams`` says: held against a slow reference in numpy, row by row."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.worker.contract import Order
from llmengine_transformers.worker import sampling
from llmengine_transformers.worker.sampling import Choice, choose, draw

VOCABULARY = 40


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a first look doesn't see all of a small vocabulary."""
    monkeypatch.setattr(sampling, "CANDIDATES", 4)


def order(**options: Any) -> Order:
    values: dict[str, Any] = {"id": 0, "tokens": (1,), "max_tokens": 9, "logprobs": True}
    return Order(**values | options)


orders = st.builds(
    order,
    temperature=st.sampled_from([0.0, 5e-324, 1e-50, 1e-30, 0.01, 0.5, 1.0]),
    top_k=st.none() | st.integers(1, 50),
    top_p=st.sampled_from([1e-9, 0.3, 0.9, 0.999, 1.0]),
    presence_penalty=st.sampled_from([0.0, 0.5, 2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.25, 2.0]),
    seed=st.integers(0, 2**64 - 1),
)
scores = st.lists(st.floats(-8, 8, width=32), min_size=VOCABULARY, max_size=VOCABULARY)


def reference(logits: np.ndarray, order: Order, said: list[int], forbidden: set[int]) -> dict[int, float]:
    """The probability of each token that may come next."""
    logits = logits.astype(np.float64)
    for token, times in Counter(said).items():
        logits[token] -= order.presence_penalty + times * order.frequency_penalty
    likely = sorted((t for t in range(len(logits)) if t not in forbidden), key=lambda t: -logits[t])
    if order.temperature == 0:
        return {likely[0]: 1.0}
    with np.errstate(over="ignore"):
        weights = {
            t: math.exp(max(-1e9, (logits[t] - logits[likely[0]]) / order.temperature)) for t in likely
        }
    kept = likely[: order.top_k]
    whole = sum(weights[t] for t in kept)
    found: dict[int, float] = {}
    total = 0.0
    for token in kept:
        if total >= order.top_p * whole and found:
            break
        found[token] = weights[token]
        total += weights[token]
    return {token: weight / total for token, weight in found.items()}


@given(
    data=st.data(),
    rows=st.lists(st.tuples(orders, scores, st.lists(st.integers(0, 39), max_size=6)), max_size=5),
)
def test_what_is_drawn_could_be_drawn_and_its_log_prob_is_the_raw_one(
    data: st.DataObject, rows: list[tuple[Order, list[float], list[int]]]
) -> None:
    if not rows:
        return
    choices, forbidden = [], []
    for each, _, said in rows:
        choice = Choice.of(each, VOCABULARY)
        for token in said:
            choice.chose(token)
        choices.append(choice)
        forbidden.append(data.draw(st.just(set()) | st.sets(st.integers(0, 39), max_size=39)))
    logits = torch.tensor([numbers for _, numbers, _ in rows])
    raw = logits.clone().double().log_softmax(-1)

    def hide(found: torch.Tensor) -> None:
        for row, tokens in enumerate(forbidden):
            found[row, list(tokens)] = -math.inf

    chosen = choose(logits, choices, hide if any(forbidden) else None)
    for row, (token, logprob) in enumerate(chosen):
        each, numbers, said = rows[row]
        possible = reference(np.array(numbers, np.float32), each, said, forbidden[row])
        assert token in possible or close(token, possible, numbers, each, said)
        assert logprob is not None
        assert logprob <= 0
        assert logprob == pytest.approx(float(raw[row, token]), abs=1e-4)


def close(
    token: int, possible: dict[int, float], numbers: list[float], order: Order, said: list[int]
) -> bool:
    """Whether only rounding in float32 put a token among those that may come next."""

    def score(at: int) -> float:
        times = said.count(at)
        return numbers[at] - (times > 0) * order.presence_penalty - times * order.frequency_penalty

    return score(token) >= min(map(score, possible)) - 1e-4


@pytest.mark.parametrize("options", [{}, {"top_k": 5}, {"top_p": 0.8}, {"top_k": 7, "top_p": 0.9}])
@pytest.mark.parametrize("temperature", [0.4, 1.0])
def test_tokens_come_as_often_as_they_should(options: dict[str, Any], temperature: float) -> None:
    numbers = np.random.default_rng(5).normal(0, 2, VOCABULARY).astype(np.float32)
    one = order(temperature=temperature, seed=11, logprobs=False, **options)
    choices, draws = [Choice.of(one, VOCABULARY)], 4000
    drawn = Counter(choose(torch.from_numpy(numbers)[None].clone(), choices)[0][0] for _ in range(draws))
    expected = reference(numbers, one, [], set())
    assert set(drawn) <= set(expected)
    for token, probability in expected.items():
        spread = math.sqrt(draws * probability * (1 - probability))
        assert abs(drawn[token] - draws * probability) <= 5 * spread + 1


@given(
    st.lists(st.sampled_from([0.0, 1e-12, 0.1, 1.0]), min_size=2, max_size=9),
    st.floats(0, 1, exclude_max=True),
)
def test_nothing_without_weight_is_drawn(weights: list[float], uniform: float) -> None:
    if not any(weights):
        weights[0] = 1.0
    for number in (0.0, uniform, math.nextafter(1, 0)):
        found = int(
            draw(torch.tensor([weights], dtype=torch.float64), torch.tensor([number], dtype=torch.float64))
        )
        assert weights[found] > 0


def test_a_seed_repeats_itself_whoever_else_is_there() -> None:
    logits = torch.randn(3, VOCABULARY, generator=torch.Generator().manual_seed(1))

    def drawn(rows: int) -> list[int]:
        choices = [
            Choice.of(order(temperature=1.0, seed=4 if row == 0 else None), VOCABULARY) for row in range(rows)
        ]
        return [choose(logits[:rows].clone(), choices)[0][0] for _ in range(20)]

    assert drawn(1) == drawn(3) == drawn(2)


def test_logits_that_are_no_numbers_are_told() -> None:
    with pytest.raises(ArithmeticError, match="not numbers"):
        choose(torch.full((1, VOCABULARY), math.nan), [Choice.of(order(), VOCABULARY)])
