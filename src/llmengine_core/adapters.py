"""Adapters of one deployment: the same on all its replicas, also on those that are started later."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from llmengine_core.errors import BadRequestError, LLMEngineError
from llmengine_core.interfaces.backend import Session, SessionLost

__all__ = ["Adapters"]

log = logging.getLogger(__name__)


class Adapters:
    """Which adapters there are, and how many requests use each.

    ``sessions`` gives those with the replicas in service. One that is lost meanwhile doesn't count.
    """

    def __init__(self, sessions: Callable[[], Collection[Session]]) -> None:
        self._sessions = sessions
        self._paths: dict[str, str] = {}
        self._changing: set[str] = set()
        self._users: Counter[str] = Counter()
        self._unused = asyncio.Event()
        self._holds: Counter[str] = Counter()
        self._refused: set[str] = set()
        """Those that a new replica refused, still to be unloaded from the others."""
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- for as long as they are needed ----------------------------------------------------------------------

    def hold(self, name: str | None) -> None:
        """Need an adapter, loaded or not, as a model does and a request to come. Pair it with ``let_go``."""
        if name is not None:
            self._holds[name] += 1

    def let_go(self, name: str | None) -> None:
        """With the last hold it is unloaded, in a task of its own."""
        if name is None:
            return
        self._holds[name] -= 1
        if not self._holds[name]:
            del self._holds[name]
            self._begin(self._drop(name))

    async def have(self, name: str, path: str) -> None:
        """Load one that is held, unless it is there already. Raises why a replica refuses it."""
        if name not in self._paths:
            async with self._turn:
                await self._unload_refused()
                if name not in self._paths:
                    await self.load(name, path)

    async def _drop(self, name: str) -> None:
        async with self._turn:
            if name in self._paths and not self._holds[name]:
                try:
                    await self.unload(name)
                except LLMEngineError as error:
                    log.warning("the adapter %s could not be unloaded: %s", name, error)

    async def _forget_refused(self) -> None:
        async with self._turn:
            await self._unload_refused()

    async def _unload_refused(self) -> None:
        while self._refused:
            name = self._refused.pop()
            changes = [session.unload_adapter(name) for session in self._sessions()]
            await asyncio.gather(*changes, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Unload nothing any more; the replicas end. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- on all replicas -------------------------------------------------------------------------------------

    @contextmanager
    def used(self, name: str | None) -> Iterator[None]:
        """Keep an adapter where it is, for as long as a request uses it."""
        if name is None:
            yield
            return
        if name in self._changing and name not in self._paths:
            raise BadRequestError(f"the adapter {name!r} is not loaded, or is being unloaded")
        self._users[name] += 1
        try:
            yield
        finally:
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name]
                self._unused.set()

    async def put_on(self, session: Session) -> None:
        """Load all that there are on a replica that is about to serve.

        One that it refuses, since its files are no longer what they were, is unloaded from the others too: those who
        need it hear why when they load it again, and nobody else does.
        """
        loaded: dict[str, str] = {}
        while loaded != self._paths:  # some may come or go meanwhile
            for name in [name for name, path in loaded.items() if self._paths.get(name) != path]:
                del loaded[name]
                await session.unload_adapter(name)
            for name in self._paths.keys() - loaded.keys():
                if (path := self._paths.get(name)) is None:
                    continue
                try:
                    await session.load_adapter(name, path)
                    loaded[name] = path
                except BadRequestError as error:
                    log.warning("an adapter is no longer there: %s", error)
                    if self._paths.get(name) == path:
                        del self._paths[name]
                        self._refused.add(name)
                        self._begin(self._forget_refused())  # not here: its users may wait for this replica

    async def load(self, name: str, path: str) -> None:
        """Load one on all replicas, or, where one of them refuses it, on none."""
        if name in self._paths or name in self._changing:
            raise BadRequestError(f"there is an adapter {name!r} already; unload it first")
        self._changing.add(name)
        having: set[Session] = set()
        try:
            while missing := set(self._sessions()) - having:
                having |= missing
                await _all(session.load_adapter(name, path) for session in missing)
            self._paths[name] = path
        finally:
            if name not in self._paths:
                await asyncio.gather(
                    *(session.unload_adapter(name) for session in having), return_exceptions=True
                )
            self._changing.discard(name)

    async def unload(self, name: str) -> None:
        """Unload one from all replicas, once nobody uses it."""
        if name not in self._paths or name in self._changing:
            raise BadRequestError(f"there is no adapter {name!r}")
        path = self._paths.pop(name)
        self._changing.add(name)
        try:
            await self._until_unused(name, path)
            with suppress(SessionLost):
                await _all(session.unload_adapter(name) for session in self._sessions())
        finally:
            self._changing.discard(name)

    async def _until_unused(self, name: str, path: str) -> None:
        """Where the wait is given up, the adapter is there again."""
        try:
            while self._users[name]:
                self._unused.clear()
                await self._unused.wait()
        except BaseException:
            self._paths[name] = path
            raise


async def _all(changes: Iterable[Awaitable[None]]) -> None:
    """Make changes at once; raises the first that failed, that of a lost replica only where all were lost."""
    results = await asyncio.gather(*changes, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    lost = [error for error in errors if isinstance(error, SessionLost)]
    for error in errors:
        if not isinstance(error, SessionLost) or len(lost) == len(results):
            raise error
