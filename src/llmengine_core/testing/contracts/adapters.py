"""Laws of sessions: adapters on a shared base."""

from __future__ import annotations

from llmengine_core.testing.contracts.session import SessionGround

__all__ = ["AdapterLaws"]


class AdapterLaws(SessionGround):
    """See the module."""
