"""What a session with a worker answers, alone and beside others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.worker.toy_backend import ToyBackend, Worker, deployment, request, working

from llmengine_core.errors import BadRequestError, RequestTimeoutError, ServerError
from llmengine_core.interfaces.backend import SessionLost
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.stops import StopMatcher
from llmengine_core.testing.answers import Answer
from llmengine_core.types.generation import (
    GenerationChunk,
    GenerationRequest,
    Message,
    Messages,
    Prompt,
    Text,
    TokenIds,
    Usage,
)
from llmengine_core.types.sampling import SamplingParams, StructuredOutput

PROMPTS = st.sampled_from(["", "a", "é€", "once", "twice"])


async def test_an_answer_is_whole_and_repeatable(worker: Worker) -> None:
    first, second = [await worker.complete("once", max_tokens=50) for _ in range(2)]
    assert first.text == second.text
    assert b"".join(token.bytes or b"" for token in first.tokens).decode(errors="ignore") == first.text
    assert "".join(token.text for token in first.tokens) == first.text
    assert first.usage == Usage(5, len(first.tokens))
    assert [chunk.finish_reason for chunk in first.chunks[:-1]] == [None] * (len(first.chunks) - 1)


@pytest.mark.parametrize("prompt", [TokenIds((1, -1)), TokenIds(()), Messages(())], ids=str)
async def test_a_prompt_that_is_none_is_the_callers_mistake_and_nobody_elses(
    worker: Worker, prompt: Prompt
) -> None:
    stream = worker.session.generate(request("once", max_tokens=500))
    first = await anext(stream)
    with pytest.raises(BadRequestError, match=r"-1|one at least"):
        await worker.complete(prompt)
    with pytest.raises(BadRequestError, match=r"-1|one at least"):
        await worker.session.count_tokens(prompt)
    assert len(Answer((first, *[chunk async for chunk in stream])).tokens) > 1


async def test_c08_the_end_token_counts_and_says_stop(worker: Worker) -> None:
    answer = await worker.complete("once", max_tokens=500)
    assert answer.finish_reason == "stop"
    assert (answer.tokens[-1].text, answer.tokens[-1].bytes) == ("", b"")
    assert answer.usage.completion_tokens == len(answer.tokens) < 500


@given(tokens=st.integers(1, 5))
async def test_c08_max_tokens_says_length(worker: Worker, tokens: int) -> None:
    answer = await worker.complete("a long one", max_tokens=tokens)
    assert (answer.finish_reason, answer.usage.completion_tokens) == ("length", tokens)


async def test_c07_log_probabilities_come_where_they_are_asked_for(worker: Worker) -> None:
    asked, plain = [await worker.complete("once", logprobs=logprobs) for logprobs in (True, False)]
    assert all(token.logprob is not None and token.logprob <= 0 for token in asked.tokens)
    assert all(token.logprob is None for token in plain.tokens)
    assert [token.id for token in asked.tokens] == [token.id for token in plain.tokens]


async def test_the_same_seed_gives_the_same_text(worker: Worker) -> None:
    texts = [(await worker.complete("x", temperature=1.0, seed=seed)).text for seed in (1, 1, 2, -(10**30))]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        (Text(""), 1),
        (Text("é€"), 6),
        (TokenIds((256, 97)), 2),
        (Messages((Message("user", "hi"), Message("assistant", "ho"))), 1 + 8 + 13),
    ],
)
async def test_prompts_of_all_kinds_are_counted_and_answered(
    worker: Worker, prompt: Prompt, tokens: int
) -> None:
    assert await worker.session.count_tokens(prompt) == tokens
    answer = await worker.complete(prompt)
    assert answer.usage.prompt_tokens == tokens


async def test_text_and_its_token_ids_are_one_prompt(worker: Worker) -> None:
    ids = TokenIds((256, *b"once"))
    assert (await worker.complete(ids)).text == (await worker.complete("once")).text


@given(prompt=PROMPTS, choices=st.lists(st.text("abc ", min_size=1), min_size=1, max_size=4).map(tuple))
async def test_c03_constraints_are_obeyed(worker: Worker, prompt: str, choices: tuple[str, ...]) -> None:
    answer = await worker.complete(prompt, choices=choices, max_tokens=100)
    assert answer.text in choices
    assert answer.finish_reason == "stop"


# -- refusals


async def test_c04_what_does_not_fit_is_refused_with_the_three_numbers(worker: Worker) -> None:
    with pytest.raises(BadRequestError, match=r"5 tokens.*\(996\) are 1001 tokens.*\(1000\)"):
        await worker.complete("once", max_tokens=996)
    assert (await worker.complete("once", max_tokens=995)).usage.completion_tokens


@pytest.mark.parametrize(
    ("told", "most"),
    [({}, 1 << 20), ({"longest_token": 2000}, 2_000_000), ({"context_length": 20_000}, 1_280_000)],
)
async def test_a_text_far_too_long_is_refused_before_it_is_read(
    runtime: LocalRuntime, told: dict[str, int], most: int
) -> None:
    async with working(runtime, ToyBackend(**told)) as worker:
        assert await worker.session.count_tokens(Text(most * "a")) == most + 1
        text = (most // 2 + 1) * "é"
        for prompt in (Text(text), Messages((Message("", text[10:]), Message("", text[:10])))):
            with pytest.raises(
                BadRequestError, match=f"{len(text) * 2} bytes of text; no more than {most} are read"
            ):
                await worker.session.count_tokens(prompt)
        with pytest.raises(BadRequestError, match="bytes of text"):
            await worker.complete(text)


@pytest.mark.parametrize(
    ("prompt", "asked", "reason"),
    [
        (TokenIds((257,)), {}, "a token is above 256"),
        ("fault:encode:refuse", {}, "the toy won't"),
        ("fault:join:refuse", {}, "the toy won't"),
        ("x", {"adapter": "none"}, "there is no adapter 'none'"),
        ("x", {"choices": ("xyz",)}, "characters that no token stands for"),
    ],
)
async def test_a_refusal_reaches_who_asked_as_it_is(
    worker: Worker, prompt: str | Prompt, asked: dict[str, Any], reason: str
) -> None:
    beside = asyncio.ensure_future(worker.complete("beside", max_tokens=50))
    with pytest.raises(BadRequestError, match=reason):
        await worker.complete(prompt, **asked)
    assert (await beside).text == (await worker.complete("beside", max_tokens=50)).text


async def test_a_prompt_that_breaks_the_tokenizer_ends_alone(worker: Worker) -> None:
    beside = asyncio.ensure_future(worker.complete("beside"))
    prompt = Text("fault:encode:raise")
    with pytest.raises(
        ServerError, match=r"RuntimeError: the toy is broken.*\n.*toy_worker.py:\d+ in broken"
    ):
        await worker.complete(prompt)
    with pytest.raises(ServerError, match="the toy is broken"):
        await worker.session.count_tokens(prompt)
    assert (await beside).usage.completion_tokens


async def test_a_request_that_is_too_long_to_travel_is_refused(worker: Worker) -> None:
    with pytest.raises(BadRequestError, match="33554432 are allowed"):
        await worker.complete("x" * (1 << 25))
    assert (await worker.complete("once")).usage.completion_tokens


async def test_an_untranslated_constraint_is_our_fault(worker: Worker) -> None:
    structured = StructuredOutput("choice", ("a",))
    with pytest.raises(ServerError, match=r"guided_choice .* not translated into 'spelling'"):
        await anext(worker.session.generate(GenerationRequest(Text("x"), SamplingParams(), structured)))


# -- stop sequences


@given(
    prompt=PROMPTS,
    stop=st.lists(st.text("abcd \né€", min_size=1, max_size=5), min_size=1, max_size=4).map(tuple),
    include=st.booleans(),
)
async def test_c06_stops_are_found_across_tokens(
    worker: Worker, prompt: str, stop: tuple[str, ...], include: bool
) -> None:
    whole = await worker.complete(prompt, max_tokens=60)
    oracle, shown, count = StopMatcher(stop, include), "", 0
    for token in whole.tokens:
        shown, count = shown + oracle.feed(token.text), count + 1
        if oracle.stopped:
            break
    answer = await worker.complete(prompt, max_tokens=60, stop=stop, include_stop=include)
    assert answer.text == shown + oracle.flush()
    assert answer.usage.completion_tokens == count == len(answer.tokens)
    assert answer.finish_reason == ("stop" if oracle.stopped else whole.finish_reason)


# -- time, and the end


async def test_c11_a_deadline_that_has_passed_asks_for_nothing(worker: Worker) -> None:
    with pytest.raises(RequestTimeoutError):
        await worker.complete("once", deadline=time.monotonic())


async def test_nothing_is_asked_before_the_first_pull(worker: Worker) -> None:
    await worker.session.generate(request("fault:step:raise")).aclose()
    assert (await worker.complete("once")).usage.completion_tokens


async def test_closing_the_session_ends_live_streams_as_cancelled(runtime: LocalRuntime, bare: str) -> None:
    async with working(runtime, python=bare) as worker:
        stream = worker.session.generate(request("once", max_tokens=900, stop=("never",)))
        first = await anext(stream)
        await worker.session.aclose()
        chunks = [first, *[chunk async for chunk in stream]]
        assert chunks[-1].finish_reason == "cancelled"
        assert chunks[-1].usage == Usage(5, sum(len(chunk.tokens) for chunk in chunks))
        with pytest.raises(SessionLost):
            await anext(worker.session.generate(request("once")))
        with pytest.raises(SessionLost):
            await worker.session.count_tokens(Text("once"))
        await worker.session.aclose()


async def test_two_sessions_with_one_worker_do_not_mix(worker: Worker) -> None:
    other = await ToyBackend().connect(worker.replica.endpoint, deployment())
    async with other:
        pairs = [
            asyncio.gather(worker.complete(prompt), Worker(worker.replica, other).complete(prompt))
            for prompt in ("once", "twice", "a", "b", "c")
        ]
        assert all(ours.text == theirs.text for ours, theirs in await asyncio.gather(*pairs))


# -- programs: whatever else goes on, an answer is what it is alone


@dataclass
class Program:
    """Requests that are started, pulled, dropped and closed in any order."""

    worker: Worker
    streams: list[AsyncGenerator[GenerationChunk, None]] = field(default_factory=list)
    asked: list[tuple[str, int]] = field(default_factory=list)
    got: list[list[GenerationChunk]] = field(default_factory=list)
    closed: set[int] = field(default_factory=set)

    def start(self, prompt: str, tokens: int) -> None:
        self.asked.append((prompt, tokens))
        self.got.append([])
        self.streams.append(self.worker.session.generate(request(prompt, max_tokens=tokens)))

    async def pull(self, at: int) -> None:
        async for chunk in self.streams[at]:
            self.got[at].append(chunk)
            break

    async def drop(self, at: int) -> None:
        """Cancel the task that waits."""
        task = asyncio.ensure_future(self.pull(at))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        self.closed.add(at)

    async def close(self, at: int) -> None:
        await self.streams[at].aclose()
        self.closed.add(at)

    async def check(self, alone: dict[tuple[str, int], Answer]) -> None:
        async def rest(at: int) -> None:
            async for chunk in self.streams[at]:
                self.got[at].append(chunk)

        await asyncio.gather(*(rest(at) for at in range(len(self.streams)) if at not in self.closed))
        for at, asked in enumerate(self.asked):
            if asked not in alone:
                alone[asked] = await self.worker.complete(asked[0], max_tokens=asked[1])
            whole, tokens = alone[asked], Answer(tuple(self.got[at])).tokens
            if at in self.closed:
                assert tokens == whole.tokens[: len(tokens)]
            else:
                assert tokens == whole.tokens
                assert self.got[at][-1].usage == whole.usage
                assert self.got[at][-1].finish_reason == whole.finish_reason


STARTS = st.tuples(st.just("start"), PROMPTS, st.integers(1, 40))
STEPS = st.tuples(st.sampled_from(["pull", "pull", "pull", "drop", "close"]), st.integers(0, 9))
ALONE: dict[tuple[str, int], Answer] = {}


@given(program=st.lists(STARTS | STEPS, max_size=30))
async def test_c14_each_answer_is_what_it_is_alone(worker: Worker, program: list[tuple[Any, ...]]) -> None:
    running = Program(worker)
    for what, *rest in program:
        if what == "start":
            running.start(*rest)
        elif rest[0] < len(running.streams) and rest[0] not in running.closed:
            await getattr(running, what)(rest[0])
    await running.check(ALONE)
