"""A child process that runs a plugin, and is watched: how long it is silent, how much it takes and prints.

It always ends, and all that it started with it.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmengine_core.processes import Child, spawn
from llmengine_core.testing.conformance.channel import LOST
from llmengine_core.types.launch import Exit

__all__ = ["MOST_MEMORY", "Ended", "Watched", "search_path"]

MOST_MEMORY = min(4 << 30, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
"""Bytes that a plugin may take in our process; engines have processes of their own."""
MOST_PRINTED = 64 << 20
"""Bytes."""
GLANCE = 0.1
"""Seconds between two looks at what a child takes."""
AFTERWARDS = 3.0
"""Seconds beyond its bound that a child gets to say where it stood."""
LONGEST_TRACE = 2_500
"""Characters of what a child printed last."""
HUNG = re.compile(r"^Timeout \((.+)\)!\n(.*)", re.MULTILINE | re.DOTALL)
"""What Python's faulthandler writes of a process that it ends because its time is up."""
PAGE = os.sysconf("SC_PAGE_SIZE")


class Ended(Exception):
    """A child is no more, and why."""


class Watched:
    """One child that runs ``python -c "from MODULE import main; main()"``, and tells news through its channel."""

    def __init__(
        self,
        module: str,
        order: Mapping[str, Any],
        output: Path,
        *,
        env: Mapping[str, str] | None = None,
        memory: int = MOST_MEMORY,
    ) -> None:
        """``order`` is what it is told; ``output`` is a file for what is printed, which must not be there yet."""
        self._program = f"from {module} import main; main()"
        self._order = {"path": search_path(), "output": str(output), **order}
        self._output = output
        self._env = dict(env or {})
        self._memory = memory
        self._news: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        """None is its end, which nothing that it says can be taken for."""
        self._child: Child | None = None
        self._excess = ""

    async def news(self, seconds: float) -> AsyncGenerator[dict[str, Any], None]:
        """What it tells, until it is done. Each may take ``seconds``, or as long as "begun" says in "seconds".

        Raises ``Ended`` that says why where it comes to another end. Close it, and the child is gone.
        """
        self._child = child = await spawn(
            [sys.executable, "-u", "-c", self._program],
            env=self._env,
            document=self._order,
            grace=0.2,
            on_message=self._news.put_nowait,
            on_line=lambda _: None,
            on_end=lambda: self._news.put_nowait(None),
        )
        watch = asyncio.create_task(self._watch(child))
        try:
            while True:
                told = await self._next(seconds + AFTERWARDS)
                if told is None:
                    raise Ended(await self._why(await child.wait()))
                if told.get("done"):
                    return
                seconds = told.get("seconds", seconds)
                yield told
        finally:
            watch.cancel()
            await child.aclose()

    async def _next(self, seconds: float) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(seconds):
                return await self._news.get()
        except TimeoutError:
            raise Ended(
                f"it hung, for longer than {seconds:.0f} s, and could not even say where{await self._said()}"
            ) from None

    async def _watch(self, child: Child) -> None:
        """End it where it takes too much."""
        while not self._excess:
            await asyncio.sleep(GLANCE)
            taken, printed = await asyncio.to_thread(_taken, child.pid, self._output)
            if taken > self._memory:
                self._excess = f"it took more than {self._memory >> 20} MiB of memory"
            elif printed > MOST_PRINTED:
                self._excess = f"it printed more than {MOST_PRINTED >> 20} MiB"
        with suppress(ProcessLookupError, PermissionError):
            os.kill(child.pid, signal.SIGKILL)

    async def _why(self, ended: Exit) -> str:
        said = await self._said()
        if self._excess:
            return self._excess
        if (hung := HUNG.search(said)) is not None:
            return f"it hung, for longer than {hung[1]} (h:mm:ss); it stood at:\n{hung[2]}"
        if ended.code == LOST:
            return "it closed file descriptors that are not its own" + said
        if ended.signal is not None:
            name = signal.Signals(ended.signal).name if ended.signal in set(signal.Signals) else "?"
            return f"it was killed by signal {ended.signal} ({name}){said}"
        return f"it ended the process, with exit status {ended.code}{said}"

    async def _said(self) -> str:
        tail = await asyncio.to_thread(_tail, self._output)
        return f"; it last printed:\n{tail}" if tail else ""


def _taken(process: int, output: Path) -> tuple[int, int]:
    """Bytes of memory, where that can be known, and of what was printed."""
    memory = printed = 0
    with suppress(OSError, ValueError, IndexError):
        memory = int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE
    with suppress(OSError):
        printed = output.stat().st_size
    return memory, printed


def _tail(output: Path) -> str:
    try:
        with output.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LONGEST_TRACE))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def search_path(first: Sequence[str] = ()) -> list[str]:
    """Where modules are looked for: in these folders, then where we look ourselves."""
    return [*first, *(each or os.getcwd() for each in sys.path)]
