"""Laws of sessions: log probabilities."""

from __future__ import annotations

from llmengine_core.testing.contracts.session import SessionGround

__all__ = ["LogprobLaws"]


class LogprobLaws(SessionGround):
    """See the module."""
