"""A real llama.cpp, asked through a session and behind its back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from llmengine_core.http import HttpClient
from llmengine_core.interfaces.backend import Session
from llmengine_core.interfaces.runtime import Replica
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.testing.answers import Answer, ask, request
from llmengine_core.types.generation import GenerationRequest, Prompt
from llmengine_core.types.launch import Deployment
from llmengine_core.types.sampling import StructuredOutput, Translation
from llmengine_llamacpp.backend import LlamaCppBackend

CONTEXT = 512


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
        asked = request(prompt, structured=structured, deadline=deadline, **sampling)
        return await ask(self.session, asked)

    async def ask(self, path: str, body: dict[str, Any]) -> Any:
        """The engine's own answer to a request that isn't ours."""
        response = await self.http.request("POST", path, body)
        assert response.status == 200, response.body
        return response.json()

    def request(self, prompt: str | Prompt, **sampling: Any) -> GenerationRequest:
        return request(prompt, **sampling)

    async def idle(self) -> None:
        """Returns once the engine works on nothing."""
        while await self.busy_slots():  # noqa: ASYNC110 - it tells nobody when it is
            await asyncio.sleep(0.01)

    async def busy_slots(self) -> int:
        slots = (await self.http.request("GET", "/slots")).json()
        return sum(slot["is_processing"] for slot in slots)


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
