"""Limits on how long is waited: for one thing, and for the many awaits of a stream."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import TypeVar

from llmengine_core.errors import RequestTimeoutError

__all__ = ["Watch", "until"]

T = TypeVar("T")


class Watch:
    """Cuts short whatever is awaited under it once its time is up.

    ``with watch: await something`` raises ``RequestTimeoutError`` at the deadline. Unlike
    ``asyncio.timeout`` it may be entered again and again, from any task, at the price of one timer for
    all; it is never held open across a ``yield``. ``close()`` gives the timer back.
    """

    __slots__ = ("_cancelled", "_expired", "_seconds", "_task", "_timer", "deadline")

    def __init__(self, deadline: float | None, seconds: float | None) -> None:
        self.deadline = deadline
        self._seconds = seconds
        self._task: asyncio.Task[object] | None = None
        self._expired = False
        self._cancelled = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        if self._expired:
            raise self._error()
        if self.deadline is not None and self._timer is None:
            left = self.deadline - time.monotonic()
            if left <= 0:
                self._expired = True
                raise self._error()
            self._timer = asyncio.get_running_loop().call_later(left, self._expire)
        self._task = asyncio.current_task()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self._cancelled and task is not None:
            self._cancelled = False
            # Others may have asked for the same task's end; then it is theirs, not a timeout.
            if task.uncancel() == 0 and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise self._error() from error

    def _expire(self) -> None:
        self._expired = True
        self._timer = None
        if self._task is not None:
            self._cancelled = True
            self._task.cancel()

    def _error(self) -> RequestTimeoutError:
        limit = "its timeout" if self._seconds is None else f"timeout={self._seconds:g} s"
        return RequestTimeoutError(
            f"the completion did not end within {limit}; raise `timeout` or ask for less"
        )

    def close(self) -> None:
        """Give the timer back. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def until(future: asyncio.Future[T], deadline: float | None, message: str) -> T:
    """Await ``future``, and raise ``RequestTimeoutError`` with ``message`` at ``deadline``."""
    if deadline is None:
        return await future
    limit = asyncio.timeout(max(0.0, deadline - time.monotonic()))
    try:
        async with limit:
            return await future
    except TimeoutError:
        if limit.expired():
            raise RequestTimeoutError(message) from None
        raise
