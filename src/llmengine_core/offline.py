"""Transforms whose work is a script in a child process.

The script is run by path, isolated, and reads one JSON line from its standard input. It writes one line
``{"progress": 0.5}`` for each piece of work that is done. Where a checkpoint isn't fit for it, it ends with the
status ``NOT_FIT`` and says why on its standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.processes import HARMLESS, spawn
from llmengine_core.types.progress import OnProgress, Progress

__all__ = ["NOT_FIT", "run_offline"]

NOT_FIT = 2
"""Exit status of a script for a checkpoint that can't be worked on."""


async def run_offline(
    script: Path, document: Mapping[str, Any], *, what: str, on_progress: OnProgress, python: str = ""
) -> None:
    """Run a script on ``document["source"]`` under ``python`` ("" is the interpreter that runs us).

    ``what`` completes "x.gguf can't be": "quantized to q8_0". Cancelling ends the child. Raises
    ``BadRequestError`` where the checkpoint isn't fit, ``ServerError`` where the work failed.
    """
    name = Path(document["source"]).name

    def on_message(message: dict[str, Any]) -> None:
        on_progress(Progress(name, "transform", float(message["progress"]), 1.0))

    argv = (python or sys.executable, "-I", str(script))
    child = await spawn(argv, inherit=HARMLESS, document=document, on_message=on_message)
    try:
        end = await child.wait()
    finally:
        await child.aclose()
    if end.code == NOT_FIT:
        raise BadRequestError(f"{name} can't be {what}: {end.reason}")
    if end.code != 0:
        how = f"signal {end.signal}" if end.code is None else f"exit code {end.code}"
        raise ServerError(f"{name} could not be {what}: the work ended with {how}: {end.reason}")
