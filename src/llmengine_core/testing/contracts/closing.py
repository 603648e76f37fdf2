"""Laws of sessions: the end of a session."""

from __future__ import annotations

from llmengine_core.testing.contracts.session import SessionGround

__all__ = ["ClosingLaws"]


class ClosingLaws(SessionGround):
    """See the module."""
