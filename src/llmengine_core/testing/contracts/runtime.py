"""What every runtime promises."""

from __future__ import annotations

from llmengine_core.testing.laws import Contract

__all__ = ["RuntimeContract"]


class RuntimeContract(Contract):
    """See the module."""

    kind = "runtime"
