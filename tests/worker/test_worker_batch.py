"""How requests come into the batch and leave it, step by step; adapters beside them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.e2e.procfs import until
from tests.worker.conftest import Gated
from tests.worker.toy_backend import ToyBackend, Worker, deployment, request

from llmengine_core.errors import BadRequestError, RequestTimeoutError
from llmengine_core.interfaces.backend import SessionLost
from llmengine_core.pool import Pool
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.scaling import Bounds
from llmengine_core.types.generation import GenerationChunk, Text

Stream = AsyncGenerator[GenerationChunk, None]


async def heard(gated: Gated) -> None:
    """Returns once the worker has read all that was sent: it answers in order."""
    await gated.worker.session.count_tokens(Text("x"))


async def asked(gated: Gated, prompt: str, tokens: int = 9) -> tuple[Stream, asyncio.Task[GenerationChunk]]:
    """A stream that the worker has got to know, and its first chunk."""
    stream = gated.worker.session.generate(request(prompt, max_tokens=tokens))
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await heard(gated)
    return stream, first


def joined(gated: Gated, number: int) -> None:
    until(lambda: gated.journal.count(["join", str(number)]), 5, f"request {number} in the batch")


async def drained(stream: Stream) -> list[GenerationChunk]:
    return [chunk async for chunk in stream]


async def test_c10_a_closed_stream_leaves_within_a_step(gated: Gated) -> None:
    staying, first = await asked(gated, "stays", 4)
    leaving, second = await asked(gated, "leaves", 9)
    gated.let(2)
    await asyncio.gather(first, second)
    await leaving.aclose()  # the engine stands still all the while
    await heard(gated)
    gated.let(20)
    await drained(staying)
    rows = [row for step in gated.steps for row in step]
    assert rows.count("1") == 4
    assert rows.count("2") <= len(gated.steps) - 2 + 1
    left = gated.journal.index(["leave", "2"])
    assert sum(what == "step" and "2" in rest for what, *rest in gated.journal) <= 3
    assert all("2" not in rest for _, *rest in gated.journal[left + 1 :])


async def test_c10_a_cancelled_task_leaves_too(gated: Gated) -> None:
    _, first = await asked(gated, "leaves")
    joined(gated, 1)
    first.cancel()
    await asyncio.wait([first])
    await heard(gated)
    gated.let(3)
    other, chunk = await asked(gated, "other", 1)
    await chunk
    await drained(other)
    assert ["leave", "1"] in gated.journal
    assert sum("1" in step for step in gated.steps) <= 1


async def test_c11_a_request_past_its_deadline_leaves(gated: Gated) -> None:
    stream = gated.worker.session.generate(request("late", deadline=time.monotonic() + 0.2))
    with pytest.raises(RequestTimeoutError):
        await anext(stream)
    await heard(gated)
    gated.let(3)
    other, chunk = await asked(gated, "other", 1)
    await chunk
    await drained(other)
    assert len(gated.steps) <= 2  # it may have begun one


async def test_a_stop_sequence_frees_its_row(gated: Gated) -> None:
    stream = gated.worker.session.generate(request("x", max_tokens=900, stop=("a", "b", "c", "d")))
    gated.let(50)
    await drained(stream)
    await heard(gated)
    gated.let(500)
    other, chunk = await asked(gated, "other", 1)
    await chunk
    await drained(other)
    assert ["leave", "1"] in gated.journal


async def test_more_than_the_batch_takes_wait_in_order(gated: Gated) -> None:
    streams = [await asked(gated, "a", 3)]
    until(lambda: gated.journal.count(["waits"]), 5, "a step for the first alone")
    streams += [await asked(gated, name, tokens) for name, tokens in zip("bcde", (2, 2, 1, 2), strict=True)]
    cancelled, first = streams.pop(2)
    first.cancel()
    await asyncio.wait([first])
    await cancelled.aclose()
    await heard(gated)
    gated.let(50)
    await asyncio.gather(*(first for _, first in streams))
    await asyncio.gather(*(drained(stream) for stream, _ in streams))
    assert [note[1] for note in gated.journal if note[0] == "prompt"] == ["a", "b", "d", "e"]
    # Numbered as they join: who was cancelled never did.
    assert gated.steps == [["1"], ["1", "2"], ["1", "2"], ["3", "4"], ["4"]]


async def test_a_lost_connection_leaves_with_all_its_requests(gated: Gated) -> None:
    other = await ToyBackend().connect(gated.worker.replica.endpoint, deployment())
    waiting = [
        asyncio.ensure_future(anext(other.generate(request(f"{i}", max_tokens=900)))) for i in range(4)
    ]
    await asyncio.sleep(0)
    await other.count_tokens(Text("x"))
    gated.let(1)
    joined(gated, 2)
    other._link._transport.abort()  # type: ignore[attr-defined]  # as if the process had gone
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {SessionLost}
    gated.let(890)  # those who have gone can't have finished by then
    stream, chunk = await asked(gated, "mine", 1)
    await chunk
    await drained(stream)
    assert {tuple(note) for note in gated.journal if note[0] == "leave"} == {("leave", "1"), ("leave", "2")}
    assert [note for note in gated.journal if note[0] == "join"] == [["join", str(n)] for n in (1, 2, 3)]


async def test_a_reader_that_sleeps_gets_its_tokens_together(gated: Gated) -> None:
    stream, first = await asked(gated, "slow", 30)
    gated.let(1)
    await first
    gated.let(29)
    until(lambda: len(gated.steps) == 30, 5, "all steps")
    await heard(gated)
    (rest,) = await drained(stream)
    assert len(rest.tokens) == 29


# -- adapters


@pytest.fixture
def adapter(tmp_path: Path) -> str:
    (tmp_path / "adapter").write_bytes(b"weights")
    return str(tmp_path)


async def test_an_adapter_changes_the_answer_while_it_is_loaded(worker: Worker, adapter: str) -> None:
    plain = await worker.complete("once")
    await worker.session.load_adapter("mine", adapter)
    adapted, beside = await asyncio.gather(worker.complete("once", adapter="mine"), worker.complete("once"))
    assert adapted.text != plain.text == beside.text
    await worker.session.unload_adapter("mine")
    with pytest.raises(BadRequestError, match="no adapter 'mine'"):
        await worker.complete("once", adapter="mine")


async def test_a_bad_adapter_is_refused_and_nothing_else_happens(worker: Worker, tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match=r"no adapter in .*: No such file"):
        await worker.session.load_adapter("none", str(tmp_path / "none"))
    with pytest.raises(BadRequestError, match="there is no adapter 'none'"):
        await worker.session.unload_adapter("none")
    assert (await worker.complete("once")).usage.completion_tokens


async def test_requests_that_use_an_adapter_finish_before_it_goes(gated: Gated, adapter: str) -> None:
    session = gated.worker.session
    await session.load_adapter("mine", adapter)
    users = [session.generate(request(f"{n}", adapter="mine", max_tokens=3)) for n in range(3)]
    firsts = [asyncio.ensure_future(anext(user)) for user in users]
    await asyncio.sleep(0)
    await heard(gated)
    unloading = asyncio.ensure_future(session.unload_adapter("mine"))
    again = asyncio.ensure_future(session.load_adapter("mine", adapter))
    await asyncio.sleep(0)
    await heard(gated)
    late = asyncio.ensure_future(anext(session.generate(request("late", adapter="mine"))))
    await asyncio.sleep(0)
    await heard(gated)
    gated.let(1)
    with pytest.raises(BadRequestError, match="'mine' is being unloaded"):
        await late
    assert not unloading.done()
    assert not again.done()
    gated.let(50)
    await asyncio.gather(*firsts)
    await asyncio.gather(*(drained(user) for user in users))
    await asyncio.gather(unloading, again)
    notes = [note for note in gated.journal if note[0] not in ("join", "prompt")]
    assert notes[-2:] == [["unload", "mine"], ["load", "mine"]]
    assert sum(len(step) for step in gated.steps) == 9


async def test_an_adapter_is_loaded_while_others_generate(gated: Gated, adapter: str) -> None:
    stream, first = await asked(gated, "long", 5)
    gated.let(1)
    await first
    loading = asyncio.ensure_future(gated.worker.session.load_adapter("mine", adapter))
    await asyncio.sleep(0)
    await heard(gated)
    gated.let(1)
    await loading
    assert len(gated.steps) <= 3
    gated.let(9)
    await drained(stream)


async def test_a_pool_has_its_adapters_on_every_replica(
    runtime: LocalRuntime, bare: str, adapter: str
) -> None:
    what = deployment(python=bare, adapters=True, per_worker=1)
    bounds = Bounds(min_workers=0, max_workers=3, per_worker=1)
    pool = Pool(what, ToyBackend(), runtime, bounds)

    async def answer(adapter: str | None) -> str:
        asked = request("once", adapter=adapter)
        return "".join([chunk.text async for chunk in pool.generate(asked)])

    try:
        await pool.load_adapter("mine", adapter)
        adapted = await asyncio.gather(*(answer("mine") for _ in range(9)))
        assert pool.size > 1
        assert len(set(adapted)) == 1
        assert await answer(None) != adapted[0]
        with pytest.raises(BadRequestError, match="'mine' already"):
            await pool.load_adapter("mine", adapter)
        using = asyncio.ensure_future(answer("mine"))
        await asyncio.sleep(0)
        await pool.unload_adapter("mine")
        assert await using == adapted[0]
        for refused in await asyncio.gather(*(answer("mine") for _ in range(3)), return_exceptions=True):
            assert isinstance(refused, BadRequestError)
    finally:
        await pool.aclose()
