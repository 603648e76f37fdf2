"""Observers that are wrong."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from tests.contract.mutants import Mutant

from llmengine_core.interfaces.observer import Observer, RequestFinished, RequestStarted
from llmengine_core.testing import ObserverContract


class Counting(Observer):
    """A right one: how many run, and how many tokens there were."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.tokens = 0

    def request_started(self, event: RequestStarted) -> None:
        self.running.add(event.request_id)

    def request_finished(self, event: RequestFinished) -> None:
        self.running.discard(event.request_id)
        self.tokens += event.usage.completion_tokens if event.usage is not None else 0


class ObserverOf(ObserverContract):
    observer = "counting"
    made_of: ClassVar[type[Any]] = Counting

    @classmethod
    def made(cls) -> Observer:
        found: Observer = cls.made_of()
        return found


class NeedsUsage(Counting):
    def request_finished(self, event: RequestFinished) -> None:
        self.tokens += event.usage.completion_tokens  # type: ignore[union-attr]


class OneAtATime(Counting):
    def request_finished(self, event: RequestFinished) -> None:
        (running,) = self.running
        self.running.remove(running)


class Formats(Counting):
    def request_finished(self, event: RequestFinished) -> None:
        if event.error is not None:
            print(str(event.error) % (), end="")


class Asynchronous(Counting):
    async def request_started(self, event: RequestStarted) -> None:  # type: ignore[override]
        super().request_started(event)


class Returns(Counting):
    def request_finished(self, event: RequestFinished) -> None:
        return event.request_id  # type: ignore[return-value]


class NoObserver:
    def request_started(self, event: RequestStarted) -> None: ...

    def request_finished(self, event: RequestFinished) -> None: ...


class Redacts(Counting):
    def request_started(self, event: RequestStarted) -> None:
        event.headers.clear()  # type: ignore[attr-defined]


class Posts(Counting):
    def request_finished(self, event: RequestFinished) -> None:
        time.sleep(0.06)


class Recounts(Counting):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def request_finished(self, event: RequestFinished) -> None:
        self.seen += 1
        if self.seen > 190:
            time.sleep(0.06)


class Singleton(Counting):
    running: set[str] = set()  # noqa: RUF012

    def __init__(self) -> None:
        self.tokens = 0

    def request_finished(self, event: RequestFinished) -> None:
        self.running.remove(event.request_id)


def mutant(name: str, bug: str, made_of: type[Any], *killers: str, shipped: str = "") -> Mutant:
    about = {"subject": name, "made_of": made_of}
    return Mutant(name, bug, type(f"Mutant_{name}", (ObserverOf,), about), killers, shipped)


EVERY = "test_it_takes_every_event_without_raising"
MUTANTS: list[Mutant] = [
    mutant("needs_usage", "it counts tokens of requests that failed, which have none", NeedsUsage, EVERY),
    mutant("one_at_a_time", "it takes one request to run at a time", OneAtATime, EVERY),
    mutant("formats", "it takes an error's message for a format", Formats, EVERY),
    mutant("returns", "it returns something", Returns, EVERY),
    mutant(
        "asynchronous", "its methods are coroutines, which never run", Asynchronous, "test_it_is_an_observer"
    ),
    mutant("no_observer", "it has the methods and isn't an Observer", NoObserver, "test_it_is_an_observer"),
    mutant("redacts", "it clears the headers for all", Redacts, "test_it_changes_nothing_that_it_is_told"),
    mutant("posts", "it waits for a server each time", Posts, "test_it_is_quick"),
    mutant("recounts", "it takes longer the more requests there were", Recounts, "test_it_stays_quick"),
    mutant("singleton", "what it keeps is every engine's", Singleton, "test_two_of_them_do_not_meet"),
]
