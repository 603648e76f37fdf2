"""A plugin whose backend follows a script: chunks to give and errors to raise, by prompt.

Its model is ``scripted``. A prompt without a script is echoed.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence

from llmengine_core.hookspecs import hookimpl
from llmengine_core.interfaces.backend import Session
from llmengine_core.testing.echo import CAPABILITIES, CONTEXT_LENGTH, EchoBackend, EchoSession
from llmengine_core.types.declarations import BackendInfo
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Text
from llmengine_core.types.launch import Deployment, Endpoint
from llmengine_core.types.models import ModelCard, WeightsSource

CONTRACT = 1

FOREVER = "forever"
"""A step that takes longer than any test."""
SCRIPTS: dict[str, Sequence[GenerationChunk | BaseException | str]] = {}
CLOSED: defaultdict[str, threading.Event] = defaultdict(threading.Event)
"""Set when the generation for a prompt was closed."""


class ScriptedSession(EchoSession):
    """Does what the prompt's script says."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        assert isinstance(request.prompt, Text)
        prompt = request.prompt.text
        if prompt not in SCRIPTS:
            async for chunk in super().generate(request):
                yield chunk
            return
        try:
            for step in SCRIPTS[prompt]:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, str):
                    await asyncio.Event().wait()
                    continue
                yield step
        finally:
            CLOSED[prompt].set()


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
            factory="tests.facade.scripted:ScriptedBackend",
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
        )
    ]
