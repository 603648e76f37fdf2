"""Laws of sessions: what a session says of itself, and what it refuses."""

from __future__ import annotations

from llmengine_core.testing.contracts.session import SessionGround

__all__ = ["FactLaws"]


class FactLaws(SessionGround):
    """See the module."""
