"""A real model on Transformers, asked through a session."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmengine_core.interfaces.backend import Session
from llmengine_core.interfaces.runtime import Replica
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.testing.answers import Answer, ask
from llmengine_core.types.generation import Prompt
from llmengine_core.types.launch import Deployment
from llmengine_core.types.sampling import StructuredOutput, Translation
from llmengine_transformers.backend import TransformersBackend

CONTEXT = 2048


@dataclass(frozen=True)
class Engine:
    """A session, and the replica that it speaks to."""

    session: Session
    replica: Replica

    async def complete(
        self, prompt: str | Prompt, *, structured: StructuredOutput | None = None, **sampling: Any
    ) -> Answer:
        return await ask(self.session, prompt, structured=structured, **sampling)

    def cpu_seconds(self) -> float:
        """That the worker has used so far."""
        stat = Path(f"/proc/{self.replica.endpoint.facts['pid']}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


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
