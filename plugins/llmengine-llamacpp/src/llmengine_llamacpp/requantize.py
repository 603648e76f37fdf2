"""GGUF checkpoints with their weights stored another way."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.interfaces.transform import Transform
from llmengine_core.processes import spawn
from llmengine_core.types.progress import OnProgress, Progress
from llmengine_llamacpp.worker.requantize import METHODS, NOT_FIT

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

        def on_message(message: dict[str, Any]) -> None:
            on_progress(Progress(source.name, "transform", float(message["progress"]), 1.0))

        document = {"source": str(source), "target": str(target), "method": method}
        child = await spawn((sys.executable, "-I", str(SCRIPT)), document=document, on_message=on_message)
        try:
            end = await child.wait()
        finally:
            await child.aclose()
        if end.code == NOT_FIT:
            raise BadRequestError(f"{source.name} can't be quantized to {method}: {end.reason}")
        if end.code != 0:
            how = f"signal {end.signal}" if end.code is None else f"exit code {end.code}"
            raise ServerError(f"quantizing {source.name} to {method} ended with {how}: {end.reason}")
