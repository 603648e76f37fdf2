"""A real llama.cpp, asked through a session and behind its back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from llmengine_core.http import HttpClient
from llmengine_core.interfaces.backend import Session
from llmengine_core.interfaces.runtime import Replica
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.types.generation import (
    GenerationChunk,
    GenerationRequest,
    Prompt,
    Text,
    Token,
    Usage,
)
from llmengine_core.types.launch import Deployment
from llmengine_core.types.sampling import SamplingParams, StructuredOutput, Translation
from llmengine_llamacpp.backend import LlamaCppBackend

CONTEXT = 512


@dataclass(frozen=True)
class Answer:
    """A whole stream, and what it says when it is joined."""

    chunks: tuple[GenerationChunk, ...]

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def tokens(self) -> list[Token]:
        return [token for chunk in self.chunks for token in chunk.tokens]

    @property
    def logprobs(self) -> list[float | None]:
        return [token.logprob for token in self.tokens]

    @property
    def usage(self) -> Usage:
        usage = self.chunks[-1].usage
        assert usage is not None
        return usage

    @property
    def reason(self) -> str | None:
        return self.chunks[-1].finish_reason


@dataclass(frozen=True)
class Engine:
    """A session, its replica, and a way to it that isn't the code under test."""

    session: Session
    replica: Replica
    http: HttpClient

    @property
    def pid(self) -> int:
        return int(self.replica.endpoint.facts["pid"])

    async def complete(
        self,
        prompt: str | Prompt,
        *,
        structured: StructuredOutput | None = None,
        deadline: float | None = None,
        **sampling: Any,
    ) -> Answer:
        request = request_for(prompt, structured=structured, deadline=deadline, **sampling)
        return Answer(tuple([chunk async for chunk in self.session.generate(request)]))

    async def ask(self, path: str, body: dict[str, Any]) -> Any:
        """The engine's own answer to a request that isn't ours."""
        response = await self.http.request("POST", path, body)
        assert response.status == 200, response.body
        return response.json()

    def request(self, prompt: str | Prompt, **sampling: Any) -> GenerationRequest:
        return request_for(prompt, **sampling)

    async def idle(self) -> None:
        """Returns once the engine works on nothing."""
        while await self.busy_slots():  # noqa: ASYNC110 - it tells nobody when it is
            await asyncio.sleep(0.01)

    async def busy_slots(self) -> int:
        slots = (await self.http.request("GET", "/slots")).json()
        return sum(slot["is_processing"] for slot in slots)


def request_for(
    prompt: str | Prompt,
    *,
    structured: StructuredOutput | None = None,
    deadline: float | None = None,
    **sampling: Any,
) -> GenerationRequest:
    """Greedy, unless it is said otherwise."""
    prompt = Text(prompt) if isinstance(prompt, str) else prompt
    params = replace(SamplingParams(max_tokens=16, temperature=0.0), **sampling)
    return GenerationRequest(prompt, params, structured, deadline=deadline)


def lark(rule: str) -> StructuredOutput:
    """A constraint as the core hands it over: checked and translated."""
    grammar = f"%llguidance {{}}\nstart: {rule}"
    return StructuredOutput("grammar", f"start: {rule}", Translation("llguidance", grammar))


@asynccontextmanager
async def started(runtime: LocalRuntime, deployment: Deployment) -> AsyncIterator[Engine]:
    backend = LlamaCppBackend()
    replica = await runtime.start(backend.launch(deployment))
    http = HttpClient(replica.endpoint.address, replica.endpoint.key)
    try:
        async with await backend.connect(replica.endpoint, deployment) as session:
            yield Engine(session, replica, http)
    finally:
        await http.aclose()
        await replica.aclose()
