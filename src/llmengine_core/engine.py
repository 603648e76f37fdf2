"""The engine: opens what the settings name, puts it together, and closes it again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import ModuleType
from typing import Self, TypeVar
from urllib.parse import urlsplit

from llmengine_core.deployments import Deployments
from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.interfaces.runtime import Runtime
from llmengine_core.interfaces.storage import Storage
from llmengine_core.interfaces.store import Store
from llmengine_core.provisioning import Provisioner
from llmengine_core.registry import Registry
from llmengine_core.services.catalog import Catalog
from llmengine_core.services.completions import Completions
from llmengine_core.services.files import FOLDER, Files
from llmengine_core.services.models import Models
from llmengine_core.services.serving import Serving
from llmengine_core.services.storing import storage_errors, store_errors
from llmengine_core.settings import Settings, load_settings
from llmengine_core.types.declarations import StorageInfo, StoreInfo
from llmengine_core.types.progress import OnProgress
from llmengine_core.urls import UrlPolicy, shown_url

__all__ = ["Engine"]

InfoT = TypeVar("InfoT", StorageInfo, StoreInfo)


class Engine:
    """Completions, models and files on this machine, for whoever embeds it.

    An async context manager, used from the event loop that opened it::

        async with Engine() as engine:
            record = await engine.models.get("smollm2-135m-instruct")

    ``plugins`` are modules that count besides the installed ones; ``on_progress`` hears of long work.
    Opening it starts no engine and no thread of its own.
    """

    completions: Completions
    models: Models
    files: Files
    registry: Registry

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        plugins: Sequence[ModuleType] = (),
        on_progress: OnProgress | None = None,
    ) -> None:
        self.settings = settings or load_settings()
        self._plugins = tuple(plugins)
        self._on_progress = on_progress
        self._policy = UrlPolicy(self.settings.private_hosts)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._resources = AsyncExitStack()
        self._process = 0
        self._runtime: Runtime | None = None
        self._deployments: Deployments | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it runs on. Raises ``ServerError`` while it isn't open, and in a forked process."""
        if self._loop is None:
            raise ServerError("the engine is not open; use it as `async with Engine() as engine`")
        if self._process != os.getpid():
            raise ServerError(
                "the engine was opened by the process that this one was forked from, and stayed there; open one here"
            )
        return self._loop

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise ServerError("the engine is open already")
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        try:
            await self._open()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def _open(self) -> None:
        settings = self.settings
        store, storage, runtime = await asyncio.to_thread(self._find_parts)
        for part in (store, storage, runtime):
            self._resources.push_async_callback(part.aclose)
        self._runtime = runtime
        provisioner = Provisioner(settings, self.registry, on_progress=self._on_progress)
        self._resources.callback(provisioner.close)
        deployments = self._deployments = Deployments(runtime, self._on_progress)
        self._resources.push_async_callback(deployments.aclose)
        catalog = Catalog(settings, self.registry, store)
        self._serving = Serving(settings, self.registry, catalog, provisioner, deployments)
        self._resources.push_async_callback(self._serving.aclose)
        open_storage = partial(self._open_storage, field="checkpoint_path")
        uploads = f"{settings.effective_storage_url.rstrip('/')}/{FOLDER}"
        self.models = Models(catalog, self._serving, self._policy, open_storage, uploads=uploads)
        self.files = Files(store, storage, on_progress=self._on_progress)
        observers = [self.registry.load(info) for info in self.registry.observers.values()]
        self.completions = Completions(self._serving, self.registry, observers)

    def _find_parts(self) -> tuple[Store, Storage, Runtime]:
        """The plugins, and what the settings name of them. Reads files: runs in a thread."""
        settings = self.settings
        try:
            settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)  # uploads are their owners' only
        except OSError as error:
            raise ServerError(
                f"the state folder {settings.home} can't be made: {error.strerror}; set LLMENGINE_HOME to a folder "
                "that you may write to"
            ) from error
        self.registry = Registry.build(settings, modules=self._plugins)
        return (
            self._open_store(settings.effective_database_url),
            self._open_storage(settings.effective_storage_url, "storage_url"),
            self.registry.load(self.registry.runtimes["local"], settings.home),
        )

    def _open_store(self, url: str) -> Store:
        info = _serving(self.registry.stores_by_scheme, "database_url", url)
        with store_errors():
            store: Store = self.registry.load(info, url)
            return store

    def _open_storage(self, url: str, field: str) -> Storage:
        info = _serving(self.registry.storages_by_scheme, field, url)
        if field == "storage_url" and not info.writable:
            raise BadRequestError(
                f"storage_url={shown_url(url)!r}: {info.name!r} storages are only read; set LLMENGINE_STORAGE_URL to "
                "where objects can be written, such as a file:// URL"
            )
        with storage_errors():
            return self.registry.open_storage(info, url, self._policy)

    def close_now(self) -> None:
        """Let go of every replica without waiting: for interpreter exit."""
        if self._deployments is not None:
            self._deployments.close_now()
        if self._runtime is not None:
            self._runtime.close_now()

    async def aclose(self) -> None:
        """End every replica and stream, close the stores. Idempotent."""
        self._loop = None
        resources, self._resources = self._resources, AsyncExitStack()
        await resources.aclose()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _serving(by_scheme: Mapping[str, InfoT], field: str, url: str) -> InfoT:
    """What serves a URL. Raises ``BadRequestError`` where nothing does."""
    scheme = urlsplit(url).scheme
    info = by_scheme.get(scheme)
    if info is None:
        raise BadRequestError(
            f"{field}={shown_url(url)!r}: no plugin that was loaded serves {scheme!r} URLs, but only "
            f"{', '.join(sorted(by_scheme)) or 'none'}; `llmengine plugins` shows what loaded and what failed"
        )
    return info
