"""A backend that answers with its prompt: for tests and benchmarks, with no engine and no child.

The module is a plugin: ``Engine(plugins=[echo])`` can then complete with the base model ``echo``. A token is
a word with the blanks before it, or the blanks at the end. Its distribution is a point mass: all log probs are 0,
and nothing that chooses among tokens has an effect. So it declares no penalties.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from llmengine_core.errors import BadRequestError, RequestTimeoutError, ServerError
from llmengine_core.gate import refuse_undeclared
from llmengine_core.hookspecs import hookimpl
from llmengine_core.interfaces.backend import Backend, Session
from llmengine_core.stops import StopMatcher
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import BackendInfo
from llmengine_core.types.generation import (
    FinishReason,
    GenerationChunk,
    GenerationRequest,
    Messages,
    Prompt,
    SessionFacts,
    Text,
    Token,
    TokenIds,
    Usage,
)
from llmengine_core.types.launch import Deployment, Endpoint, LaunchSpec
from llmengine_core.types.models import ModelCard, WeightsSource

__all__ = ["CONTRACT", "EchoBackend", "EchoSession"]

CONTRACT = 1
CONTEXT_LENGTH = 1 << 20
CAPABILITIES = Capabilities(
    logprobs=True,
    top_k=True,
    top_p=True,
    seed=True,
    messages=True,
    batch_invariant=True,
    cancels_prefill=True,
)
LOGPROB = 0.0
END = Token(0, "", b"")

_words = re.compile(r"\s*\S+|\s+$")


class EchoSession(Session):
    """Answers with the prompt, word by word."""

    def __init__(self) -> None:
        self._facts = SessionFacts(CONTEXT_LENGTH, CAPABILITIES, {"echo": "1"}, prompt_token_overhead=0)
        self._closed = False

    @property
    def facts(self) -> SessionFacts:
        return self._facts

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        refuse_undeclared(request, self.facts.capabilities, who="the echo")
        if self._closed:
            raise ServerError("the session is closed")
        sampling = request.sampling
        chunks = _chunks(_text(request.prompt), sampling.logprobs)
        prompt_tokens = len(chunks)
        most = min(sampling.max_tokens, CONTEXT_LENGTH - prompt_tokens)
        if most < 1:
            raise BadRequestError(
                f"a prompt of {prompt_tokens} tokens leaves no room in a context of {CONTEXT_LENGTH}"
            )
        matcher = StopMatcher(sampling.stop, include=sampling.include_stop) if sampling.stop else None
        count = 0
        for chunk in chunks[:most]:
            _check_time(request.deadline)
            if self._closed:
                break
            count += 1
            if matcher is not None:
                chunk = GenerationChunk(matcher.feed(chunk.text), chunk.tokens)
                if matcher.stopped:
                    yield GenerationChunk(chunk.text, chunk.tokens, "stop", Usage(prompt_tokens, count))
                    return
            yield chunk
            if count % 64 == 0:
                await asyncio.sleep(0)
        _check_time(request.deadline)
        tokens: tuple[Token, ...] = ()
        reason: FinishReason = "length"
        if self._closed:
            reason = "cancelled"
        elif count < most:
            reason = "stop"
            tokens = (replace(END, logprob=LOGPROB) if sampling.logprobs else END,)
        rest = matcher.flush() if matcher is not None else ""
        yield GenerationChunk(rest, tokens, reason, Usage(prompt_tokens, count + len(tokens)))

    async def count_tokens(self, prompt: Prompt) -> int:
        return len(_words.findall(_text(prompt)))

    async def aclose(self) -> None:
        self._closed = True


class EchoBackend(Backend):
    """Speaks to nobody."""

    def launch(self, deployment: Deployment) -> LaunchSpec | None:
        return None

    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        return EchoSession()


def _check_time(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() > deadline:
        raise RequestTimeoutError("the echo was not over by its deadline")


def _text(prompt: Prompt) -> str:
    match prompt:
        case Text(text):
            return text
        case TokenIds(ids):
            return " ".join(map(str, ids))
        case Messages(messages):
            return "\n".join(f"{m.role}: {m.content}" for m in messages)


@lru_cache(maxsize=64)
def _chunks(text: str, logprobs: bool) -> Sequence[GenerationChunk]:
    return tuple(_each_chunk(text, LOGPROB if logprobs else None))


def _each_chunk(text: str, logprob: float | None) -> Iterator[GenerationChunk]:
    for number, word in enumerate(_words.findall(text), 1):
        yield GenerationChunk(word, (Token(number, word, word.encode(), logprob),))


@hookimpl
def register_backends() -> list[BackendInfo]:
    """The backend ``echo``, for the model of that name."""
    return [
        BackendInfo(
            name="echo",
            factory="llmengine_core.testing.echo:EchoBackend",
            priority=1000,
            capabilities=CAPABILITIES,
            formats=frozenset({"gguf"}),
            architectures=frozenset({"echo"}),
        )
    ]


@hookimpl
def register_models() -> list[ModelCard]:
    """The model ``echo``, whose weights are a header alone."""
    return [
        ModelCard(
            name="echo",
            sources=(WeightsSource(url="package://llmengine_core/testing/echo.gguf", format="gguf"),),
            parameters=1,
            context_length=CONTEXT_LENGTH,
            license="Apache-2.0",
            description="answers with its prompt",
        )
    ]
