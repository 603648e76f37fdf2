"""Objects and rows in the process's memory, for URLs that start with ``memory://``: a plugin for anybody's tests.

``Engine(load_settings(storage_url="memory://files", database_url="memory://state"), plugins=[memory])`` touches no disk
for them. Who opens one URL sees the same for as long as the process lives; a URL of their own keeps tests apart.
"""

from __future__ import annotations

from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.declarations import StorageInfo, StoreInfo

__all__ = ["CONTRACT"]

CONTRACT = 1
_SCHEMES = frozenset({"memory"})


@hookimpl
def register_storages() -> list[StorageInfo]:
    """The storage ``memory``."""
    factory = "llmengine_core.testing.memory_storage:MemoryStorage"
    return [StorageInfo(name="memory", schemes=_SCHEMES, factory=factory)]


@hookimpl
def register_stores() -> list[StoreInfo]:
    """The store ``memory``."""
    return [
        StoreInfo(name="memory", schemes=_SCHEMES, factory="llmengine_core.testing.memory_store:MemoryStore")
    ]
