"""One worker with a real model, shared by the tests that need it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.types.launch import Deployment

sys.path.insert(0, str(Path(__file__).parent))

from transformers_engine import CONTEXT, Engine, started


@pytest.fixture(scope="session")
def deployment(transformers_python: str, smollm2_folder: Path) -> Deployment:
    return Deployment(
        backend="transformers",
        version="any",
        weights=str(smollm2_folder),
        weights_digest="0" * 64,
        context_length=CONTEXT,
        per_worker=2,
        options={"threads": 1},
        python=transformers_python,
        masker="llmengine_llguidance.worker.masker:LLGuidanceMasker",
    )


@pytest.fixture(scope="session")
async def engine(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    runtime = LocalRuntime(tmp_path_factory.mktemp("home"))
    try:
        async with started(runtime, deployment) as engine:
            yield engine
    finally:
        await runtime.aclose()
