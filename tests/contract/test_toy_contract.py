"""The toy keeps every law: what mutants are judged against."""

from __future__ import annotations

from tests.contract.toy_contract import ADAPTERS, ToyContract

from llmengine_core.testing.contracts.sessions.contract import BackendContract


class TestToy(ToyContract):
    """All of it declared, constraints enforced by a checker."""


class TestToyBackend(BackendContract):
    """Opened as the core opens any backend; no constraints declared."""

    subject = backend = model = "toy"
    plugin = "llmengine_core.testing.toy"
    adapters = ADAPTERS
