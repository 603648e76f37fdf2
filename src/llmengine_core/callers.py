"""Who calls, told apart by API key without keeping the key."""

from __future__ import annotations

import hashlib

__all__ = ["ROOT", "caller_of"]

ROOT = "root"
"""Who calls without a key."""


def caller_of(api_key: str | None) -> str:
    """The name that a key's holder has in records: 24 hex digits of its SHA-256, or ``ROOT`` without one."""
    if not api_key:
        return ROOT
    return f"key-{hashlib.sha256(api_key.encode()).hexdigest()[:24]}"
