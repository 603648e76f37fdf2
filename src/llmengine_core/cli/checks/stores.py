"""Where state is kept: the metadata store and the object storage."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterator
from urllib.parse import urlsplit

from llmengine_core.cli.checks.finding import Finding
from llmengine_core.errors import LLMEngineError
from llmengine_core.interfaces.storage import StorageError
from llmengine_core.interfaces.store import Store, StoreError
from llmengine_core.locations import shown
from llmengine_core.registry import Registry
from llmengine_core.settings import Settings
from llmengine_core.urls import UrlPolicy, shown_url

__all__ = ["database", "storage"]


def database(settings: Settings, registry: Registry) -> Iterator[Finding]:
    """The metadata store opens, and can be read."""
    url = settings.effective_database_url
    info = registry.stores_by_scheme.get(urlsplit(url).scheme)
    if info is None:
        yield _unserved("database_url", url)
        return

    async def look() -> None:
        store: Store = registry.load(info, url)
        try:
            await store.scan("models", limit=1)
        finally:
            await store.aclose()

    yield _tried(look, url)


def storage(settings: Settings, registry: Registry) -> Iterator[Finding]:
    """The object storage takes an object, and gives it up again."""
    url = settings.effective_storage_url
    info = registry.storages_by_scheme.get(urlsplit(url).scheme)
    if info is None:
        yield _unserved("storage_url", url)
        return

    if not info.writable:
        yield Finding(
            "broken",
            f"storage_url={shown_url(url)!r}: {info.name!r} storages are only read",
            "set LLMENGINE_STORAGE_URL to where objects can be written",
        )
        return

    async def look() -> None:
        objects = registry.open_storage(info, url, UrlPolicy(settings.private_hosts))
        try:
            key = f"doctor/{secrets.token_hex(8)}"
            await objects.put(key, b"written to see whether it can be", mode="create")
            await objects.delete(key)
        finally:
            await objects.aclose()

    yield _tried(look, url)


def _unserved(field: str, url: str) -> Finding:
    scheme = urlsplit(url).scheme
    return Finding("broken", f"{field}={shown(url)!r}: no plugin that was loaded serves {scheme!r} URLs")


def _tried(look: Callable[[], Coroutine[object, object, None]], url: str) -> Finding:
    try:
        asyncio.run(look())
    except (LLMEngineError, StoreError, StorageError) as error:
        return Finding("broken", f"{shown(url)}: {error}")
    return Finding("ok", shown(url))
