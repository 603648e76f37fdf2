"""What this plugin registers with llmengine."""

from __future__ import annotations

from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.declarations import StorageInfo

__all__ = ["CONTRACT", "register_storages"]

CONTRACT = 1


@hookimpl
def register_storages() -> list[StorageInfo]:
    """Repositories of the hub, by ``hf://org/name[@revision]`` URLs."""
    return [
        StorageInfo(
            name="hub",
            schemes=frozenset({"hf"}),
            factory="llmengine_hub.storage:HubStorage",
            writable=False,
            takes_policy=True,
        )
    ]
