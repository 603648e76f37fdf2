"""Threads for blocking calls that nobody waits for at the end of the program."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.thread import ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

__all__ = ["DaemonThreads"]

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(ThreadPoolExecutor):
    """An executor whose threads end with the interpreter, and work until then.

    The standard one refuses every call from the end of the main thread on, though other threads may still be
    asking, and then holds the interpreter up for as long as its calls block.
    """

    def __init__(self, most: int = 32) -> None:
        super().__init__(most)
        self._most = most
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._own: list[threading.Thread] = []
        self._free = threading.Semaphore(0)
        """Threads that wait for a call which isn't on its way to them yet."""
        self._turn = threading.Lock()
        self._over = False

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a thread make a call, a new one if none is free and there may be more."""
        future: Future[T] = Future()
        with self._turn:
            if self._over:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._calls.put((future, partial(call, *args, **kwargs)))
            if not self._free.acquire(blocking=False) and len(self._own) < self._most:
                thread = threading.Thread(target=self._work, name="llmengine-call", daemon=True)
                thread.start()
                self._own.append(thread)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; let the threads finish those that they were given, or have begun."""
        with self._turn:
            self._over = True
            while cancel_futures and (waiting := self._next_waiting()) is not None:
                waiting.cancel()
            for _ in self._own:
                self._calls.put(None)
        if wait:
            for thread in self._own:
                thread.join()

    def _next_waiting(self) -> Future[Any] | None:
        try:
            given = self._calls.get_nowait()
        except Empty:
            return None
        return given[0] if given is not None else None

    def _work(self) -> None:
        while (given := self._calls.get()) is not None:
            _make(*given)
            del given  # it holds a caller's values
            self._free.release()


def _make(future: Future[T], call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
