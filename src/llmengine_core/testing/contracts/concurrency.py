"""Laws of sessions: requests that run at once."""

from __future__ import annotations

from llmengine_core.testing.contracts.session import SessionGround

__all__ = ["ConcurrencyLaws"]


class ConcurrencyLaws(SessionGround):
    """See the module."""
