"""Completions through the facade, against an engine on another thread."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine import Completion, CompletionStreamResponse, CompletionSyncResponse
from llmengine.data_types import CreateBatchCompletionsModelConfig, TokenOutput
from llmengine.errors import (
    BadRequestError,
    LLMEngineError,
    NotFoundError,
    RequestTimeoutError,
    ServerError,
    UnsupportedFeatureError,
)
from llmengine_core.engine import Engine
from llmengine_core.testing.scripted import CLOSED, FOREVER, SCRIPTS
from llmengine_core.types.generation import GenerationChunk, Token, Usage

pytestmark = pytest.mark.usefixtures("engine")

FIRST = GenerationChunk("Hello", (Token(1, "Hello", logprob=-0.5),))
LAST = GenerationChunk(" you", (Token(2, " you", logprob=-0.25),), "stop", Usage(3, 2))


@pytest.fixture(autouse=True)
def scripts() -> Iterator[None]:
    SCRIPTS.clear()
    CLOSED.clear()
    yield
    SCRIPTS.clear()


def test_c01_create_answers_whole() -> None:
    response = Completion.create(model="scripted", prompt="one two three")
    assert isinstance(response, CompletionSyncResponse)
    assert response.output.text == "one two three"
    assert (response.output.num_prompt_tokens, response.output.num_completion_tokens) == (3, 4)
    assert response.output.tokens is None
    assert response.request_id


async def test_c01_acreate_answers_whole() -> None:
    response = await Completion.acreate("scripted", "one two three", return_token_log_probs=True)
    assert response.output.text == "one two three"
    assert response.output.tokens is not None
    assert "".join(token.token for token in response.output.tokens) == "one two three"


def test_c01_a_stream_is_an_iterator_and_a_context_manager() -> None:
    with Completion.create("scripted", "one two three", stream=True) as stream:
        responses = list(stream)
        assert list(stream) == []
    assert all(isinstance(each, CompletionStreamResponse) for each in responses)
    assert [each.output.text for each in responses if each.output] == ["one", " two", " three", ""]


async def test_c01_an_async_stream_is_awaited_then_iterated() -> None:
    async with await Completion.acreate("scripted", "one two three", stream=True) as stream:
        responses = [each async for each in stream]
        assert [each async for each in stream] == []
    assert [each.output.text for each in responses if each.output] == ["one", " two", " three", ""]


@given(
    st.lists(st.from_regex(r"[a-z]{1,5}", fullmatch=True), min_size=1, max_size=30),
    st.integers(1, 40),
    st.booleans(),
)
def test_c09_a_stream_joins_to_the_whole_answer(words: list[str], most: int, log_probs: bool) -> None:
    options: dict[str, Any] = {"max_new_tokens": most, "temperature": 0, "return_token_log_probs": log_probs}
    whole = Completion.create("scripted", " ".join(words), **options)
    outputs = []
    for response in Completion.create("scripted", " ".join(words), stream=True, **options):
        assert response.error is None
        assert response.output is not None
        outputs.append(response.output)
    assert "".join(each.text for each in outputs) == whole.output.text
    assert [each.finished for each in outputs] == [False] * (len(outputs) - 1) + [True]
    assert outputs[-1].num_completion_tokens == whole.output.num_completion_tokens
    assert outputs[-1].num_prompt_tokens == whole.output.num_prompt_tokens
    tokens = [each.token for each in outputs if each.token is not None]
    assert tokens == (whole.output.tokens or [])


def test_c07_several_tokens_of_a_chunk_come_one_by_one() -> None:
    SCRIPTS["both"] = [
        GenerationChunk("Hello you", (*FIRST.tokens, *LAST.tokens)),
        GenerationChunk("", (), "stop", LAST.usage),
    ]
    stream = Completion.create("scripted", "both", stream=True, return_token_log_probs=True)
    found = [(each.output.text, each.output.token) for each in stream if each.output]
    assert found == [
        ("Hello", TokenOutput(token="Hello", log_prob=-0.5)),
        (" you", TokenOutput(token=" you", log_prob=-0.25)),
        ("", None),
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_c02_what_is_wrong_with_a_request_is_raised_by_the_call_itself(stream: bool) -> None:
    wrong: list[tuple[type[LLMEngineError], dict[str, Any]]] = [
        (BadRequestError, {"temperature": 2}),
        (BadRequestError, {"max_new_tokens": 1 << 21}),
        (UnsupportedFeatureError, {"guided_regex": "a+"}),
        (UnsupportedFeatureError, {"skip_special_tokens": False}),
        (NotFoundError, {"model": "nobody"}),
    ]
    for error, arguments in wrong:
        call: dict[str, Any] = {"model": "scripted", "prompt": "a", "stream": stream} | arguments
        with pytest.raises(error):
            await asyncio.to_thread(lambda given: Completion.create(**given), call)
        with pytest.raises(error):
            await Completion.acreate(**call)


@pytest.mark.parametrize("stream", ["yes", 1, None])
def test_c02_stream_is_true_or_false(stream: Any) -> None:
    with pytest.raises(BadRequestError, match="stream"):
        Completion.create("scripted", "a", stream=stream)


def test_unknown_names_are_type_errors() -> None:
    with pytest.raises(TypeError, match="max_tokens"):
        Completion.create("scripted", "a", max_tokens=5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="prompt"):
        Completion.create("scripted")  # type: ignore[call-overload]


def test_c09_a_failure_before_the_first_chunk_is_raised_by_the_first_next() -> None:
    SCRIPTS["early"] = [ServerError("the engine fell over", status_code=503)]
    stream = Completion.create("scripted", "early", stream=True)
    with pytest.raises(ServerError, match="fell over"):
        next(stream)
    assert list(stream) == []


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (ServerError("the engine fell over", status_code=503), 503),
        (RuntimeError("what no backend should raise"), 500),
    ],
)
async def test_c09_a_later_failure_is_the_last_response(failure: Exception, status: int) -> None:
    SCRIPTS["late"] = [FIRST, failure]
    in_thread = await asyncio.to_thread(lambda: list(Completion.create("scripted", "late", stream=True)))
    awaited = [each async for each in await Completion.acreate("scripted", "late", stream=True)]
    for responses in (in_thread, awaited):
        first, last = responses
        assert first.error is None
        assert first.output is not None
        assert last.output is None
        assert last.error is not None
        assert last.request_id == first.request_id
        assert last.error.status_code == status
        assert str(failure) in last.error.content.error


async def test_c09_an_early_failure_of_an_async_stream_is_raised_by_the_first_anext() -> None:
    SCRIPTS["early"] = [ServerError("the engine fell over")]
    stream = await Completion.acreate("scripted", "early", stream=True)
    with pytest.raises(ServerError, match="fell over"):
        await anext(stream)


def test_c11_a_timeout_is_raised_or_the_last_responses_error() -> None:
    SCRIPTS["stuck"] = [FOREVER]
    with pytest.raises(RequestTimeoutError):
        Completion.create("scripted", "stuck", timeout=0.05)
    SCRIPTS["stuck later"] = [FIRST, FOREVER]
    first, last = Completion.create("scripted", "stuck later", timeout=0.2, stream=True)
    assert first.error is None
    assert last.output is None
    assert last.error is not None
    assert last.error.status_code == 504


ENDINGS: list[Callable[[Any], object]] = [
    lambda stream: stream.close(),
    lambda stream: stream.__exit__(None, None, None),
]


@pytest.mark.parametrize("end", ENDINGS, ids=["close", "exit"])
def test_c10_closing_a_stream_ends_the_work(end: Callable[[Any], object]) -> None:
    SCRIPTS["long"] = [FIRST, FOREVER]
    stream = Completion.create("scripted", "long", stream=True)
    assert next(stream).output
    end(stream)
    assert CLOSED["long"].wait(5)
    assert list(stream) == []
    end(stream)


def test_c10_the_last_reference_going_ends_the_work() -> None:
    SCRIPTS["dropped"] = [FIRST, FOREVER]
    stream = Completion.create("scripted", "dropped", stream=True)
    assert next(stream).output
    del stream
    gc.collect()
    assert CLOSED["dropped"].wait(5)


async def test_c10_a_cancelled_reader_ends_the_work() -> None:
    SCRIPTS["cancelled"] = [FIRST, FOREVER]
    stream = await Completion.acreate("scripted", "cancelled", stream=True)
    assert (await anext(stream)).output
    reader = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await asyncio.to_thread(CLOSED["cancelled"].wait, 5)


def test_c14_concurrent_calls_do_not_mix() -> None:
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        pieces = Completion.create("scripted", f"answer {number}", stream=True)
        found[number] = "".join(each.output.text for each in pieces if each.output)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: f"answer {number}" for number in range(20)}


def test_b01_batches_check_their_arguments_and_say_what_will_bring_them() -> None:
    config = CreateBatchCompletionsModelConfig(model="llama-2-7b", checkpoint_path="s3://checkpoint-path")
    good: dict[str, Any] = {
        "output_data_path": "s3://out",
        "model_config": config,
        "input_data_path": "s3://in",
        "gpus": 1,
    }
    with pytest.raises(UnsupportedFeatureError, match="later version"):
        Completion.batch_create(**good)
    wrong: list[dict[str, Any]] = [
        {"input_data_path": None},
        {"content": []},
        {"data_parallelism": 0},
        {"data_parallelism": 65},
        {"max_runtime_sec": 172_801},
        {"labels": {"team": 1}},
        {"priority": 1},
        {"output_data_path": ""},
        {"request_headers": {"a": 1}},
    ]
    for arguments in wrong:
        with pytest.raises(BadRequestError) as caught:
            Completion.batch_create(**good | arguments)
        assert not isinstance(caught.value, UnsupportedFeatureError)


def test_the_engine_is_shared_by_all_of_these(engine: Engine) -> None:
    assert engine.registry.models.keys() >= {"scripted"}
