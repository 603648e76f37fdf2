"""An observer that counts: how many requests run, and how those that are over ended."""

from __future__ import annotations

from collections import Counter

from llmengine_core.interfaces.observer import Observer, RequestFinished, RequestStarted

counts: Counter[str] = Counter()
"""Requests of this process: "running", and "stop", "length", "cancelled" or "failed" of those that are over."""


class SampleObserver(Observer):
    """Counts into ``counts``. It is called on the engine's loop: be quick, and leave what takes time to a queue."""

    def request_started(self, event: RequestStarted) -> None:
        counts["running"] += 1

    def request_finished(self, event: RequestFinished) -> None:
        counts["running"] -= 1
        counts[event.finish_reason or "failed"] += 1
