"""The transform into safetensors keeps the laws of transforms."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from llmengine_core.settings import Settings, load_settings
from llmengine_core.testing import TransformContract
from llmengine_core.testing.checkpoints import hugging_face_folder
from llmengine_llamacpp.convert import Convert

pytestmark = pytest.mark.environment


class TestDequantize(TransformContract):
    transform = "gguf_to_safetensors"

    @classmethod
    def settings(cls) -> Settings:
        return load_settings(home=Path(os.environ["LLMENGINE_TEST_ENGINES"]))

    @classmethod
    def source(cls, folder: Path) -> Path:
        """A whole model with its vocabulary, which the kit's own GGUF file has none of."""
        made = folder / "model.gguf"
        stored = hugging_face_folder(folder / "hf")
        asyncio.run(Convert().run(stored, made, method=None, on_progress=lambda _: None))
        return made
