"""A command's work, on an engine that is open for as long as it takes."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from llmengine_core.callers import caller_of
from llmengine_core.cli.console import Console
from llmengine_core.cli.progress import ProgressLine
from llmengine_core.engine import Engine
from llmengine_core.errors import UnsupportedFeatureError

__all__ = ["caller", "run"]

T = TypeVar("T")


def run(console: Console, work: Callable[[Engine], Awaitable[T]], *, silent: bool = False) -> T:
    """Open an engine, do the work, close it. Ctrl-C cancels the work, which ends what it started.

    With ``silent`` nothing is shown of how far it has come, where that would disturb what it prints.
    """
    if server := os.environ.get("LLM_ENGINE_BASE_PATH"):
        raise UnsupportedFeatureError(
            f"LLM_ENGINE_BASE_PATH={server!r} sends calls to a server, and this version of llmengine speaks to none; "
            "unset it to work on this machine"
        )
    if console.debug:
        logging.basicConfig(level=logging.DEBUG)
    else:
        logging.getLogger().addHandler(logging.NullHandler())  # errors are reported once, by the program
    if console.shows_progress and not silent:
        console.progress = ProgressLine()
    try:
        return asyncio.run(_opened(Engine(on_progress=console.progress), work))
    finally:
        console.clear()


def caller() -> str:
    """In whose name calls are made."""
    return caller_of(os.environ.get("SCALE_API_KEY"))


async def _opened(engine: Engine, work: Callable[[Engine], Awaitable[T]]) -> T:
    async with engine:
        return await work(engine)
