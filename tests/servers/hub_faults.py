"""What the hub on this machine was asked, and what is to go wrong with its answers."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Asked", "Fault"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as it came."""

    server: str
    """ "hub" or "store"."""
    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""


@dataclass
class Fault:
    """What is to go wrong with the next answers, where ``on`` is found in "SERVER METHOD PATH"."""

    on: str
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"broken"
    """Of an answer with ``status``."""
    cut_after: int | None = None
    """Bytes of the body, after which the connection ends."""
    stall_after: int | None = None
    """Bytes of the body, after which nothing comes until the server ends."""
    wrong: bool = False
    """The last byte of the body is another."""
    stalled: threading.Event = field(default_factory=threading.Event)
    """Set once it has stalled."""
