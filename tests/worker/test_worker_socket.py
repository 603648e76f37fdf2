"""Whoever connects to a worker: nothing without the key, and nothing that is sent harms anybody else."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.worker.toy_backend import ToyBackend, Worker, deployment, working

from llmengine_core.errors import ServerError
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.worker.connections import MOST_UNREAD, Connection

VALUES = {
    "max_tokens": 3, "temperature": 0.0, "top_k": None, "top_p": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0, "logprobs": False, "seed": None, "grammar": None, "adapter": None,
}  # fmt: skip


@pytest.fixture(scope="module")
async def worker(runtime: LocalRuntime, bare: str) -> AsyncIterator[Worker]:
    """One that still answers at the end."""
    async with working(runtime, python=bare) as worker:
        yield worker
        assert (await worker.complete("once")).usage.completion_tokens == 16


class Caller:
    """A connection that isn't ours."""

    def __init__(self, worker: Worker) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(worker.replica.endpoint.address.removeprefix("unix:"))
        self.socket.settimeout(20)

    def say(self, *lines: object) -> None:
        self.socket.sendall(b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hear(self) -> list[list[object]]:
        """All that comes until the worker hangs up."""
        data = b""
        with suppress(ConnectionError):
            while more := self.socket.recv(1 << 16):
                data += more
        return [json.loads(line) for line in data.splitlines()]

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def caller(worker: Worker) -> Iterator[Caller]:
    with closing(Caller(worker)) as caller:
        yield caller


@pytest.fixture
async def known(worker: Worker, caller: Caller) -> Caller:
    await introduced(worker, caller)
    return caller


async def introduced(worker: Worker, caller: Caller) -> None:
    caller.send(worker.replica.endpoint.key.encode() + b"\n")
    assert await asyncio.to_thread(caller.socket.recv, 100) == b'["welcome"]\n'


async def test_the_wrong_key_is_an_error(worker: Worker) -> None:
    endpoint = replace(worker.replica.endpoint, key="0" * 32)
    with pytest.raises(ServerError, match="toy's worker can't be spoken to: the connection ended"):
        await ToyBackend().connect(endpoint, deployment())


async def test_nobody_there_is_an_error(worker: Worker) -> None:
    endpoint = replace(worker.replica.endpoint, address="unix:/nowhere.sock")
    with pytest.raises(ServerError, match=r"can't connect to /nowhere\.sock: No such file"):
        await ToyBackend().connect(endpoint, deployment())


async def test_only_its_user_can_connect(worker: Worker) -> None:
    path = Path(worker.replica.endpoint.address.removeprefix("unix:"))
    status = await asyncio.to_thread(path.stat)
    assert status.st_mode & 0o777 == 0o600


@given(data=st.binary(max_size=3000))
async def test_without_the_key_one_gets_nothing(worker: Worker, data: bytes) -> None:
    with closing(Caller(worker)) as caller:
        with suppress(ConnectionError):  # it has heard enough
            caller.send(data + b"\n" + b'["count",1,"x"]\n')
        assert await asyncio.to_thread(caller.hear) == []


async def test_a_key_without_an_end_is_not_waited_for_longer_than_a_key_is(caller: Caller) -> None:
    caller.send(b"0" * 2000)
    assert await asyncio.to_thread(caller.hear) == []


async def test_those_who_say_nothing_do_not_fill_the_place(worker: Worker) -> None:
    with ExitStack() as stack:
        callers = [stack.enter_context(closing(Caller(worker))) for _ in range(100)]
        assert await asyncio.to_thread(callers[0].hear) == []  # it had to make room
        async with await ToyBackend().connect(worker.replica.endpoint, deployment()):
            pass


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"garbage", "a line is no JSON"),
        (b"", "a line is no JSON"),
        (b"\xff\xfe", "a line is no JSON"),
        (b"[" * 100_000, "a line is no JSON"),
        (b"{}", "a line is no command"),
        (b'["shut down"]', "a line is no command"),
        (b'["count",1]', "a line is no command"),
        (b'["count","1","x"]', "a line is no command"),
        (b'["count",1,7]', "a prompt is 7"),
        (b'["count",1,{"ids":[]}]', "a prompt is"),
        (b'["count",1,{"ids":[1,-1]}]', "a prompt is"),
        (b'["count",1,{"ids":[true]}]', "a prompt is"),
        (b'["count",1,{"messages":[["user"]]}]', "a turn of a conversation is"),
        (b'["generate",1,"x",{}]', "a request lacks, or has besides: adapter"),
        (b'["load_adapter",1,"name",2]', "a line is no command"),
    ],
)
async def test_garbage_ends_the_connection_with_the_reason(known: Caller, line: bytes, reason: str) -> None:
    known.send(line + b"\n")
    ((kind, told),) = await asyncio.to_thread(known.hear)
    assert kind == "broken"
    assert str(told).startswith(reason)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0), ("max_tokens", 1.5), ("max_tokens", True), ("temperature", float("nan")),
        ("temperature", 2), ("temperature", "0"), ("top_k", 0), ("top_p", -1), ("presence_penalty", 3),
        ("frequency_penalty", float("inf")), ("logprobs", 1), ("seed", 0.5), ("grammar", 1), ("adapter", []),
        ("id", 7), ("tokens", [1]),
    ],
)  # fmt: skip
async def test_values_out_of_range_are_not_taken(known: Caller, name: str, value: object) -> None:
    known.say(["generate", 1, "x", {**VALUES, name: value}])
    ((kind, told),) = await asyncio.to_thread(known.hear)
    assert kind == "broken"
    assert name in str(told)


