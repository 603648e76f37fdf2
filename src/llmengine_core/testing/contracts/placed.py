"""What is opened by a URL, a storage or a store: how laws get fresh ones."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from llmengine_core.plugins import import_object
from llmengine_core.registry import Registry
from llmengine_core.settings import Settings, load_settings
from llmengine_core.testing.laws import CORE, Contract, Law
from llmengine_core.types.declarations import StorageInfo, StoreInfo

__all__ = ["SEVERAL_PROCESSES", "Place", "PlacedGround", "bounded"]

T = TypeVar("T")
InfoT = TypeVar("InfoT", StorageInfo, StoreInfo)
SEVERAL_PROCESSES = "several processes"
"""The level of what only matters where several processes see the same."""
LONG = 20.0
"""Seconds in which a call on something small returns, also on a slow network and a busy machine."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something empty is."""

    url: str
    folder: Path
    """The folder of its own that it was offered; ``url`` may lead somewhere else altogether."""


class PlacedGround(Contract):
    """How laws get fresh URLs, and open what they name."""

    plugin: ClassVar[str] = ""
    """The plugin's module, where it isn't installed under an entry point."""
    shared_between_processes: ClassVar[bool] = True
    """Whether processes that open one URL see the same. False narrows the contract to one process: for doubles, which
    live in its memory."""

    _found: ClassVar[list[Callable[[str], Any]]] = []
    """The factory, once it is imported."""

    @classmethod
    def settings(cls) -> Settings:
        """By default what the process is configured with."""
        return load_settings()

    @classmethod
    def registry(cls) -> Registry:
        """All that is installed, and the plugin."""
        return _registry(cls.settings(), cls.plugin)

    @classmethod
    def info(cls) -> StorageInfo | StoreInfo:
        """The declaration that is judged."""
        raise NotImplementedError

    @classmethod
    def named(cls, declared: Mapping[str, InfoT], name: str) -> InfoT:
        """The declaration with a name."""
        if name not in declared:
            faults = "".join(f"\n  {each.plugin} {each.message}" for each in cls.registry().faults)
            known = ", ".join(sorted(declared)) or "none"
            raise AssertionError(f"no plugin registers the {cls.kind} {name!r}, but: {known}{faults}")
        return declared[name]

    @classmethod
    def factory(cls) -> str:
        """ "package.module:Class", which takes a URL. Children import it too."""
        return cls.info().factory

    @classmethod
    def schemes(cls) -> frozenset[str]:
        """Of URLs that name one."""
        return cls.info().schemes

    @classmethod
    def levels(cls) -> frozenset[str]:
        """What is declared."""
        return frozenset({CORE} | ({SEVERAL_PROCESSES} if cls.shared_between_processes else set()))

    @classmethod
    def applies(cls, each: Law) -> bool:
        return each.level in cls.levels()

    def fresh_url(self, folder: Path) -> str:
        """The URL of something empty, another one each time; ``folder`` is an empty folder of its own."""
        schemes = self.schemes()
        if "memory" in schemes:
            return f"memory://{uuid.uuid4().hex}"
        if "file" in schemes:
            return (folder / "new, 100% {ours}").as_uri()
        if "sqlite" in schemes:
            return f"sqlite:///{folder}/new folder/50%41 #é.db"
        raise NotImplementedError(f"{type(self).__name__}.fresh_url must say where an empty one may be made")

    @classmethod
    @asynccontextmanager
    async def shared(cls) -> AsyncIterator[Callable[[str], Any]]:
        found = await asyncio.to_thread(lambda: import_object(cls.factory()))
        cls._found = [found]
        yield found

    def made(self, url: str) -> Any:
        """What a URL names, opened."""
        return self._found[0](url) if self._found else self.given(url)

    @contextmanager
    def somewhere(self) -> Iterator[Place]:
        """A fresh URL, for laws that aren't async."""
        self.given  # noqa: B018 - imported here: on the loop that would block
        above = Path(tempfile.mkdtemp(prefix="contract-"))
        try:
            folder = above / "own"
            folder.mkdir()
            yield Place(self.fresh_url(folder), folder)
        finally:
            shutil.rmtree(above, ignore_errors=True)

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[Place]:
        """A fresh URL."""
        context = self.somewhere()
        place = await asyncio.to_thread(context.__enter__)
        try:
            yield place
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)

    def on_loop(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What a coroutine gives, run on the laws' loop: for laws that aren't async."""
        return self.portal().run(call(), seconds=self.patience, what="a call")


async def bounded(call: Coroutine[Any, Any, T], what: str) -> T:
    """What a call gives; an ``AssertionError`` where it hangs."""
    task = asyncio.ensure_future(call)
    done, _ = await asyncio.wait([task], timeout=LONG)
    if not done:
        task.cancel()
        raise AssertionError(f"{what} did not return within {LONG:g} s")
    return task.result()


@cache
def _registry(settings: Settings, plugin: str) -> Registry:
    return Registry.build(settings, modules=[importlib.import_module(plugin)] if plugin else [])
