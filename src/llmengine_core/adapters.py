"""Adapters of one deployment: the same on all its replicas, also on those that are started later."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress

from llmengine_core.errors import BadRequestError
from llmengine_core.interfaces.backend import Session, SessionLost

__all__ = ["Adapters"]


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
        """Load all that there are on a replica that is about to serve."""
        loaded: dict[str, str] = {}
        while loaded != self._paths:  # some may come or go meanwhile
            for name in [name for name, path in loaded.items() if self._paths.get(name) != path]:
                del loaded[name]
                await session.unload_adapter(name)
            for name in self._paths.keys() - loaded.keys():
                if (path := self._paths.get(name)) is not None:
                    await session.load_adapter(name, path)
                    loaded[name] = path

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
