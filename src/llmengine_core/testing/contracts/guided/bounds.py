"""Laws of guided decoders: constraints and texts of any size are answered in bounded time and memory."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar

from llmengine_core import processes
from llmengine_core.testing.contracts.guided import bombs as guided_bombs
from llmengine_core.testing.contracts.guided.ground import GuidedGround
from llmengine_core.testing.laws import NotApplicable, law

__all__ = ["GuidedBoundLaws"]

READABLE = 4_000
"""Characters of an error that people still read."""


class GuidedBoundLaws(GuidedGround):
    """What holds for input from outside."""

    answering_seconds: ClassVar[float] = 10.0
    """CPU time that one constraint, or one text, may take, also on a slow machine."""
    answering_bytes: ClassVar[int] = 4 * 1024**3
    """Memory that all of them may take, beyond what the decoder takes anyway."""

    @law("C03")
    async def test_c03_a_constraint_of_any_size_is_answered(self) -> None:
        """Deep, huge, exponential: a constraint is answered in bounded time and memory, by an error if need be."""
        await self._survived(
            [(name, kind, value, None) for name, (kind, value) in guided_bombs.BOMBS.items()]
        )

    @law("C03")
    async def test_c03_a_text_of_any_size_is_judged(self) -> None:
        """Long and deep texts are judged in bounded time and memory."""
        await self._survived([(name, *each) for name, each in guided_bombs.LONG_TEXTS.items()])

    async def _survived(self, every: Sequence[tuple[Any, ...]]) -> None:
        """See that a process of its own gets through all tasks that are of declared kinds."""
        info = await asyncio.to_thread(self.declaration)
        tasks = [task for task in every if task[1] in info.kinds]
        if sys.platform != "linux":
            raise NotApplicable("memory is bounded on Linux only")
        answers: list[dict[str, Any]] = []
        ended = asyncio.Event()
        child = await processes.spawn(
            [sys.executable, "-m", guided_bombs.__name__],
            env={"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)},
            document={
                "factory": info.factory,
                "dialect": min(info.dialects, default=None),
                "seconds": self.answering_seconds,
                "memory": self.answering_bytes,
                "tasks": tasks,
            },
            on_message=answers.append,
            on_end=ended.set,
            grace=0.2,
        )
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.patience * 0.9):
                    await ended.wait()
        finally:
            await child.aclose()
        for task, found in zip(tasks, answers, strict=False):
            assert "foreign" not in found, (
                f"{task[0]} was answered by what is no error of ours: {found['foreign']}"
            )
            assert found["length"] < READABLE, f"the error about {task[0]} has {found['length']:,} characters"
        if len(answers) < len(tasks):
            raise AssertionError(
                f"{tasks[len(answers)][0]} was not answered within {self.answering_seconds:g} s of CPU time and "
                f"{self.answering_bytes / 1024**3:g} GiB; the process that tried ended: {await child.wait()}"
            )
        self.report("slowest_seconds", max(each["seconds"] for each in answers))
