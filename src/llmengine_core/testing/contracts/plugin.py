"""What every plugin promises."""

from __future__ import annotations

from llmengine_core.testing.laws import Contract

__all__ = ["PluginContract"]


class PluginContract(Contract):
    """See the module."""

    kind = "plugin"
