"""Laws of sessions: the shape of an answer: its end, its text, its counts."""

from __future__ import annotations

from llmengine_core.testing.contracts.session import SessionGround

__all__ = ["AnswerLaws"]


class AnswerLaws(SessionGround):
    """See the module."""
