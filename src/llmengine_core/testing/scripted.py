"""A backend that follows a script: chunks to give, errors to raise and waits, by prompt. For tests.

The module is a plugin: with ``Engine(plugins=[scripted])`` the model ``scripted`` does what ``SCRIPTS`` says. A
prompt without a script is echoed.

>>> import asyncio
>>> from llmengine_core.errors import ServerError
>>> from llmengine_core.testing.answers import ask
>>> SCRIPTS["Hello"] = answer("Good", " morning")
>>> asyncio.run(ask(ScriptedSession(), "Hello")).text
'Good morning'
>>> SCRIPTS["Hello"] = [GenerationChunk("Good"), Wait(0.01), ServerError("the engine fell over")]
>>> asyncio.run(ask(ScriptedSession(), "Hello"))
Traceback (most recent call last):
...
llmengine_core.errors.ServerError: the engine fell over
>>> SCRIPTS.clear()
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TypeAlias

from llmengine_core.hookspecs import hookimpl
from llmengine_core.interfaces.backend import Session
from llmengine_core.testing.echo import CAPABILITIES, CONTEXT_LENGTH, EchoBackend, EchoSession
from llmengine_core.types.declarations import BackendInfo
from llmengine_core.types.generation import (
    FinishReason,
    GenerationChunk,
    GenerationRequest,
    Text,
    Token,
    Usage,
)
from llmengine_core.types.launch import Deployment, Endpoint
from llmengine_core.types.models import ModelCard, WeightsSource

__all__ = [
    "CLOSED",
    "CONTRACT",
    "FOREVER",
    "SCRIPTS",
    "Script",
    "ScriptedBackend",
    "ScriptedSession",
    "Wait",
    "answer",
]

CONTRACT = 1


@dataclass(frozen=True, slots=True)
class Wait:
    """A step that takes its time; closing the session ends it."""

    seconds: float


FOREVER = Wait(math.inf)
"""A step that takes longer than any test."""
Script: TypeAlias = Sequence[GenerationChunk | BaseException | Wait]
"""What is given, raised and waited for, in order. Nothing is checked: a script may break every rule."""
SCRIPTS: dict[str, Script] = {}
"""By prompt: what the backend ``scripted`` does."""
CLOSED: defaultdict[str, threading.Event] = defaultdict(threading.Event)
"""By prompt: set when its script was over, or its stream closed."""


def answer(*texts: str, finish_reason: FinishReason = "stop", prompt_tokens: int = 1) -> Script:
    """The script of a sound answer: a chunk of one token for each text, and the end token on the last."""
    tokens = [Token(number, text, text.encode(), -0.5) for number, text in enumerate(texts, 1)]
    chunks = [GenerationChunk(token.text, (token,)) for token in tokens]
    ends = finish_reason == "stop"
    usage = Usage(prompt_tokens, len(texts) + ends)
    last = (Token(0, "", b"", -0.5),) if ends else ()
    return [*chunks, GenerationChunk("", last, finish_reason, usage)]


class ScriptedSession(EchoSession):
    """Does what the prompt's script says."""

    def __init__(self, scripts: Mapping[str, Script] | None = None) -> None:
        super().__init__()
        self._scripts = SCRIPTS if scripts is None else scripts
        self._ended = asyncio.Event()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        prompt = request.prompt.text if isinstance(request.prompt, Text) else None
        if prompt is None or prompt not in self._scripts:
            async with aclosing(super().generate(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        try:
            for step in self._scripts[prompt]:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, GenerationChunk):
                    yield step
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(step.seconds if step.seconds < math.inf else None):
                        await self._ended.wait()
                if self._ended.is_set():
                    yield GenerationChunk("", (), "cancelled", Usage(1, 0))
                    return
        finally:
            CLOSED[prompt].set()

    async def aclose(self) -> None:
        await super().aclose()
        self._ended.set()


class ScriptedBackend(EchoBackend):
    """Connects to a script."""

    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        return ScriptedSession()


@hookimpl
def register_backends() -> list[BackendInfo]:
    """The backend ``scripted``."""
    return [
        BackendInfo(
            name="scripted",
            factory="llmengine_core.testing.scripted:ScriptedBackend",
            priority=2000,
            capabilities=CAPABILITIES,
            formats=frozenset({"gguf"}),
            architectures=frozenset({"echo"}),
        )
    ]


@hookimpl
def register_models() -> list[ModelCard]:
    """The model ``scripted``."""
    return [
        ModelCard(
            name="scripted",
            sources=(WeightsSource(url="package://llmengine_core/testing/echo.gguf", format="gguf"),),
            parameters=1,
            context_length=CONTEXT_LENGTH,
            license="Apache-2.0",
            description="does what a script says",
        )
    ]
