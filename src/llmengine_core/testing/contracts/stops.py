"""Laws of sessions: stop sequences."""

from __future__ import annotations

from llmengine_core.testing.contracts.session import SessionGround

__all__ = ["StopLaws"]


class StopLaws(SessionGround):
    """See the module."""
