"""Completions through the whole core, over the echo backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.arguments.completion import CompletionArguments, parse_completion
from llmengine_core.engine import Engine
from llmengine_core.errors import (
    BadRequestError,
    LLMEngineError,
    NotFoundError,
    RequestTimeoutError,
    ServerError,
    UnsupportedFeatureError,
)
from llmengine_core.hookspecs import hookimpl
from llmengine_core.interfaces.observer import Observer, RequestFinished, RequestStarted
from llmengine_core.services.completions import _verifier
from llmengine_core.settings import Settings
from llmengine_core.testing import echo
from llmengine_core.testing.echo import EchoSession
from llmengine_core.types.declarations import BackendInfo, ObserverInfo
from llmengine_core.types.generation import (
    FinishReason,
    GenerationChunk,
    GenerationRequest,
    SessionFacts,
    Token,
    Usage,
)
from llmengine_core.types.sampling import StructuredOutput
from llmengine_llguidance.decoder import LLGuidanceDecoder


def ask(prompt: str = "one two three", **arguments: Any) -> CompletionArguments:
    return parse_completion(**{"model": "echo", "prompt": prompt, "temperature": 0} | arguments)


async def test_c01_a_completion_is_the_fold_of_its_stream(engine: Engine) -> None:
    whole = await engine.completions.create(ask())
    stream = await engine.completions.stream(ask())
    chunks = [chunk async for chunk in stream]
    assert whole.text == "".join(chunk.text for chunk in chunks) == "one two three"
    assert whole.usage == chunks[-1].usage
    assert [chunk.finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert [chunk.usage is None for chunk in chunks] == [True, True, True, False]


async def test_c02_max_new_tokens_ends_it(engine: Engine) -> None:
    whole = await engine.completions.create(ask(max_new_tokens=2))
    assert (whole.text, whole.finish_reason, whole.usage.completion_tokens) == ("one two", "length", 2)


async def test_c04_a_prompt_that_does_not_fit_is_refused_with_three_numbers(engine: Engine) -> None:
    most = echo.CONTEXT_LENGTH
    with pytest.raises(BadRequestError, match=rf"3 tokens.*\({most}\).*\({most}\)"):
        await engine.completions.stream(ask(max_new_tokens=most))


async def test_c04_a_prompt_that_can_not_fit_is_refused_without_being_counted(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = SessionFacts(echo.CONTEXT_LENGTH, echo.CAPABILITIES, longest_token=10)
    monkeypatch.setattr(EchoSession, "facts", property(lambda self: facts))
    counted: list[object] = []

    async def count_tokens(self: EchoSession, prompt: object) -> int:
        counted.append(prompt)
        return 1

    monkeypatch.setattr(EchoSession, "count_tokens", count_tokens)
    fits = echo.CONTEXT_LENGTH - 5
    with pytest.raises(
        BadRequestError, match=rf"at least {fits + 1} tokens.*\(5\).*\({echo.CONTEXT_LENGTH}\)"
    ):
        await engine.completions.stream(ask((10 * fits + 1) * "a", max_new_tokens=5))
    assert not counted
    async with await engine.completions.stream(ask(10 * fits * "a", max_new_tokens=5)):
        assert len(counted) == 1


async def test_c09_what_is_wrong_is_raised_before_the_stream(engine: Engine) -> None:
    with pytest.raises(NotFoundError, match="did you mean 'echo'"):
        await engine.completions.stream(ask(model="ecko"))
    with pytest.raises(UnsupportedFeatureError, match="'echo' does not support guided_choice"):
        await engine.completions.stream(ask(guided_choice=["a"]))


async def test_c13_what_does_not_go_with_a_constraint_is_refused_before_anything_starts(
    settings: Settings,
) -> None:
    (info,) = echo.register_backends()
    excludes = replace(
        info.capabilities,
        presence_penalty=True,
        structured=frozenset({"regex"}),
        structured_dialect="llguidance",
        structured_excludes=frozenset({"presence_penalty"}),
    )

    @hookimpl
    def register_backends() -> list[BackendInfo]:
        return [replace(info, name="apart", priority=info.priority + 1, capabilities=excludes)]

    plugin = ModuleType("apart")
    plugin.CONTRACT, plugin.register_backends = 1, register_backends  # type: ignore[attr-defined]
    async with Engine(settings, plugins=[echo, plugin]) as engine:
        with pytest.raises(
            UnsupportedFeatureError,
            match="'apart' does not support presence_penalty together with guided_regex",
        ):
            await engine.completions.stream(ask(guided_regex="a", presence_penalty=0.5))
        assert (await engine._serving.serve("echo", "root")).pool.size == 0


async def test_c10_closing_gives_the_slot_back(engine: Engine) -> None:
    for _ in range(20):
        async with await engine.completions.stream(ask()) as stream:
            await anext(stream)
    assert (await engine.completions.create(ask())).text == "one two three"
    pool = (await engine._serving.serve("echo", "root")).pool
    assert pool.size == 1
    assert pool.queued == 0


async def test_the_slot_is_free_with_the_last_chunk_not_behind_it(engine: Engine) -> None:
    streams = []
    for _ in range(20):
        stream = await engine.completions.stream(ask())
        while (await anext(stream)).finish_reason is None:
            pass
        streams.append(stream)  # neither exhausted nor closed
    assert (await engine.completions.create(ask())).text == "one two three"


@given(st.lists(st.text("ab ", min_size=1, max_size=3), max_size=3))
async def test_c06_stops_are_those_of_the_whole_text(shared: Engine, stops: list[str]) -> None:
    prompt = "ab ba  aab bb a b"
    whole = await shared.completions.create(ask(prompt, stop_sequences=stops or None))
    ends = [(prompt.index(stop) + len(stop), -len(stop)) for stop in stops if stop in prompt]
    expected = prompt
    if ends:
        end, length = min(ends)
        expected = prompt[: end + length]
    assert whole.text == expected


async def test_c14_concurrent_calls_do_not_cross(engine: Engine) -> None:
    prompts = [f"caller {n} says {n}" for n in range(200)]
    answers = await asyncio.gather(*(engine.completions.create(ask(prompt)) for prompt in prompts))
    assert [answer.text for answer in answers] == prompts
    assert len({answer.request_id for answer in answers}) == 200


# -- sessions that misbehave ---------------------------------------------------------------------------------


async def failing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, chunks: Any
) -> list[GenerationChunk | Exception]:
    """What a caller sees where the session's ``generate`` is ``chunks``."""
    await engine.completions.create(ask())  # so that the time below is for generating alone
    monkeypatch.setattr(EchoSession, "generate", chunks)
    seen: list[GenerationChunk | Exception] = []
    stream = await engine.completions.stream(ask(timeout=0.2))
    try:
        async for chunk in stream:
            seen += [chunk]
    except LLMEngineError as error:
        seen.append(error)
    return seen


