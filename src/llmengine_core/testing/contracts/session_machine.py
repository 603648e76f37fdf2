"""Laws of sessions: any program of calls."""

from __future__ import annotations

from llmengine_core.testing.contracts.session import SessionGround

__all__ = ["ProgramLaws"]


class ProgramLaws(SessionGround):
    """See the module."""
