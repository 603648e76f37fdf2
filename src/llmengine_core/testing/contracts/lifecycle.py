"""What every lifecycle promises."""

from __future__ import annotations

from llmengine_core.testing.laws import Contract

__all__ = ["BackendLifecycleContract"]


class BackendLifecycleContract(Contract):
    """See the module."""

    kind = "lifecycle"
