"""What every observer promises."""

from __future__ import annotations

from llmengine_core.testing.laws import Contract

__all__ = ["ObserverContract"]


class ObserverContract(Contract):
    """See the module."""

    kind = "observer"
