"""Engines of several parts keep the laws of engines."""

from __future__ import annotations

from llmengine_core.testing import EngineContract


class TestEcho(EngineContract):
    """The echo backend on sqlite and a local disk."""

    model = "echo"
    plugins = ("llmengine_core.testing.echo",)
