"""Somebody who wants to know what goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmengine_core.types.generation import FinishReason, Usage

__all__ = ["Observer", "RequestFinished", "RequestStarted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStarted:
    """A completion was accepted."""

    request_id: str
    model: str
    caller: str
    """Whose key it came with."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """C12: the caller's ``request_headers``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFinished:
    """A completion is over, one way or another."""

    request_id: str
    model: str
    finish_reason: FinishReason | None
    """None where it failed."""
    usage: Usage | None
    error: BaseException | None
    seconds: float


class Observer:
    """Overrides what it wants to hear. Called on the engine's loop: quick, and free of errors; one that
    raises is logged and otherwise ignored."""

    def request_started(self, event: RequestStarted) -> None:
        """A completion was accepted and is about to run."""

    def request_finished(self, event: RequestFinished) -> None:
        """A completion ended; called exactly once for each that started."""
