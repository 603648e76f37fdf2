"""Ends a worker that hangs, with where it hangs as the reason.

Each thread that works says what it does and since when. The thread that looks does so about once a second, and
each time winds up an alarm of the interpreter's own, which goes off where nothing of Python can run any more: where
a library hangs and holds the interpreter's lock.
"""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Sequence

from llmengine_core.worker.ending import end, frames_of

__all__ = ["Pulse", "Watchdog"]

STDERR = 2
MARGIN = 2.0
"""Seconds that the alarm goes off after we should have seen it ourselves."""


class Pulse:
    """What one thread is doing."""

    __slots__ = ("doing", "since", "thread")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        """Of whoever made it, until it is said otherwise."""
        self.doing = ""
        """"" while it waits for work."""
        self.since = 0.0

    def begin(self, doing: str) -> None:
        """It starts something, or has come a step further with it."""
        self.since = time.monotonic()
        self.doing = doing

    def end(self) -> None:
        """It has come back."""
        self.doing = ""


class Watchdog:
    """Looks after some pulses. All methods belong to the one thread that looks."""

    def __init__(self, limit: float, pulses: Sequence[Pulse]) -> None:
        """``limit`` is how many seconds anything may take."""
        self.interval = min(1.0, limit / 4)
        """Seconds between two looks, at the most."""
        self._limit = limit
        self._pulses = pulses
        self._wound = 0.0
        """When the alarm was last wound up; 0 where it isn't."""

    def look(self) -> None:
        """End the process if something takes too long."""
        now = time.monotonic()
        if now - self._wound < self.interval:
            return
        for pulse in self._pulses:
            if pulse.doing and now - pulse.since > self._limit:
                _tell(pulse, now - pulse.since)
        self._wound = now
        faulthandler.dump_traceback_later(self._limit + MARGIN, exit=True, file=STDERR)

    def rest(self) -> None:
        """Nobody works."""
        if self._wound:
            self._wound = 0.0
            faulthandler.cancel_dump_traceback_later()


def _tell(pulse: Pulse, seconds: float) -> None:
    doing, places = pulse.doing, frames_of(pulse.thread)
    if pulse.doing:  # it has not just come back
        where = "".join(f"\n  at {place}" for place in places)
        end(f"it hung: {doing} had not come back after {seconds:.0f} s{where}")
