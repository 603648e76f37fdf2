"""What the core registers with itself, by the same hooks as everybody else."""

from __future__ import annotations

from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.declarations import RuntimeInfo, StorageInfo

CONTRACT = 1


@hookimpl
def register_runtimes() -> list[RuntimeInfo]:
    """This machine."""
    return [RuntimeInfo(name="local", factory="llmengine_core.runtime_local:LocalRuntime")]


@hookimpl
def register_storages() -> list[StorageInfo]:
    """Web servers."""
    return [
        StorageInfo(
            name="web",
            factory="llmengine_core.web_storage:WebStorage",
            schemes=frozenset({"http", "https"}),
            writable=False,
            takes_policy=True,
        )
    ]
