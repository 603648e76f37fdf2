"""Whole answers of a session, for those who ask one directly."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from llmengine_core.interfaces.backend import Session
from llmengine_core.types.generation import (
    FinishReason,
    GenerationChunk,
    GenerationRequest,
    Prompt,
    Text,
    Token,
    Usage,
)
from llmengine_core.types.sampling import SamplingParams, StructuredOutput

__all__ = ["Answer", "ask", "request"]


@dataclass(frozen=True, slots=True)
class Answer:
    """All chunks of one answer, and what they say together."""

    chunks: tuple[GenerationChunk, ...]

    @property
    def text(self) -> str:
        """The texts joined."""
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def tokens(self) -> list[Token]:
        """The tokens of all chunks."""
        return [token for chunk in self.chunks for token in chunk.tokens]

    @property
    def logprobs(self) -> list[float | None]:
        """Of each token."""
        return [token.logprob for token in self.tokens]

    @property
    def finish_reason(self) -> FinishReason:
        """Of the last chunk. Raises ``AssertionError`` where there is none."""
        assert self.chunks, "the stream ended without a chunk"
        reason = self.chunks[-1].finish_reason
        assert reason is not None, f"the last chunk has no finish_reason: {self.chunks[-1]}"
        return reason

    @property
    def usage(self) -> Usage:
        """Of the last chunk. Raises ``AssertionError`` where there is none."""
        assert self.chunks, "the stream ended without a chunk"
        usage = self.chunks[-1].usage
        assert usage is not None, f"the last chunk has no usage: {self.chunks[-1]}"
        return usage


def request(
    prompt: str | Prompt,
    *,
    structured: StructuredOutput | None = None,
    adapter: str | None = None,
    deadline: float | None = None,
    **sampling: Any,
) -> GenerationRequest:
    """A request: greedy and of at most 16 tokens, unless ``sampling``, fields of ``SamplingParams``, say otherwise."""
    prompt = Text(prompt) if isinstance(prompt, str) else prompt
    params = replace(SamplingParams(max_tokens=16, temperature=0.0), **sampling)
    return GenerationRequest(prompt, params, structured, adapter, deadline)


async def ask(session: Session, asked: GenerationRequest | str | Prompt, **given: Any) -> Answer:
    """The whole answer to a request, or to what ``request`` makes of a prompt and ``given``."""
    if not isinstance(asked, GenerationRequest):
        asked = request(asked, **given)
    async with aclosing(session.generate(asked)) as chunks:
        return Answer(tuple([chunk async for chunk in chunks]))
