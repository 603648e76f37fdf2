"""The local runtime keeps the laws of runtimes."""

from __future__ import annotations

from llmengine_core.testing import RuntimeContract


class TestLocalRuntime(RuntimeContract):
    runtime = "local"
