"""What this plugin registers with llmengine."""

from __future__ import annotations

__all__ = ["CONTRACT"]

CONTRACT = 1
