"""Laws of sessions: prompts that are conversations or token ids."""

from __future__ import annotations

from llmengine_core.testing.contracts.session import SessionGround

__all__ = ["PromptLaws"]


class PromptLaws(SessionGround):
    """See the module."""
