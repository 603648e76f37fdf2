"""What a session answers, against the real engine in its own environment."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers_engine import CONTEXT, Engine, lark, started

from llmengine_core.errors import BadRequestError
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.testing.answers import request
from llmengine_core.types.generation import Message, Messages, Text, TokenIds
from llmengine_core.types.launch import Deployment

pytestmark = pytest.mark.environment

FRANCE = "The capital of France is"
PLAIN = "1, 2, 3, 4, 5, 6,"
"""What nobody goes on with in two ways."""
ENDLESS = "Once upon a time"
LONG = TokenIds(tuple(330 + at % 50 for at in range(600)))
"""Many steps' worth of prompt."""


async def test_facts_are_the_workers(engine: Engine) -> None:
    facts = engine.session.facts
    assert (facts.context_length, facts.max_concurrent) == (CONTEXT, 2)
    assert set(facts.versions) == {"transformers", "torch", "weights"}
    assert facts.capabilities.structured == {"json", "regex", "choice", "grammar"}
    assert facts.capabilities.messages
    assert facts.capabilities.adapters == "none", "this deployment takes none"


async def test_c01_text_is_verbatim_and_a_conversation_goes_through_the_template(engine: Engine) -> None:
    turns = Messages((Message("system", "Be brief."), Message("user", "Hi")))
    template = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    spoken, written = (
        await engine.complete(turns, max_tokens=4),
        await engine.complete(template, max_tokens=4),
    )
    assert (spoken.text, spoken.usage) == (written.text, written.usage)


async def test_counts_tokens_as_it_charges_them(engine: Engine) -> None:
    for prompt in (Text(FRANCE), Messages((Message("user", "Hi"),)), TokenIds((1, 2, 3))):
        answer = await engine.complete(prompt, max_tokens=1)
        assert await engine.session.count_tokens(prompt) == answer.usage.prompt_tokens


async def test_token_ids_that_the_model_lacks_are_the_callers_mistake(engine: Engine) -> None:
    with pytest.raises(BadRequestError, match="1000000"):
        await engine.complete(TokenIds((10**6,)))


async def test_c05_greedy_text_alone_is_repeatable_to_the_last_bit(engine: Engine) -> None:
    first = await engine.complete(FRANCE, logprobs=True)
    await asyncio.gather(*(engine.complete(f"{at} {ENDLESS}", max_tokens=2) for at in range(3)))
    again = await engine.complete(FRANCE, logprobs=True)
    assert [(each.id, each.logprob) for each in again.tokens] == [
        (each.id, each.logprob) for each in first.tokens
    ]


async def test_c05_top_k_and_top_p_have_no_effect_when_greedy(engine: Engine) -> None:
    greedy = await engine.complete(FRANCE)
    assert (await engine.complete(FRANCE, top_k=3, top_p=0.1)).text == greedy.text
    assert (await engine.complete(FRANCE, temperature=1.0, top_k=1)).text == greedy.text
    assert (await engine.complete(FRANCE, temperature=1.0, top_p=1e-6)).text == greedy.text


async def test_a_seed_repeats_a_sample_and_another_gives_another(engine: Engine) -> None:
    async def sample(seed: int | None) -> str:
        return (await engine.complete(FRANCE, temperature=1.0, seed=seed)).text

    first = await sample(7)
    assert await sample(7) == first
    assert len({first, await sample(8), await sample(9), await sample(None), await sample(None)}) > 3


async def test_penalties_keep_what_was_said_from_being_said_again(engine: Engine) -> None:
    prompt = "la la la la la la la la la"
    plain = [token.id for token in (await engine.complete(prompt)).tokens]
    for penalty in ("presence_penalty", "frequency_penalty"):
        for strength in (2.0, 1e-7):
            sampling: dict[str, Any] = {penalty: strength}
            ids = [token.id for token in (await engine.complete(prompt, **sampling)).tokens]
            assert (len(set(ids)) > len(set(plain))) is (strength == 2.0)


async def test_c07_log_probs_are_of_the_raw_distribution(engine: Engine) -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"temperature": 0.3, "top_k": 1, "top_p": 0.5},
        {"temperature": 1.0, "top_k": 1, "presence_penalty": 2.0},
        {"structured": lark('" a" | " the"')},
    ]
    first = [(await engine.complete(FRANCE, max_tokens=1, logprobs=True, **way)).tokens[0] for way in ways]
    known = {token.id: token.logprob for token in first}
    for token in first:
        assert token.logprob is not None
        assert math.isfinite(token.logprob)
        assert token.logprob <= 0
        assert token.logprob == known[token.id]
    assert (await engine.complete(FRANCE, max_tokens=1)).tokens[0].logprob is None


@pytest.mark.parametrize("text", ["It was 10:30, naïve café — 😀🦊🐉 漢字.\n", " a  b\t\tc\n\n\nd"])
async def test_c07_tokens_join_to_the_text_and_the_end_token_has_none(engine: Engine, text: str) -> None:
    answer = await engine.complete("Say it:", structured=lark(json.dumps(text)), max_tokens=100)
    assert (answer.text, answer.finish_reason) == (text, "stop")
    assert "".join(token.text for token in answer.tokens) == text
    assert b"".join(token.bytes or b"" for token in answer.tokens) == text.encode()
    assert answer.tokens[-1].text == ""
    assert len(answer.tokens) == answer.usage.completion_tokens