async def test_c11_a_session_that_hangs_ends_at_the_timeout(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(self: EchoSession, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        yield GenerationChunk("a")
        await asyncio.Event().wait()

    first, error = await failing(engine, monkeypatch, hang)
    assert first == GenerationChunk("a")
    assert isinstance(error, RequestTimeoutError)
    assert error.status_code == 504


async def test_errors_are_ours_never_an_engines(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crash(self: EchoSession, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        yield GenerationChunk("a")
        raise KeyError("engine")

    _, error = await failing(engine, monkeypatch, crash)
    assert isinstance(error, ServerError)
    assert "KeyError: 'engine'" in str(error)


async def test_c09_an_answer_without_an_end_is_an_error(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_off(
        self: EchoSession, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk, None]:
        yield GenerationChunk("a")

    _, error = await failing(engine, monkeypatch, break_off)
    assert isinstance(error, ServerError)


async def test_c09_an_engine_that_closes_under_an_answer_is_an_error_not_a_short_answer(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def closed(self: EchoSession, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        yield GenerationChunk("a")
        yield GenerationChunk("", (), "cancelled", Usage(1, 1))

    _, error = await failing(engine, monkeypatch, closed)
    assert isinstance(error, ServerError)
    with pytest.raises(ServerError, match="closed while it answered"):
        await engine.completions.create(ask())


@pytest.mark.parametrize(
    ("pieces", "reason", "stops", "obeys"),
    [
        (["ye", "s"], "stop", (), True),
        (["ye"], "stop", (), False),
        (["ye"], "length", (), True),
        (["no"], "length", (), False),
        (["ye"], "stop", ("s",), False),  # ended by itself, though there was a stop sequence
        (["ye", "s"], "stop", ("s",), True),
    ],
)
def test_c03_what_ended_by_itself_obeys_in_full_and_what_was_cut_so_far(
    pieces: list[str], reason: FinishReason, stops: tuple[str, ...], obeys: bool
) -> None:
    structured = StructuredOutput("choice", ("yes",))
    verify = _verifier(LLGuidanceDecoder(), structured, stops)
    text = "".join(pieces)
    for stop in stops:
        text = text.partition(stop)[0]
    tokens = tuple(Token(number, piece) for number, piece in enumerate(pieces))
    chunks = [GenerationChunk(text, tokens), GenerationChunk("", (), reason, Usage(1, 1))]
    if obeys:
        verify(chunks)
    else:
        with pytest.raises(ServerError, match="does not obey"):
            verify(chunks)


# -- observers -----------------------------------------------------------------------------------------------


class Listener(Observer):
    heard: list[RequestStarted | RequestFinished]

    def __init__(self) -> None:
        Listener.heard = []

    def request_started(self, event: RequestStarted) -> None:
        self.heard.append(event)
        raise RuntimeError("an observer may not raise, and does")

    def request_finished(self, event: RequestFinished) -> None:
        self.heard.append(event)


async def test_c12_observers_hear_headers_and_one_end(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = ModuleType("listening")

    @hookimpl
    def register_observers() -> list[ObserverInfo]:
        return [ObserverInfo(name="listener", factory=f"{Listener.__module__}:Listener")]

    plugin.CONTRACT, plugin.register_observers = 1, register_observers  # type: ignore[attr-defined]
    async with Engine(settings, plugins=[echo, plugin]) as engine:
        await engine.completions.create(ask(request_headers={"X-Trace": "7"}), caller="me")
        async with await engine.completions.stream(ask()) as stream:
            await anext(stream)
    started, finished, _, dropped = Listener.heard
    assert isinstance(started, RequestStarted)
    assert isinstance(finished, RequestFinished)
    assert isinstance(dropped, RequestFinished)
    assert (started.caller, started.headers) == ("me", {"X-Trace": "7"})
    assert (finished.request_id, finished.finish_reason) == (started.request_id, "stop")
    assert finished.usage is not None
    assert dropped.finish_reason == "cancelled"
    assert "the observer Listener raised" in caplog.text
