"""How far a pool of replicas scales, and how long it leaves a start alone that failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from llmengine_core.errors import LLMEngineError

__all__ = ["GIVE_UP_AFTER", "Bounds", "Failures", "Holder"]

FIRST_BACKOFF = 1.0
LAST_BACKOFF = 60.0
"""Seconds to leave a model alone after a start that failed; doubled at each further one."""
GIVE_UP_AFTER = 3
"""Starts that failed one after the other before the model is said to have failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far a pool scales."""

    min_workers: int = 0
    max_workers: int = 1
    per_worker: int = 2
    idle_seconds: float = 300.0
    start_seconds: float = 900.0
    queue_size: int = 1024


@dataclass(frozen=True, slots=True)
class Holder:
    """A model that has a lease on a pool."""

    bounds: Bounds
    on_health: Callable[[LLMEngineError | None], Coroutine[Any, Any, None]] | None = None
    """Told when starts fail again and again, and with None when one succeeds after that."""
    adapter: str | None = None
    """The adapter that it has on it."""


@dataclass(eq=False, slots=True)
class Failures:
    """Starts that failed in a row."""

    count: int = 0
    not_before: float = 0.0
    last: LLMEngineError | None = None

    def add(self, error: LLMEngineError) -> None:
        self.count += 1
        self.last = error
        self.not_before = time.monotonic() + min(LAST_BACKOFF, FIRST_BACKOFF * 2 ** (self.count - 1))
