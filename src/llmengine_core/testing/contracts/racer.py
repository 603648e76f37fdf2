"""The frame of a racer: one of several processes that do something at once.

``python -m MODULE FACTORY URL TASK ARGUMENT`` says "ready", begins at the first line of its standard input, and ends at
once when that closes: nothing outlives the process that started it.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from queue import SimpleQueue
from typing import Any

__all__ = ["made", "race", "say", "told"]

_lines: SimpleQueue[str] = SimpleQueue()


def made(factory: str, url: str) -> Any:
    """What a factory, "package.module:Class", makes of a URL."""
    module, _, name = factory.partition(":")
    return getattr(importlib.import_module(module), name)(url)


def say(line: object) -> None:
    """Tell the process that started this one."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def told() -> str:
    """The next line from the process that started this one. Blocks."""
    return _lines.get()


def race(tasks: Mapping[str, Callable[[Any, float], Awaitable[None]]]) -> None:
    """Do what the command line says."""
    factory, url, task, argument = sys.argv[1:]
    threading.Thread(target=_listen, daemon=True).start()

    async def run() -> None:
        opened = made(factory, url)
        say("ready")
        await asyncio.to_thread(told)
        await tasks[task](opened, float(argument))
        await opened.aclose()

    asyncio.run(run())


def _listen() -> None:
    for line in sys.stdin:
        _lines.put(line)
    os._exit(1)
