"""Requests that can't be answered: the caller hears why, at once, and the next one is answered."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.facade import LONG, MODEL, answer, endless, engine_answers_on_every_slot, rest
from tests.e2e.procfs import engines_of, until, working

from llmengine import Completion, errors

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("own_home")]

TRAINED = 8192
"""The longest context of the model; on a small machine an engine may have less."""


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_not_found_and_close_ones_are_named(stream: bool) -> None:
    with pytest.raises(errors.NotFoundError, match=re.escape(f"no model 'smollm2'; did you mean '{MODEL}'")):
        Completion.create("smollm2", "hello", stream=stream)
    with pytest.raises(errors.NotFoundError, match=r"no model 'zzz'.*llmengine models list"):
        asyncio.run(Completion.acreate("zzz", "hello", stream=stream))


def numbers_of_the_refusal(prompt: str, most: int, **options: Any) -> list[int]:
    """Tokens of the prompt, most new tokens, their sum, and the context length, as the error has them."""
    with pytest.raises(errors.BadRequestError) as caught:
        Completion.create(MODEL, prompt, most, **options)
    return list(map(int, re.findall(r"\d+", str(caught.value))))


@pytest.mark.parametrize("stream", [False, True])
def test_c04_a_prompt_that_is_too_long_is_refused_with_three_numbers(stream: bool) -> None:
    prompt = "one two three four " * 2048
    prompt_tokens, most, together, context = numbers_of_the_refusal(prompt, 7, stream=stream)
    assert (most, together) == (7, prompt_tokens + 7)
    assert TRAINED < prompt_tokens < len(prompt)
    assert 0 < context <= TRAINED


def test_c04_the_limit_is_exact() -> None:
    prompt = "The capital of France is"
    tokens, *_, context = numbers_of_the_refusal(prompt, 10 * TRAINED)
    assert Completion.create(MODEL, prompt, 1, 0.0).output.num_prompt_tokens == tokens
    assert numbers_of_the_refusal(prompt, context - tokens + 1)[2] == context + 1
    with Completion.create(MODEL, prompt, context - tokens, stream=True) as stream:
        assert next(stream).error is None


def test_c11_a_timeout_before_the_first_chunk_is_raised(own_home: Path) -> None:
    answer()
    (engine,) = engines_of(own_home)
    with pytest.raises(errors.RequestTimeoutError, match=r"timeout=0\.05 s") as caught:
        Completion.create(MODEL, LONG, 4000, timeout=0.05)
    assert caught.value.status_code == 504
    with pytest.raises(errors.RequestTimeoutError):
        next(endless("The capital of Germany is Berlin. " * 40, timeout=0.05))
    until(lambda: not working(engine), 2, "it has stopped generating")
    engine_answers_on_every_slot()


def test_c11_a_timeout_after_the_first_chunk_ends_the_stream_with_an_error(own_home: Path) -> None:
    answer()
    (engine,) = engines_of(own_home)
    stream = endless(timeout=3)
    first = next(stream)
    last = rest(stream)
    assert last.output is None
    assert last.error is not None
    assert last.error.status_code == 504
    assert "timeout=3 s" in last.error.content.error
    assert last.request_id == first.request_id
    assert list(stream) == []
    until(lambda: not working(engine), 2, "it has stopped generating")
    engine_answers_on_every_slot()


def test_c11_the_timeout_counts_the_wait_for_a_slot() -> None:
    streams = [endless() for _ in range(4)]
    for stream in streams:
        next(stream)
    with pytest.raises(errors.RequestTimeoutError):
        answer(timeout=0.05)
    for stream in streams:
        stream.close()
    engine_answers_on_every_slot()


async def test_c11_also_for_tasks() -> None:
    await asyncio.to_thread(answer)
    with pytest.raises(errors.RequestTimeoutError):
        await Completion.acreate(MODEL, LONG, 4000, timeout=0.05)
    stream = await Completion.acreate(MODEL, LONG, 4000, 0.0, stream=True, timeout=3)
    *_, last = [response async for response in stream]
    assert last.error is not None
    assert last.error.status_code == 504
    await asyncio.to_thread(engine_answers_on_every_slot)