@pytest.mark.parametrize("stop", ["😀🦊", "fé 😀", "\n漢"])
@pytest.mark.parametrize("include", [False, True])
async def test_c06_stops_lie_across_token_borders(engine: Engine, stop: str, include: bool) -> None:
    text = "naïve café 😀🦊🐉\n漢字 and more"
    answer = await engine.complete(
        "Say it:", structured=lark(json.dumps(text)), max_tokens=60, stop=(stop,), include_stop=include
    )
    end = text.index(stop)
    assert answer.text == text[: end + len(stop) if include else end]
    assert answer.finish_reason == "stop"


async def test_c03_a_schema_is_obeyed_also_when_sampled_and_penalized(engine: Engine) -> None:
    person = {"type": "object", "properties": {"age": {"type": "integer", "maximum": 99, "minimum": 0}}}
    schema = json.dumps({**person, "required": ["age"], "additionalProperties": False})
    answer = await engine.complete(
        "A person:", structured=lark(f"%json {schema}"), max_tokens=60, temperature=1.0, presence_penalty=1.0
    )
    assert answer.finish_reason == "stop"
    assert 0 <= json.loads(answer.text)["age"] <= 99


async def test_a_grammar_that_does_not_compile_is_the_callers_mistake(engine: Engine) -> None:
    with pytest.raises(BadRequestError):
        await engine.complete("Hi", structured=lark("nothing_of_that_name"))


async def test_c08_generates_no_more_than_asked_for(engine: Engine) -> None:
    for count in (1, 3):
        answer = await engine.complete(FRANCE, max_tokens=count)
        assert (answer.usage.completion_tokens, answer.finish_reason) == (count, "length")


async def test_c09_each_token_comes_when_it_is_made(engine: Engine) -> None:
    chunks = (await engine.complete(FRANCE, max_tokens=8)).chunks
    assert len(chunks) == 8
    assert all(chunk.finish_reason is None and chunk.usage is None for chunk in chunks[:-1])


async def test_c04_what_does_not_fit_is_refused_with_its_numbers(engine: Engine) -> None:
    with pytest.raises(BadRequestError) as refusal:
        await engine.complete(TokenIds((330,) * (CONTEXT - 8)), max_tokens=9)
    for number in (CONTEXT - 8, 9, CONTEXT):
        assert str(number) in refusal.value.message


async def test_c14_concurrent_answers_do_not_mix(engine: Engine) -> None:
    async def one(number: int) -> str:
        answer = await engine.complete(f"{number}", structured=lark(f'"It is number {number}."'))
        return answer.text

    answers = await asyncio.gather(*(one(number) for number in range(7)))
    assert answers == [f"It is number {number}." for number in range(7)]


async def test_c10_closed_streams_leave_their_rows_to_others(engine: Engine) -> None:
    for _ in range(2):
        streams = [engine.session.generate(request(ENDLESS, max_tokens=CONTEXT - 10)) for _ in range(2)]
        await asyncio.gather(*(anext(stream) for stream in streams))
        waiting = asyncio.ensure_future(engine.complete(FRANCE, max_tokens=1))
        for stream in streams:
            await stream.aclose()
        assert (await waiting).usage.completion_tokens == 1  # without a row it would wait for minutes
    await idle(engine)


async def test_c10_prompts_that_are_being_read_are_dropped(engine: Engine) -> None:
    before = engine.cpu_seconds()
    whole = await engine.complete(LONG, max_tokens=1)
    assert whole.usage.prompt_tokens == 600
    cost = engine.cpu_seconds() - before
    readings = [
        asyncio.ensure_future(anext(engine.session.generate(request(LONG, max_tokens=1)))) for _ in range(2)
    ]
    before = engine.cpu_seconds()
    while engine.cpu_seconds() - before < cost / 8:  # noqa: ASYNC110 - it tells nobody how far it has come
        await asyncio.sleep(0.01)
    for reading in readings:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
    await idle(engine)
    assert engine.cpu_seconds() - before < cost  # a half of what both would have taken


async def test_two_workers_answer_side_by_side(
    engine: Engine, deployment: Deployment, tmp_path: Path
) -> None:
    runtime = LocalRuntime(tmp_path)
    try:
        async with started(
            runtime, replace(deployment, context_length=256, options={"dtype": "float32"})
        ) as other:
            answers = await asyncio.gather(*(each.complete(PLAIN, max_tokens=6) for each in (engine, other)))
            assert other.session.facts.context_length == 256
            assert answers[0].text == answers[1].text
    finally:
        await runtime.aclose()


async def idle(engine: Engine) -> None:
    """Returns once the worker computes no more."""
    while True:
        before = engine.cpu_seconds()
        await asyncio.sleep(0.2)
        if engine.cpu_seconds() - before <= 0.02:
            return
