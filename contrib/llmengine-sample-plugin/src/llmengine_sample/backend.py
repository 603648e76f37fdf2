"""A backend whose engine is a loop in this process: it answers with the prompt backwards. A token is a character."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from llmengine_core.deadlines import Watch
from llmengine_core.errors import ServerError, UnsupportedFeatureError
from llmengine_core.gate import refuse_undeclared
from llmengine_core.interfaces.backend import Backend, Session
from llmengine_core.stops import StopMatcher
from llmengine_core.types.generation import (
    FinishReason,
    GenerationChunk,
    GenerationRequest,
    Prompt,
    SessionFacts,
    Text,
    Token,
    Usage,
)
from llmengine_core.types.launch import Deployment, Endpoint, LaunchSpec

from llmengine_sample import CAPABILITIES


class SampleSession(Session):
    """Answers until the prompt's beginning is reached, and ends with an end token."""

    def __init__(self) -> None:
        self._facts = SessionFacts(context_length=4096, capabilities=CAPABILITIES)
        self._closed = False

    @property
    def facts(self) -> SessionFacts:
        return self._facts

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        refuse_undeclared(request, self.facts.capabilities, who="sample")
        if self._closed:
            raise ServerError("the session is closed")
        prompt, sampling = text_of(request.prompt), request.sampling
        stops, watch = StopMatcher(sampling.stop, sampling.include_stop), Watch(request.deadline, None)
        try:
            for count, piece in enumerate((*reversed(prompt), ""), start=1):
                with watch:
                    await asyncio.sleep(0)  # where an engine would compute the token
                shown = stops.feed(piece)
                reason: FinishReason | None = None
                if stops.stopped or not piece:
                    reason = "stop"
                elif count == sampling.max_tokens:
                    reason = "length"
                elif self._closed:
                    reason = "cancelled"
                token = Token(ord(piece or "\0"), piece)
                if reason is not None:
                    yield GenerationChunk(shown + stops.flush(), (token,), reason, Usage(len(prompt), count))
                    return
                yield GenerationChunk(shown, (token,))
        finally:
            watch.close()

    async def count_tokens(self, prompt: Prompt) -> int:
        return len(text_of(prompt))

    async def aclose(self) -> None:
        self._closed = True


class SampleBackend(Backend):
    """Starts nothing: there is no server to speak to."""

    def launch(self, deployment: Deployment) -> LaunchSpec | None:
        return None

    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        return SampleSession()


def text_of(prompt: Prompt) -> str:
    """The prompt's text; conversations and token ids are not declared."""
    if not isinstance(prompt, Text):
        raise UnsupportedFeatureError("sample takes prompts of plain text only")
    return prompt.text
