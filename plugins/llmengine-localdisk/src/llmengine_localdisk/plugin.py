"""What this plugin registers with llmengine."""

from __future__ import annotations

from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.declarations import StorageInfo

__all__ = ["CONTRACT", "register_storages"]

CONTRACT = 1


@hookimpl
def register_storages() -> list[StorageInfo]:
    """Objects in folders of this machine, by ``file://`` URLs."""
    return [
        StorageInfo(
            name="localdisk",
            schemes=frozenset({"file"}),
            factory="llmengine_localdisk.storage:LocalDiskStorage",
        )
    ]
