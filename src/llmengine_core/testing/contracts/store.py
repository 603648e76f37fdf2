"""What every store promises."""

from __future__ import annotations

from llmengine_core.testing.laws import Contract

__all__ = ["StoreContract"]


class StoreContract(Contract):
    """See the module."""

    kind = "store"
