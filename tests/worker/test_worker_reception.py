"""What a worker's reception does with lines that come while the other threads are at work."""

from __future__ import annotations

import os
import socket

from llmengine_core.worker.asked import Asked
from llmengine_core.worker.connections import Connection
from llmengine_core.worker.serve import Reception
from llmengine_core.worker.watchdog import Watchdog
from llmengine_core.worker.wire import Command


class Answered(dict[int, Asked]):
    """Another thread takes out what it answers as soon as anybody has looked whether it is there."""

    def __contains__(self, key: object) -> bool:
        there = super().__contains__(key)
        self.clear()
        return there


def test_c10_a_cancel_that_meets_the_answer_harms_nobody() -> None:
    """The drive and the encoder answer whenever they like: to look first, and then to take, was the worker's end."""
    stdin, ours = os.pipe()
    one, other = socket.socketpair()
    with one, other:
        caller = Connection(one, lambda _: None)
        reception = Reception(stdin, Watchdog(10.0, []))
        reception._live[caller] = live = Answered()
        asked = Asked(Command(name="count", id=7, prompt="x", values={}), caller, live)
        reception._on_line(caller, b'["cancel",7]')
        assert asked.unwanted
        reception._on_line(caller, b'["cancel",7]')
    os.close(stdin)
    os.close(ours)
