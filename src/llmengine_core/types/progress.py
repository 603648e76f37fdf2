"""News of long work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["OnProgress", "Progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one piece of long work has come."""

    subject: str
    """What is worked on, for people: a model's or a file's name."""
    phase: str
    """"fetch", "verify", "transform", "load", "upload", "download", or a word of the plugin's own."""
    done: float
    total: float | None = None
    """None where it isn't known."""
    unit: str = ""
    """"bytes" or "" for a fraction of 1."""


OnProgress: TypeAlias = Callable[[Progress], None]
"""Called from the loop that does the work; must be quick and must not raise."""
