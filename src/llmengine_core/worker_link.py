"""The connection to a worker: many requests over one socket, with one line for all tokens of a step."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import Any, Self, TypeAlias

from llmengine_core.errors import BadRequestError, LLMEngineError, ServerError
from llmengine_core.http.connection import connect_unix
from llmengine_core.worker.wire import LONGEST, Broken, Lines, frame

__all__ = ["Answer", "Entry", "LinkLost", "WorkerLink"]

Entry: TypeAlias = list[Any]
"""One token, as ``llmengine_core.worker.wire.entry_of`` words it."""
RECEIVED = 1 << 16
"""Bytes that are received at a time."""


class LinkLost(Exception):
    """The worker is gone, or can't be understood; says which."""


class Answer:
    """What comes back to one "generate", for one reader. ``cancel`` it unless it was read to its end."""

    __slots__ = ("_entries", "_error", "_id", "_link", "_prompt_tokens", "_waiter")

    def __init__(self, link: WorkerLink, id: int) -> None:  # noqa: A002 - as the protocol calls it
        self._link = link
        self._id = id
        self._prompt_tokens: int | None = None
        self._entries: list[Entry] = []
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def prompt_tokens(self) -> int:
        """How many tokens the prompt has; returns once it was read into tokens."""
        while self._prompt_tokens is None:
            await self._wait()
        return self._prompt_tokens

    async def entries(self) -> list[Entry]:
        """All tokens that have come since the last call, at least one."""
        while not self._entries:
            await self._wait()
        entries, self._entries = self._entries, []
        return entries

    def cancel(self) -> None:
        """Have the worker drop the request, if it hasn't ended. Sends that at once and waits for nothing."""
        self._link._forget(self._id)

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._link.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # -- called by the link

    def begin(self, prompt_tokens: int) -> None:
        """The prompt was read into tokens."""
        self._prompt_tokens = prompt_tokens
        self._wake()

    def add(self, entry: Entry) -> None:
        """A token has come."""
        self._entries.append(entry)
        self._wake()

    def fail(self, error: Exception) -> None:
        """No more will come; what has come is read first."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class WorkerLink(asyncio.BufferedProtocol):
    """One worker, asked from one event loop. What was asked of a worker that is lost raises ``LinkLost``."""

    def __init__(self) -> None:
        """Use ``open``."""
        self.loop = asyncio.get_running_loop()
        self._ids = count(1)
        self._answers: dict[int, Answer] = {}
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._welcome: asyncio.Future[None] = self.loop.create_future()
        self._gone: asyncio.Future[None] = self.loop.create_future()
        self._lost: LinkLost | None = None
        self._lines = Lines()
        self._buffer = memoryview(bytearray(RECEIVED))

    @classmethod
    async def open(cls, address: str, key: str) -> Self:
        """A link to the worker that listens on ``address``, "unix:/path". Raises ``LinkLost``."""
        path = address.removeprefix("unix:")
        try:
            sock = await connect_unix(path)
        except OSError as error:
            raise LinkLost(f"can't connect to {path}: {error.strerror or error}") from error
        _, link = await asyncio.get_running_loop().create_unix_connection(cls, sock=sock)
        link._transport.write(key.encode() + b"\n")
        try:
            await link._welcome
        except BaseException:
            await link.aclose()
            raise
        return link

    def generate(self, prompt: object, values: Mapping[str, object]) -> Answer:
        """Begin an answer to a prompt, both as ``llmengine_core.worker.wire`` words them."""
        id = next(self._ids)  # noqa: A001
        answer = self._answers[id] = Answer(self, id)
        try:
            self._send("generate", id, prompt, values)
        except BaseException:
            del self._answers[id]
            raise
        return answer

    async def ask(self, command: str, *arguments: object) -> Any:
        """The worker's answer to one of the other commands."""
        id = next(self._ids)  # noqa: A001
        answer = self._asked[id] = self.loop.create_future()
        try:
            self._send(command, id, *arguments)
            return await answer
        finally:
            if self._asked.pop(id, None) is not None and self._lost is None:
                self._send("cancel", id)

    async def aclose(self) -> None:
        """Drop the connection. Idempotent."""
        self._end(LinkLost("the connection was closed"))
        with suppress(OSError):
            # Closing alone would not reach the worker while a process forked off us holds a copy.
            self._transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._transport.abort()
        await asyncio.wait([self._gone])

    def _send(self, *parts: object) -> None:
        if self._lost is not None:
            raise self._lost
        data = frame(*parts)
        if len(data) > LONGEST:
            raise BadRequestError(
                f"the request has {len(data)} bytes as it travels to the engine; {LONGEST} are allowed; shorten it"
            )
        self._transport.write(data)

    def _forget(self, id: int) -> None:  # noqa: A002
        if self._answers.pop(id, None) is not None and self._lost is None:
            self._send("cancel", id)

    def _end(self, lost: LinkLost) -> None:
        if self._lost is not None:
            return
        self._lost = lost
        for answer in self._answers.values():
            answer.fail(lost)
        for waiter in (*self._asked.values(), self._welcome):
            if not waiter.done():
                waiter.set_exception(lost)
        self._welcome.cancelled() or self._welcome.exception()  # somebody may have asked; nobody must
        self._answers.clear()

    # -- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to put what comes next."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Some bytes have come."""
        try:
            for line in self._lines.feed(self._buffer[:nbytes]):
                self._take(json.loads(line))
        except (Broken, ValueError, LookupError, TypeError) as error:
            self._end(LinkLost(f"it sent what can't be understood: {error!r}"))
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone, on whoever's wish."""
        self._end(LinkLost("the connection ended"))
        if not self._gone.done():
            self._gone.set_result(None)

    def _take(self, told: list[Any]) -> None:
        answers = self._answers
        kind = told[0]
        if kind == "step":
            for entry in told[1]:
                if (answer := answers.get(entry[0])) is not None:  # else it was cancelled meanwhile
                    answer.add(entry)
                    if len(entry) > 5 and entry[5] is not None:
                        del answers[entry[0]]
        elif kind == "begun":
            if (answer := answers.get(told[1])) is not None:
                answer.begin(told[2])
        elif kind == "done":
            self._settle(told[1], told[2], None)
        elif kind == "refused":
            self._settle(told[1], None, BadRequestError(told[2]))
        elif kind == "failed":
            self._settle(told[1], None, ServerError(told[2]))
        elif kind == "welcome":
            self._welcome.set_result(None)
        elif kind == "broken":
            self._end(LinkLost(told[1]))
        else:
            raise Broken(f"an unknown kind of line, {kind!r}")

    def _settle(self, id: int, value: object, error: LLMEngineError | None) -> None:  # noqa: A002
        if (answer := self._answers.pop(id, None)) is not None:
            answer.fail(error or LinkLost("it is done with a request that it has not ended"))
        elif (waiter := self._asked.pop(id, None)) is not None and not waiter.done():
            if error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(value)
