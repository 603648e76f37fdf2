"""What tests under the engine's interpreter get: Hypothesis profiles, and the masker of a small real model."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # for the modules that the tests share

from masked import END, VOCABULARY, Walker

from llmengine_llguidance.decoder import LLGuidanceDecoder
from llmengine_llguidance.worker.masker import LLGuidanceMasker

settings.register_profile("default", max_examples=50, deadline=None)
settings.register_profile("thorough", max_examples=2_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of SmolLM2-135M-Instruct as safetensors."""
    return Path(os.environ["LLMENGINE_TEST_WEIGHTS"])


@pytest.fixture(scope="session")
def decoder() -> LLGuidanceDecoder:
    return LLGuidanceDecoder()


@pytest.fixture(scope="session")
def masker(weights: Path) -> LLGuidanceMasker:
    return LLGuidanceMasker(str(weights), VOCABULARY, [END])


@pytest.fixture(scope="session")
def walker(weights: Path, masker: LLGuidanceMasker) -> Walker:
    return Walker(masker, weights / "tokenizer.json", VOCABULARY)
