"""What every quantizer promises."""

from __future__ import annotations

from llmengine_core.testing.laws import Contract

__all__ = ["QuantizerContract"]


class QuantizerContract(Contract):
    """See the module."""

    kind = "quantizer"
