"""What every guided decoder promises."""

from __future__ import annotations

from llmengine_core.testing.laws import Contract

__all__ = ["GuidedDecoderContract"]


class GuidedDecoderContract(Contract):
    """See the module."""

    kind = "guided"
