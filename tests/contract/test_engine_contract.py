"""Engines of several parts keep the laws of engines."""

from __future__ import annotations

from llmengine_core.testing import EngineContract


class TestEcho(EngineContract):
    """The echo backend on sqlite and a local disk."""

    model = "echo"
    plugins = ("llmengine_core.testing.echo",)


class TestInMemory(EngineContract):
    """The same with nothing on disk."""

    model = "echo"
    backend = "echo"
    plugins = ("llmengine_core.testing.echo", "llmengine_core.testing.memory")
    fields = {"database_url": "memory://{home}", "storage_url": "memory://{home}/objects"}  # noqa: RUF012
