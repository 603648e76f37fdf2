"""The transforms into GGUF keep the laws of transforms, on models so small that llama.cpp loads them in a moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from llamacpp_engine import started

from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.testing import TransformContract
from llmengine_core.testing.checkpoints import hugging_face_folder
from llmengine_core.types.launch import Deployment
from llmengine_llamacpp.convert import Convert

pytestmark = pytest.mark.engine


class Loading(TransformContract):
    """What is made is loaded by llama.cpp, which answers with it."""

    async def loads(self, path: Path) -> None:
        runtime = LocalRuntime(path.parent)
        deployment = Deployment(
            backend="llama_cpp",
            version="any",
            weights=str(path),
            weights_digest="0" * 64,
            context_length=64,
            per_worker=1,
            options={"threads": 1},
        )
        try:
            async with started(runtime, deployment) as engine:
                await engine.complete("the", max_tokens=2)
        finally:
            await runtime.aclose()


class TestConvert(Loading):
    transform = "safetensors_to_gguf"


class TestRequantize(Loading):
    transform = "gguf_requantize"
    methods = ("q8_0",)

    @classmethod
    def source(cls, folder: Path) -> Path:
        made = folder / "model.gguf"
        asyncio.run(
            Convert().run(hugging_face_folder(folder / "hf"), made, method=None, on_progress=lambda _: None)
        )
        return made
