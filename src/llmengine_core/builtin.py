"""What the core registers with itself, by the same hooks as everybody else."""

from __future__ import annotations

from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.declarations import RuntimeInfo

CONTRACT = 1


@hookimpl
def register_runtimes() -> list[RuntimeInfo]:
    """This machine."""
    return [RuntimeInfo(name="local", factory="llmengine_core.runtime_local:LocalRuntime")]
