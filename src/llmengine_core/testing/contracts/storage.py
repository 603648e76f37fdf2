"""What every storage promises."""

from __future__ import annotations

from llmengine_core.testing.laws import Contract

__all__ = ["StorageContract"]


class StorageContract(Contract):
    """See the module."""

    kind = "storage"
