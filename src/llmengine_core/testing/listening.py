"""A plugin with two observers, for the laws of an engine: one that notes what it hears, one that always raises."""

from __future__ import annotations

from typing import ClassVar

from llmengine_core.hookspecs import hookimpl
from llmengine_core.interfaces.observer import Observer, RequestFinished, RequestStarted
from llmengine_core.types.declarations import ObserverInfo

__all__ = ["CONTRACT", "Listener", "Raising"]

CONTRACT = 1
CAREFUL = 1 << 30
"""A priority above all others, so that it hears first."""


class Listener(Observer):
    """Notes every event, in order."""

    heard: ClassVar[list[RequestStarted | RequestFinished]] = []
    """By all that were made."""

    def request_started(self, event: RequestStarted) -> None:
        """Note it."""
        self.heard.append(event)

    def request_finished(self, event: RequestFinished) -> None:
        """Note it."""
        self.heard.append(event)


class Raising(Observer):
    """Raises, whatever it hears."""

    def request_started(self, event: RequestStarted) -> None:
        """Fail."""
        raise RuntimeError("an observer that always raises was told of a start")

    def request_finished(self, event: RequestFinished) -> None:
        """Fail."""
        raise RuntimeError("an observer that always raises was told of an end")


@hookimpl
def register_observers() -> list[ObserverInfo]:
    """Both; the one that raises hears first."""
    home = "llmengine_core.testing.listening"
    return [
        ObserverInfo(name="contract_raising", factory=f"{home}:Raising", priority=CAREFUL),
        ObserverInfo(name="contract_listener", factory=f"{home}:Listener"),
    ]
