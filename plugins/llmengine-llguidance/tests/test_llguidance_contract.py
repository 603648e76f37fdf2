"""The decoder keeps what guided decoders promise."""

from __future__ import annotations

from llmengine_core.testing.contracts.guided.contract import GuidedDecoderContract


class TestLLGuidance(GuidedDecoderContract):
    decoder = "llguidance"
