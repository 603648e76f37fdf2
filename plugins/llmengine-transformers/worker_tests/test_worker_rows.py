"""Rows of the cache: whoever joins and leaves, each request goes on as if it were alone."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
import torch
from architectures import CONTEXT, END, VOCABULARY, engine_of, run, small
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.worker.contract import Constraint, Emitted, Masker, Order, Refused
from llmengine_transformers.worker.attention import spans
from llmengine_transformers.worker.engine import TransformersEngine, affordable_context
from llmengine_transformers.worker.pace import Pace

TIE = 1e-3


@cache
def model() -> Any:
    return small("gemma3_text")


@cache
def engine() -> TransformersEngine:
    return engine_of(model())


def prompt(number: int, length: int) -> tuple[int, ...]:
    chance = random.Random(number)
    return tuple(chance.randrange(3, VOCABULARY) for _ in range(length))


@cache
def alone(number: int, length: int, new: int) -> list[Emitted]:
    tokens = prompt(number, length)
    return run(engine_of(model()), Order(id=0, tokens=tokens, max_tokens=new, logprobs=True))[0]


request = st.tuples(st.integers(0, 3), st.sampled_from([1, 7, 16, 17, 33, 60]), st.sampled_from([1, 5, 20]))
moves = st.lists(
    st.one_of(
        st.tuples(st.just("join"), request),
        st.tuples(st.just("leave"), st.integers(0, 3)),
        st.just(("step", 0)),
    ),
    max_size=40,
)


@given(moves)
def test_c14_every_request_goes_on_as_if_it_were_alone(moves: list[tuple[str, Any]]) -> None:
    there: dict[int, tuple[int, int, int]] = {}
    found: dict[int, list[Emitted]] = {}

    def step() -> None:
        for emitted in engine().step():
            found[emitted.order].append(emitted)
            if emitted.finish:
                held_to_account(found[emitted.order], alone(*there.pop(emitted.order)))

    for number, (move, what) in enumerate(moves):
        if move == "join" and len(there) < 4:
            engine().join(Order(id=number, tokens=prompt(*what[:2]), max_tokens=what[2], logprobs=True))
            there[number], found[number] = what, []
        elif move == "leave" and there:
            gone = sorted(there)[what % len(there)]
            engine().leave(gone)
            held_to_account(found[gone], alone(*there.pop(gone))[: len(found[gone])])
        elif move == "step" and there:
            step()
    while there:
        step()


def held_to_account(mine: list[Emitted], expected: list[Emitted]) -> None:
    """The same tokens, texts and ends, and log probabilities but for rounding."""
    for one, other in zip(mine, expected, strict=True):
        assert (one.token, one.text, one.data, one.finish) == (
            other.token,
            other.text,
            other.data,
            other.finish,
        )
        assert one.logprob == pytest.approx(other.logprob, abs=TIE)


def test_c05_a_greedy_text_alone_is_the_same_to_the_last_bit() -> None:
    def once() -> list[Emitted]:
        return run(engine(), Order(id=9, tokens=prompt(1, 50), max_tokens=12, logprobs=True))[9]

    first = once()
    run(engine(), *(Order(id=at, tokens=prompt(at, 20 + at), max_tokens=9) for at in range(4)))
    assert once() == first


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_c10_a_row_is_free_as_soon_as_its_request_leaves(steps: int) -> None:
    made = engine_of(model(), rows=2)  # whose cache has no room for a third
    made.join(Order(id=1, tokens=prompt(1, 60), max_tokens=50))
    made.join(Order(id=2, tokens=prompt(2, 5), max_tokens=50))
    for _ in range(steps):  # it is read until the fourth
        made.step()
    for gone in (1, 1, 77):
        made.leave(gone)
    made.join(Order(id=3, tokens=prompt(3, 9), max_tokens=3, logprobs=True))
    found: list[Emitted] = []
    while len(found) < 3:
        emitted = made.step()
        assert {each.order for each in emitted} <= {2, 3}
        found += [each for each in emitted if each.order == 3]
    held_to_account(found, alone(3, 9, 3))


def test_a_prompt_is_read_in_pieces_and_others_go_on_meanwhile() -> None:
    made = engine_of(model(), at_once=16)
    made.join(Order(id=1, tokens=prompt(1, 3), max_tokens=40))
    made.step()
    made.join(Order(id=2, tokens=prompt(2, 60), max_tokens=5))
    seen = [[each.order for each in made.step()] for _ in range(4)]
    assert seen == [[1], [1], [1], [1, 2]]


def test_short_prompts_do_not_wait_for_long_ones() -> None:
    made = engine_of(model(), at_once=16)
    made.join(Order(id=1, tokens=prompt(1, 100), max_tokens=2))
    made.join(Order(id=2, tokens=prompt(2, 5), max_tokens=2))
    made.step()
    assert [each.order for each in made.step()] == [2]


def test_the_end_token_stops_and_stands_for_nothing() -> None:
    class OnlyTheEnd(Masker):
        def __init__(self, folder: str, vocabulary: int, end_tokens: Any) -> None:
            pass

        def constraint(self, grammar: str) -> Constraint:
            if grammar == "bad":
                raise Refused("a bad grammar")
            return Seen()

        def fill(self, constraints: Any, masks: memoryview) -> None:
            assert masks.shape == (len(constraints), VOCABULARY // 32)
            for row, each in enumerate(constraints):
                token = (END, 300)[not each.tokens]
                masks[row, token // 32] = 1 << token % 32

    class Seen(Constraint):
        def __init__(self) -> None:
            self.tokens: list[int] = []

        def accept(self, token: int) -> None:
            self.tokens.append(token)

    made = engine_of(model(), masker=OnlyTheEnd("", 0, ()))
    with pytest.raises(Refused, match="bad grammar"):
        made.join(Order(id=1, tokens=prompt(1, 5), max_tokens=9, grammar="bad"))
    found = run(
        made,
        Order(id=1, tokens=prompt(1, 5), max_tokens=9, grammar="good", logprobs=True),
        Order(id=2, tokens=prompt(1, 5), max_tokens=5),
        Order(id=3, tokens=prompt(2, 5), max_tokens=9, grammar="good", temperature=1.0),
    )
    for at in (1, 3):
        assert [each.token for each in found[at]] == [300, END]
        assert (found[at][-1].text, found[at][-1].data, found[at][-1].finish) == ("", b"", "stop")
    assert [each.token for each in found[2]] == [each.token for each in alone(1, 5, 5)]
    with pytest.raises(Refused, match="no masker"):
        engine().join(Order(id=1, tokens=prompt(1, 5), max_tokens=9, grammar="good"))


def test_what_can_not_be_served_is_refused_and_leaves_nothing() -> None:
    with pytest.raises(Refused, match=f"100 tokens .* 50 more .* {CONTEXT}"):
        engine().join(Order(id=1, tokens=prompt(1, 100), max_tokens=50))
    with pytest.raises(Refused, match="no adapter 'x'"):
        engine().join(Order(id=1, tokens=prompt(1, 9), max_tokens=5, adapter="x"))
    found = run(engine(), Order(id=1, tokens=prompt(1, 16), max_tokens=5, logprobs=True))[1]
    held_to_account(found, alone(1, 16, 5))


def test_the_whole_context_can_be_used() -> None:
    found = run(engine(), Order(id=1, tokens=prompt(1, CONTEXT - 8), max_tokens=9))[1]
    assert len(found) == 9


def test_where_no_memory_is_left_the_newcomer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine_of(model())
    made.join(Order(id=1, tokens=prompt(1, 7), max_tokens=5, logprobs=True))
    made.step()

    def none_left(*_: object) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("llmengine_transformers.worker.cache._room", none_left)
    with pytest.raises(Refused, match=r"no memory left.*allocate"):
        made.join(Order(id=2, tokens=prompt(2, 60), max_tokens=20))
    monkeypatch.undo()
    made.join(Order(id=3, tokens=prompt(2, 60), max_tokens=20, logprobs=True))
    found: dict[int, list[Emitted]] = {1: [], 3: []}
    while not (found[3] and found[3][-1].finish):
        for emitted in made.step():
            found[emitted.order].append(emitted)
    held_to_account(found[1], alone(1, 7, 5)[1:])
    held_to_account(found[3], alone(2, 60, 20))


def test_a_cache_grows_by_doubling_up_to_what_it_may_hold() -> None:
    made, limits = engine_of(model(), rows=3), {"most_rows": 3, "most_capacity": CONTEXT}
    cache = made.forward.cache
    sizes = [(1, 3), (2, 70), (3, 71), (3, CONTEXT), (2, 9)]
    seen = []
    for rows, capacity in sizes:
        with torch.inference_mode():
            cache.reserve(rows, capacity, **limits)
        seen.append(cache.room)
    assert seen == [(2, 64), (2, 128), (3, 128), (3, 128), (3, 128)]


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=40), st.integers(1, 500))
def test_spans_are_all_rows_in_order(lengths: list[int], call: int) -> None:
    found = list(spans(lengths, call))
    assert [at for first, last in found for at in range(first, last)] == list(range(len(lengths)))
    padding = sum(max(lengths[first:last]) * (last - first) for first, last in found) - sum(lengths)
    assert padding <= call * len(lengths)


@given(st.integers(0, 10**12), st.integers(0, 10**7), st.integers(0, 10**6))
def test_pieces_of_prompt_fit_the_model_and_the_place(weights: int, per_earlier: int, start: int) -> None:
    pace = Pace(weights, per_earlier)
    tokens = pace.tokens(start)
    assert 16 <= tokens <= 2048
    assert tokens.bit_count() == 1
    assert pace.tokens(2 * start) <= tokens
    assert Pace(2 * weights, per_earlier).tokens(start) <= tokens


@pytest.mark.parametrize(
    ("trained", "asked", "room", "context"),
    [
        (8192, None, 10**6, 8192),
        (8192, None, 4000, 4000),
        (8192, 512, 4000, 512),
        (None, None, 10**6, 512),
        (8192, None, 512, 512),
        (64, None, 64, 64),
        (8192, 16, 20, 16),
    ],
)
def test_the_context_is_what_the_model_was_trained_for_and_memory_allows(
    trained: int | None, asked: int | None, room: int, context: int
) -> None:
    assert affordable_context(trained, asked, room) == context


@pytest.mark.parametrize(("asked", "why"), [(9000, "trained for 8192"), (8000, "room for 4000")])
def test_a_context_that_can_not_be_had_is_refused(asked: int, why: str) -> None:
    with pytest.raises(Refused, match=why):
        affordable_context(8192, asked, 4000)


@pytest.mark.parametrize(("trained", "room"), [(8192, 511), (8192, 0), (None, 511), (64, 63)])
def test_rows_that_leave_next_to_no_context_are_refused(trained: int | None, room: int) -> None:
    with pytest.raises(Refused, match=rf"room for {room} tokens in .* lower per_worker"):
        affordable_context(trained, None, room)
