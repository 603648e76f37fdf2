"""What a check gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ROOM_WANTED", "Finding"]

ROOM_WANTED = 1 << 30
"""Bytes of disk and of memory under which even a small model is short of room."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    level: Literal["ok", "advice", "broken"]
    message: str
    mend: str | None = None
    check: str = ""
