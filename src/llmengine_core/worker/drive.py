"""The thread that owns the engine: requests join and leave a batch between its steps."""

from __future__ import annotations

from collections import deque
from itertools import count
from queue import SimpleQueue
from typing import NoReturn

from llmengine_core.worker.asked import Asked
from llmengine_core.worker.connections import Connection
from llmengine_core.worker.contract import Engine, Order, Refused
from llmengine_core.worker.watchdog import Pulse
from llmengine_core.worker.wire import entry_of, frame

__all__ = ["Drive"]


class Drive:
    """Steps the engine for as long as somebody is in its batch. More than it takes wait in order.

    ``put`` may be called by any thread; what it was given is seen to before the next step.
    """

    def __init__(self, engine: Engine, pulse: Pulse) -> None:
        self._engine = engine
        self._room = engine.facts.max_concurrent
        self._pulse = pulse
        self._mail: SimpleQueue[tuple[Asked, tuple[int, ...]]] = SimpleQueue()
        self._numbers = count(1)
        self._batch: dict[int, Asked] = {}
        """Who has joined, by ``Order.id``."""
        self._waiting: deque[tuple[Asked, tuple[int, ...]]] = deque()
        self._changes: list[Asked] = []
        """Adapters to load and unload, in order."""

    def put(self, asked: Asked, tokens: tuple[int, ...] = ()) -> None:
        """Generate, or change an adapter; or let go of what has become unwanted."""
        self._mail.put((asked, tokens))

    def run(self) -> NoReturn:
        """For ever. An error that isn't a ``Refused`` is raised, and is the worker's end."""
        while True:
            while not self._batch or not self._mail.empty():
                self._pulse.end()
                self._sort(*self._mail.get())
                if self._mail.empty():
                    self._change_adapters()
                    self._admit()
            self._step()

    def _sort(self, asked: Asked, tokens: tuple[int, ...]) -> None:
        if asked.unwanted:
            self._leave(asked)
        elif asked.command.name != "generate":
            self._changes.append(asked)
        elif asked.adapter is not None and self._leaving(asked.adapter):
            asked.answer("refused", f"the adapter {asked.adapter!r} is being unloaded")
        else:
            self._waiting.append((asked, tokens))

    def _leave(self, asked: Asked) -> None:
        if asked.number:
            del self._batch[asked.number]
            self._pulse.begin("a request that leaves")
            self._engine.leave(asked.number)
            asked.number = 0

    def _admit(self) -> None:
        while self._waiting and len(self._batch) < self._room:
            asked, tokens = self._waiting.popleft()
            if asked.unwanted:
                continue
            number = next(self._numbers)
            self._pulse.begin("a request that joins")
            try:
                self._engine.join(Order(id=number, tokens=tokens, **asked.command.values))
            except Refused as error:
                asked.answer("refused", str(error))
            else:
                asked.number = number
                self._batch[number] = asked

    def _step(self) -> None:
        self._pulse.begin("a step")
        entries: dict[Connection, list[tuple[object, ...]]] = {}
        over = False
        for emitted in self._engine.step():
            asked = self._batch[emitted.order]
            entries.setdefault(asked.caller, []).append(entry_of(asked.command.id, emitted))
            if emitted.finish is not None:
                over = True
                asked.number = 0
                asked.over()
                del self._batch[emitted.order]
        for caller, told in entries.items():
            caller.send(frame("step", told))
        if over:
            self._change_adapters()
            self._admit()

    # -- adapters

    def _change_adapters(self) -> None:
        """Make the changes that nothing stands in the way of: an earlier one of the same name, or who uses it."""
        left: list[Asked] = []
        for asked in self._changes:
            values = asked.command.values
            name, unloads = values["name"], asked.command.name == "unload_adapter"
            if any(name == each.command.values["name"] for each in left) or (unloads and self._used(name)):
                left.append(asked)
                continue
            self._pulse.begin(f"the adapter {name!r} that is {'un' if unloads else ''}loaded")
            try:
                if unloads:
                    self._engine.unload_adapter(name)
                else:
                    self._engine.load_adapter(name, values["path"])
            except Refused as error:
                asked.answer("refused", str(error))
            else:
                asked.answer("done")
        self._changes = left

    def _used(self, name: str) -> bool:
        who = [*self._batch.values(), *(asked for asked, _ in self._waiting)]
        return any(asked.adapter == name and not asked.unwanted for asked in who)

    def _leaving(self, name: str) -> bool:
        return any(
            each.command.name == "unload_adapter" and each.command.values["name"] == name
            for each in self._changes
        )
