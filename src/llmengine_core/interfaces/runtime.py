"""Where replicas run."""

from __future__ import annotations

from abc import ABC, abstractmethod

from llmengine_core.types.launch import Endpoint, Exit, LaunchSpec
from llmengine_core.types.progress import OnProgress

__all__ = ["Replica", "Runtime"]


class Replica(ABC):
    """One started engine, ready to answer."""

    @property
    @abstractmethod
    def endpoint(self) -> Endpoint:
        """Where it answers."""

    @abstractmethod
    async def wait(self) -> Exit:
        """How it ended; returns once it has. Any number of callers; safe to cancel."""

    @abstractmethod
    async def aclose(self) -> None:
        """End it and everything it started; returns when nothing of it is left, within 10 s. Idempotent."""


class Runtime(ABC):
    """Starts engines. The only thing that does."""

    @abstractmethod
    async def start(self, spec: LaunchSpec, *, on_progress: OnProgress | None = None) -> Replica:
        """Start one and wait until it is ready.

        Must be called from the loop that will outlive the replica. A child that ends before it is ready is
        a ``ServerError`` whose message carries the child's own last words. Cancelling the call ends the
        child. What was started is never left behind: not when the call is cancelled, nor when this process
        is killed.
        """

    @abstractmethod
    def close_now(self) -> None:
        """Let go of every replica without waiting, awaiting or starting a thread: for interpreter exit."""

    @abstractmethod
    async def aclose(self) -> None:
        """End every replica. Idempotent."""
