"""Laws of sessions: how tokens are chosen: greedy, seeds, cuts, penalties."""

from __future__ import annotations

from llmengine_core.testing.contracts.session import SessionGround

__all__ = ["SamplingLaws"]


class SamplingLaws(SessionGround):
    """See the module."""
