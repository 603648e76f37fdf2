"""A real model on Transformers, asked through a session."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmengine_core.interfaces.backend import Session
from llmengine_core.interfaces.runtime import Replica
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Prompt, Text, Token, Usage
from llmengine_core.types.launch import Deployment
from llmengine_core.types.sampling import SamplingParams, StructuredOutput, Translation
from llmengine_transformers.backend import TransformersBackend

CONTEXT = 2048


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
    def usage(self) -> Usage:
        usage = self.chunks[-1].usage
        assert usage is not None
        return usage

    @property
    def reason(self) -> str | None:
        return self.chunks[-1].finish_reason


@dataclass(frozen=True)
class Engine:
    """A session, and the replica that it speaks to."""

    session: Session
    replica: Replica

    async def complete(
        self, prompt: str | Prompt, *, structured: StructuredOutput | None = None, **sampling: Any
    ) -> Answer:
        request = request_for(prompt, structured=structured, **sampling)
        return Answer(tuple([chunk async for chunk in self.session.generate(request)]))

    def cpu_seconds(self) -> float:
        """That the worker has used so far."""
        stat = Path(f"/proc/{self.replica.endpoint.facts['pid']}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def request_for(
    prompt: str | Prompt, *, structured: StructuredOutput | None = None, **sampling: Any
) -> GenerationRequest:
    """Greedy, unless it is said otherwise."""
    prompt = Text(prompt) if isinstance(prompt, str) else prompt
    params = replace(SamplingParams(max_tokens=16, temperature=0.0), **sampling)
    return GenerationRequest(prompt, params, structured)


def lark(rule: str) -> StructuredOutput:
    """A constraint as the core hands it over: checked and translated."""
    grammar = f"%llguidance {{}}\nstart: {rule}"
    return StructuredOutput("grammar", f"start: {rule}", Translation("llguidance", grammar))


@asynccontextmanager
async def started(runtime: LocalRuntime, deployment: Deployment) -> AsyncIterator[Engine]:
    backend = TransformersBackend()
    replica = await runtime.start(backend.launch(deployment))
    try:
        async with await backend.connect(replica.endpoint, deployment) as session:
            yield Engine(session, replica)
    finally:
        await replica.aclose()
