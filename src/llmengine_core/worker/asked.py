"""One thing that a worker was asked for, on its way through the threads."""

from __future__ import annotations

from llmengine_core.worker.connections import Connection
from llmengine_core.worker.wire import Command, frame

__all__ = ["Asked"]


class Asked:
    """A command, whom to answer, and whether anybody still wants it."""

    __slots__ = ("_live", "caller", "command", "number", "unwanted")

    def __init__(self, command: Command, caller: Connection, live: dict[int, Asked]) -> None:
        """``live`` holds, by id, all that the caller is to be answered."""
        self.command = command
        self.caller = caller
        self.number = 0
        """``Order.id`` in the batch, 0 where it isn't in it."""
        self.unwanted = False
        """Whether it was cancelled, or the caller is gone."""
        self._live = live
        live[command.id] = self

    @property
    def adapter(self) -> str | None:
        """The adapter that it uses."""
        name: str | None = self.command.values.get("adapter")
        return name

    def over(self) -> None:
        """Nothing more is to be told."""
        self._live.pop(self.command.id, None)

    def tell(self, kind: str, value: object) -> None:
        """Tell the caller something in between."""
        self.caller.send(frame(kind, self.command.id, value))

    def answer(self, kind: str, value: object = None) -> None:
        """Tell the caller the last thing that there is to be told."""
        self.over()
        self.tell(kind, value)
