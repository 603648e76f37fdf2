"""One connection to a server of objects: large contents out, and answers that have no content."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llmengine_core.http.connection import Connection

__all__ = ["STALL", "Line"]

STALL = 30.0
"""Seconds in which at least something must go out or come in."""
SLICE = 256 << 10
"""Bytes that are handed to the socket at once."""


class Line(Connection):
    """A connection on which contents of many MiB go out as fast as the server takes them."""

    def __init__(self, address: str, on_end: Callable[[Connection], None]) -> None:
        super().__init__(address, on_end)
        self._full = False
        """Whether the socket takes no more for now."""
        self._without_content = False
        self._unsent = False
        """Whether an answer came before all was sent: what follows would be taken for the rest."""

    async def exchange(
        self, head: bytes, content: bytes | memoryview, *, without_content: bool = False, stall: float = STALL
    ) -> None:
        """Send a request, and wait for the head of its answer.

        ``without_content`` says that the answer has a head only, whatever size that tells. Raises ``TimeoutError``
        where nothing goes on for ``stall`` seconds.
        """
        self.status, self.headers, self.answered = 0, {}, False
        self._without_content = without_content
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(stall) as limit:
            if self._state == "idle":
                self._state = "head"
                if len(content) <= SLICE:
                    self._transport.write(head + content if content else head)
                else:
                    self._transport.write(head)
                    view = memoryview(content)
                    for at in range(0, len(view), SLICE):
                        while self._full and self._state == "head":
                            await self._wait()
                        if self._state != "head":
                            self._unsent = True
                            break
                        self._transport.write(view[at : at + SLICE])
                        limit.reschedule(loop.time() + stall)
            while self._state == "head":
                await self._wait()
        if not self.status:
            raise self._error or self._lost("was closed")

    @property
    def reusable(self) -> bool:
        """Whether another request may follow."""
        return super().reusable and not self._unsent and not self._full

    @property
    def unused(self) -> bool:
        """Whether it is as good as new: no answer is on its way."""
        return self._state == "idle"

    # -- called by the loop

    def pause_writing(self) -> None:
        """The socket is full."""
        self._full = True

    def resume_writing(self) -> None:
        """The socket takes more."""
        self._full = False
        self._wake()

    # -- called by the parser

    def on_headers_complete(self) -> None:
        """The head is complete."""
        super().on_headers_complete()
        if self._without_content and self._state == "body":
            self._keep_alive = self._parser.should_keep_alive()
            self._parser = type(self._parser)(self)  # this one would go on to wait for content
            self._state = "idle"
