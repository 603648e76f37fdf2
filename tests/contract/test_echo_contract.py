"""The echo keeps every law of backends: a distribution that is a point mass is one all the same."""

from __future__ import annotations

from llmengine_core.testing.contracts.sessions.contract import BackendContract


class TestEcho(BackendContract):
    """Opened as the core opens any backend."""

    subject = backend = model = "echo"
    plugin = "llmengine_core.testing.echo"
