"""A small backend with real processes keeps every law of lifecycles; one that starts nothing has few to keep."""

from __future__ import annotations

from tests.contract.child_backend import ChildContract

from llmengine_core.testing.contracts.backends.lifecycle import BackendLifecycleContract


class TestChild(ChildContract):
    """It does as it should."""


class TestToyLifecycle(BackendLifecycleContract):
    """Somebody else runs its server."""

    subject = backend = model = "toy"
    plugin = "llmengine_core.testing.toy"
