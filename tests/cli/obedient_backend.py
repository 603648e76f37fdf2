"""A plugin whose backend does what its prompt says; copied to where plugins are installed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import asdict

from llmengine_core.errors import RateLimitExceededError, ServerError
from llmengine_core.hookspecs import hookimpl
from llmengine_core.interfaces.backend import Backend, Session
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import BackendInfo
from llmengine_core.types.generation import (
    GenerationChunk,
    GenerationRequest,
    Prompt,
    SessionFacts,
    Text,
    Usage,
)
from llmengine_core.types.launch import Deployment, Endpoint, LaunchSpec
from llmengine_core.types.models import ModelCard, WeightsSource

CONTRACT = 1
CAPABILITIES = Capabilities(
    presence_penalty=True,
    frequency_penalty=True,
    top_k=True,
    top_p=True,
    structured=frozenset({"json", "regex", "choice", "grammar"}),
    structured_dialect="llguidance",
)


class ObedientSession(Session):
    facts = SessionFacts(1 << 20, CAPABILITIES, {}, prompt_token_overhead=0)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        assert isinstance(request.prompt, Text)
        match request.prompt.text:
            case "be busy":
                raise RateLimitExceededError("the queue is full")
            case "break":
                yield GenerationChunk("half an")
                raise ServerError("the engine fell over")
            case "go on" | "flood":
                while True:
                    yield GenerationChunk("on and " if request.prompt.text == "go on" else "on and " * 585)
                    await asyncio.sleep(0.001)
            case "obey":
                assert request.structured is not None
                yield GenerationChunk('"Rome"' if request.structured.kind == "json" else "Rome")
            case "tell":
                yield GenerationChunk(json.dumps(asdict(request.sampling)))
        yield GenerationChunk("", (), "stop", Usage(1, 1))

    async def count_tokens(self, prompt: Prompt) -> int:
        return 1

    async def aclose(self) -> None:
        pass


class ObedientBackend(Backend):
    def launch(self, deployment: Deployment) -> LaunchSpec | None:
        return None

    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        return ObedientSession()


@hookimpl
def register_backends() -> list[BackendInfo]:
    return [
        BackendInfo(
            name="obedient",
            factory="obedient_backend:ObedientBackend",
            priority=2000,
            capabilities=CAPABILITIES,
            formats=frozenset({"gguf"}),
        )
    ]


@hookimpl
def register_models() -> list[ModelCard]:
    return [
        ModelCard(
            name="obedient",
            sources=(WeightsSource(url="package://llmengine_core/testing/echo.gguf", format="gguf"),),
            parameters=1,
            context_length=1 << 20,
            license="Apache-2.0",
        )
    ]