async def test_a_line_without_an_end_is_not_kept_for_ever(known: Caller) -> None:
    def flood() -> None:
        for _ in range(40):
            known.send(b"x" * (1 << 20))

    with pytest.raises(ConnectionError):
        await asyncio.to_thread(flood)


async def test_an_id_stands_for_one_request(known: Caller) -> None:
    known.say(["generate", 1, "x", {**VALUES, "max_tokens": 900}], ["generate", 1, "x", VALUES])
    assert (await asyncio.to_thread(known.hear))[-1] == ["broken", "the id 1 stands for another request"]


async def test_who_breaks_off_leaves_nothing_running(worker: Worker, known: Caller) -> None:
    known.say(*(["generate", n, "x", {**VALUES, "max_tokens": 900}] for n in range(1, 20)))
    known.send(b'["generate",20,')
    known.close()
    assert (await worker.complete("once")).usage.completion_tokens == 16


@given(cuts=st.lists(st.integers(1, 400), max_size=8))
async def test_lines_may_come_in_any_pieces(worker: Worker, cuts: list[int]) -> None:
    lines = [["count", 1, "x" * 300], ["cancel", 9], ["generate", 2, "é€", VALUES], ["count", 3, "y"]]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    with closing(Caller(worker)) as caller:
        await introduced(worker, caller)
        for cut in cuts:
            piece, data = data[:cut], data[cut:]
            caller.send(piece)
            await asyncio.sleep(0)
        caller.send(data)
        told: list[list[object]] = []
        buffer = b""
        while len([kind for kind, *_ in told if kind == "step"]) < 3 or ["done", 3, 2] not in told:
            buffer += await asyncio.to_thread(caller.socket.recv, 1 << 16)
            told = [json.loads(line) for line in buffer.split(b"\n")[:-1]]
    assert ["done", 1, 301] in told
    assert ["begun", 2, 6] in told


async def test_who_does_not_read_harms_nobody(worker: Worker, known: Caller) -> None:
    """Its tokens wait in the worker, more of them than a socket holds; others get theirs, and it gets all at last."""
    known.say(*(["generate", n, "x", {**VALUES, "max_tokens": 900}] for n in range(1, 31)))
    after_all = await worker.complete("once", max_tokens=900)
    assert after_all.usage.completion_tokens == 900
    known.send(b"garbage\n")
    *heard, (last, _) = await asyncio.to_thread(known.hear)
    entries = [entry for kind, *rest in heard if kind == "step" for entry in rest[0]]  # type: ignore[attr-defined]
    assert len(entries) == 30 * 900
    assert last == "broken"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    ends[0].setblocking(False)
    yield ends
    for end in ends:
        end.close()


@given(pieces=st.lists(st.binary(max_size=300_000), max_size=8))
def test_what_does_not_go_out_at_once_follows_in_order(pieces: list[bytes]) -> None:
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        ours.setblocking(False)
        connection = Connection(ours, lambda each: None)
        heard = b""
        for piece in pieces:
            connection.send(piece)
        while connection.unsent:
            heard += theirs.recv(1 << 20)
            connection.flush()
        ours.shutdown(socket.SHUT_WR)
        while more := theirs.recv(1 << 20):
            heard += more
        assert heard == b"".join(pieces)
        assert not connection.gone


def test_who_never_reads_is_given_up(ends: tuple[socket.socket, socket.socket]) -> None:
    changes: list[Connection] = []
    connection = Connection(ends[0], changes.append)
    sent, piece = 0, b"x" * (1 << 20)
    while not connection.gone:
        connection.send(piece)
        sent += len(piece)
        assert sent < 2 * MOST_UNREAD
    assert sent > MOST_UNREAD
    assert set(changes) == {connection}
    connection.send(piece)  # to nobody


def test_what_is_sent_to_who_has_gone_is_noticed(ends: tuple[socket.socket, socket.socket]) -> None:
    connection = Connection(ends[0], lambda each: None)
    ends[1].close()
    connection.send(b"anybody?")
    assert connection.gone
