"""A plugin whose backend takes adapters: each is a voice, whose name goes before what is echoed.

Its model is ``choir``. An adapter's folder says in ``voice`` what it is called, and in ``adapter_config.json`` which
base it was trained on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

from tests.checkpoint_files import safetensors

from llmengine_core.errors import BadRequestError
from llmengine_core.hookspecs import hookimpl
from llmengine_core.interfaces.backend import Session, SessionLost
from llmengine_core.testing.echo import CAPABILITIES, CONTEXT_LENGTH, EchoBackend, EchoSession
from llmengine_core.types.declarations import BackendInfo
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Prompt, SessionFacts, Text
from llmengine_core.types.launch import Deployment, Endpoint
from llmengine_core.types.models import ModelCard, WeightsSource

CONTRACT = 1
SINGING = replace(CAPABILITIES, adapters="dynamic")
SESSIONS: list[ChoirSession] = []
"""All that were ever connected, the last one last."""


class ChoirSession(EchoSession):
    """Takes note of its adapters."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__()
        self.deployment = deployment
        self.voices: dict[str, str] = {}
        self.loads = 0
        self.lost = False
        self.gate: asyncio.Event | None = None
        """Answers wait for it, once they have begun."""

    @property
    def facts(self) -> SessionFacts:
        return replace(super().facts, capabilities=SINGING if self.deployment.adapters else CAPABILITIES)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        if self.lost:
            raise SessionLost("gone")
        assert isinstance(request.prompt, Text)
        if request.adapter is not None:
            sung = Text(f"{self.voices[request.adapter]}: {request.prompt.text}")
            request = replace(request, prompt=sung)
        async for chunk in super().generate(request):
            yield chunk
            if self.gate is not None:
                await self.gate.wait()
        assert request.adapter is None or request.adapter in self.voices, "unloaded while it was used"

    async def count_tokens(self, prompt: Prompt) -> int:
        if self.lost:
            raise SessionLost("gone")
        return await super().count_tokens(prompt)

    async def load_adapter(self, name: str, path: str) -> None:
        if not self.deployment.adapters or name in self.voices:
            raise AssertionError(f"{name} can't be loaded here")
        self.loads += 1
        found = Path(path, "voice")
        if not await asyncio.to_thread(found.exists):
            raise BadRequestError(f"there is no {found}")
        base = json.loads(await asyncio.to_thread(Path(path, "adapter_config.json").read_text))
        if base["base_model_name_or_path"] != "acme/choir":
            raise BadRequestError(f"{path} doesn't fit this model: it has other shapes")
        self.voices[name] = await asyncio.to_thread(found.read_text)

    async def unload_adapter(self, name: str) -> None:
        del self.voices[name]


class ChoirBackend(EchoBackend):
    """Connects to nobody."""

    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        SESSIONS.append(ChoirSession(deployment))
        return SESSIONS[-1]


def adapter(folder: Path, voice: str, base: str = "acme/choir") -> Path:
    """An adapter's folder."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    (folder / "adapter_model.safetensors").write_bytes(safetensors({"a": (2, 2)}))
    (folder / "voice").write_text(voice)
    return folder


@hookimpl
def register_backends() -> list[BackendInfo]:
    """The backend ``choir``."""
    return [
        BackendInfo(
            name="choir",
            factory="tests.services.choir:ChoirBackend",
            priority=2000,
            capabilities=SINGING,
            formats=frozenset({"gguf"}),
            architectures=frozenset({"echo"}),
        )
    ]


@hookimpl
def register_models() -> list[ModelCard]:
    """The model ``choir``."""
    return [
        ModelCard(
            name="choir",
            sources=(WeightsSource(url="package://llmengine_core/testing/echo.gguf", format="gguf"),),
            parameters=1,
            context_length=CONTEXT_LENGTH,
            license="Apache-2.0",
        )
    ]
