"""GGUF checkpoints as safetensors, which Transformers trains and serves."""

from __future__ import annotations

from pathlib import Path

from llmengine_core.errors import BadRequestError
from llmengine_core.interfaces.transform import Transform
from llmengine_core.offline import run_offline
from llmengine_core.types.progress import OnProgress

__all__ = ["Dequantize"]

SCRIPT = Path(__file__).with_name("worker") / "dequantize.py"


class Dequantize(Transform):
    """In a child, under the interpreter of the engine's environment; two seconds for 100 million weights."""

    async def run(
        self, source: Path, target: Path, *, method: str | None, on_progress: OnProgress, python: str = ""
    ) -> None:
        """Write the folder ``target``, its weights as bfloat16; see ``Transform.run``. There is no ``method``."""
        if method is not None:
            raise BadRequestError(f"gguf_to_safetensors doesn't quantize; it can't make {method!r}")
        document = {"source": str(source), "target": str(target)}
        what = "stored as safetensors"
        await run_offline(SCRIPT, document, what=what, on_progress=on_progress, python=python)
