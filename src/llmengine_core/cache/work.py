"""One piece of work for which weights are needed, and who hears of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from llmengine_core.types.progress import OnProgress, Progress

__all__ = ["Work"]


@dataclass(frozen=True, slots=True)
class Work:
    """The preparation of one model."""

    subject: str
    """Its name."""
    on_progress: OnProgress
    since: float = field(default_factory=time.time)
    """When it began, in seconds since the epoch: what was used since then isn't removed to make room for it."""

    def telling(self, phase: str, total: int | None) -> Callable[[int], None]:
        """Whom to tell, on the loop, how many bytes of a phase are done."""

        def tell(done: int) -> None:
            self.on_progress(Progress(self.subject, phase, done, total, "bytes"))

        return tell

    def reporting(self, phase: str) -> Callable[[int, int | None], None]:
        """Whom to tell from any thread how many bytes of a phase are done, and how many they are in all."""
        loop = asyncio.get_running_loop()

        def report(done: int, total: int | None) -> None:
            loop.call_soon_threadsafe(self.telling(phase, total), done)

        return report

    def counting(self, phase: str, total: int | None) -> Callable[[int], None]:
        """Whom to tell from any thread how many more bytes of a phase are done."""
        tell, loop, done = self.telling(phase, total), asyncio.get_running_loop(), 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            loop.call_soon_threadsafe(tell, done)

        return count
