"""Observers that are right keep the laws: one that does nothing, one that counts, one with a thread of its own."""

from __future__ import annotations

import queue
import threading
from typing import ClassVar

from tests.contract.mutants.observer import Counting, ObserverOf

from llmengine_core.interfaces.observer import Observer, RequestFinished, RequestStarted


class Exporting(Observer):
    """Hands everything to a thread, and drops what doesn't fit."""

    def __init__(self) -> None:
        self.news: queue.Queue[object] = queue.Queue(maxsize=10)
        threading.Thread(target=self.export, daemon=True).start()

    def request_started(self, event: RequestStarted) -> None:
        self.put(event)

    def request_finished(self, event: RequestFinished) -> None:
        self.put(event)

    def put(self, event: object) -> None:
        try:
            self.news.put_nowait(event)
        except queue.Full:
            return

    def export(self) -> None:
        while self.news.get() is not None:
            pass


class TestCounting(ObserverOf):
    made_of = Counting


class TestNothing(ObserverOf):
    made_of: ClassVar[type[Observer]] = Observer


class TestExporting(ObserverOf):
    made_of: ClassVar[type[Observer]] = Exporting
