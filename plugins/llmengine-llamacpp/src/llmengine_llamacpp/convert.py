"""Checkpoints in safetensors as GGUF files, which llama.cpp serves."""

from __future__ import annotations

from pathlib import Path

from llmengine_core.errors import BadRequestError
from llmengine_core.interfaces.transform import Transform
from llmengine_core.offline import run_offline
from llmengine_core.types.progress import OnProgress

__all__ = ["Convert"]

SCRIPT = Path(__file__).with_name("worker") / "convert.py"


class Convert(Transform):
    """By llama.cpp's own arithmetic, in a child: about two seconds for 100 million weights."""

    async def run(
        self, source: Path, target: Path, *, method: str | None, on_progress: OnProgress, python: str = ""
    ) -> None:
        """Write ``target``, its matrices as 16-bit floats; see ``Transform.run``. There is no ``method``."""
        if method is not None:
            raise BadRequestError(f"safetensors_to_gguf doesn't quantize; it can't make {method!r}")
        document = {"source": str(source), "target": str(target)}
        await run_offline(SCRIPT, document, what="stored as GGUF", on_progress=on_progress, python=python)
