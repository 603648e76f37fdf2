"""What every transform promises."""

from __future__ import annotations

from llmengine_core.testing.laws import Contract

__all__ = ["TransformContract"]


class TransformContract(Contract):
    """See the module."""

    kind = "transform"
