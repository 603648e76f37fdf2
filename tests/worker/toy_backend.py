"""The toy as a backend, and a real worker that runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmengine_core.interfaces.backend import Session
from llmengine_core.interfaces.runtime import Replica, Runtime
from llmengine_core.testing import answers
from llmengine_core.testing.answers import Answer, ask
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.generation import GenerationRequest, Prompt
from llmengine_core.types.launch import Deployment
from llmengine_core.types.sampling import StructuredOutput, Translation
from llmengine_core.worker_backend import WorkerBackend

CAPABILITIES = Capabilities(
    logprobs=True,
    seed=True,
    structured=frozenset({"choice"}),
    structured_dialect="spelling",
    token_ids=True,
    messages=True,
    adapters="dynamic",
    batch_invariant=True,
)
MASKER = "toy_worker:ToyMasker"


class ToyBackend(WorkerBackend):
    capabilities = CAPABILITIES
    engine = "toy_worker:ToyEngine"
    hang_seconds = 60.0

    def __init__(self, *, hang_seconds: float = 60.0, **told: Any) -> None:
        """``told`` goes to the engine: end_every, gate, journal, context_length, max_concurrent, longest_token,
        lacks, fault."""
        self.hang_seconds = hang_seconds  # type: ignore[misc]  # a toy's hangs sooner
        self.told = told

    def document(self, deployment: Deployment) -> Mapping[str, Any]:
        return {"weights": deployment.weights, "max_concurrent": deployment.per_worker, **self.told}


def deployment(**given: Any) -> Deployment:
    """Of the toy, on one thread."""
    usual = Deployment(
        backend="toy",
        version="1",
        weights="/toy",
        weights_digest="0" * 64,
        per_worker=4,
        options={"threads": 1},
    )
    return replace(usual, **given)


@dataclass(frozen=True)
class Worker:
    """One worker, and a session with it."""

    replica: Replica
    session: Session

    @property
    def pid(self) -> int:
        return int(self.replica.endpoint.facts["pid"])

    async def complete(self, prompt: str | Prompt, **asked: Any) -> Answer:
        return await ask(self.session, request(prompt, **asked))


def request(
    prompt: str | Prompt,
    *,
    choices: tuple[str, ...] = (),
    **asked: Any,
) -> GenerationRequest:
    """As ``answers.request`` has it; ``choices`` are what the text must be one of."""
    structured = (
        StructuredOutput("choice", choices, Translation("spelling", "\n".join(choices))) if choices else None
    )
    return answers.request(prompt, structured=structured, **asked)


@asynccontextmanager
async def working(
    runtime: Runtime, backend: ToyBackend | None = None, **deployed: Any
) -> AsyncIterator[Worker]:
    """A worker with the toy, ended at the end."""
    backend = backend or ToyBackend()
    what = deployment(**deployed)
    replica = await runtime.start(backend.launch(what))
    try:
        async with await backend.connect(replica.endpoint, what) as session:
            yield Worker(replica, session)
    finally:
        await replica.aclose()


def journal_of(path: Path) -> list[list[str]]:
    """What the toy has noted: what happened, and to whom."""
    return [line.split() for line in path.read_text().splitlines()]
