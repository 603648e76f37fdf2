"""Laws of sessions: requests that are given up, or run out of time."""

from __future__ import annotations

from llmengine_core.testing.contracts.session import SessionGround

__all__ = ["CancellingLaws"]


class CancellingLaws(SessionGround):
    """See the module."""
