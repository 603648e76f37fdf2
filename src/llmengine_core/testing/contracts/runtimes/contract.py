"""What every runtime promises."""

from __future__ import annotations

from llmengine_core.testing.contracts.runtimes.ending import EndingLaws
from llmengine_core.testing.contracts.runtimes.secrets import SecretLaws
from llmengine_core.testing.contracts.runtimes.starting import StartingLaws

__all__ = ["RuntimeContract"]


class RuntimeContract(StartingLaws, SecretLaws, EndingLaws):
    """A runtime by its name: what it starts, what it shows of that, and what it leaves behind."""
