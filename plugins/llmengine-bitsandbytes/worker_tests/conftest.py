"""What tests under the engine's interpreter get: the weights of a small real model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of SmolLM2-135M-Instruct as safetensors."""
    return Path(os.environ["LLMENGINE_TEST_WEIGHTS"])
