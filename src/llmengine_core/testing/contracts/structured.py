"""Laws of sessions: constraints on the text."""

from __future__ import annotations

from llmengine_core.testing.contracts.session import SessionGround

__all__ = ["StructuredLaws"]


class StructuredLaws(SessionGround):
    """See the module."""
