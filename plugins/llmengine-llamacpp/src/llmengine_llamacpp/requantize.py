"""GGUF checkpoints with their weights stored another way."""

from __future__ import annotations

from pathlib import Path

from llmengine_core.errors import BadRequestError
from llmengine_core.interfaces.transform import Transform
from llmengine_core.offline import run_offline
from llmengine_core.types.progress import OnProgress
from llmengine_llamacpp.worker.requantize import METHODS

__all__ = ["Requantize"]

SCRIPT = Path(__file__).with_name("worker") / "requantize.py"


class Requantize(Transform):
    """By llama.cpp's own quantization functions, in a child: about a second for 100 million weights."""

    async def run(
        self, source: Path, target: Path, *, method: str | None, on_progress: OnProgress, python: str = ""
    ) -> None:
        """Write ``target``; see ``Transform.run``. ``method`` is one of those that the plugin declares."""
        if method not in METHODS:
            raise BadRequestError(f"quantize is {method!r}; allowed: {', '.join(METHODS)}")
        document = {"source": str(source), "target": str(target), "method": method}
        what = f"quantized to {method}"
        await run_offline(SCRIPT, document, what=what, on_progress=on_progress, python=python)
