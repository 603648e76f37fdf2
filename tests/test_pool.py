"""Pools: starting on need, queueing, scaling, losing and replacing replicas (C10, C11, M07)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.deployments import Deployments
from llmengine_core.errors import RateLimitExceededError, RequestTimeoutError, ServerError
from llmengine_core.interfaces.backend import Backend, Session, SessionLost
from llmengine_core.interfaces.runtime import Replica, Runtime
from llmengine_core.pool import Pool
from llmengine_core.scaling import GIVE_UP_AFTER, Bounds
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.generation import (
    GenerationChunk,
    GenerationRequest,
    Prompt,
    SessionFacts,
    Text,
    Usage,
)
from llmengine_core.types.launch import Deployment, Endpoint, Exit, LaunchSpec
from llmengine_core.types.progress import OnProgress

DEPLOYMENT = Deployment(backend="scripted", version="1", weights="/w", weights_digest="0" * 64)
REQUEST = GenerationRequest(Text("x"))


@dataclass
class World(Runtime, Backend):
    """A runtime and a backend whose replicas do as the test says."""

    refusals: list[ServerError] = field(default_factory=list)
    """Errors for the next starts."""
    hold_starts: asyncio.Event | None = None
    started: list[ScriptedReplica] = field(default_factory=list)
    most_at_once: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Answers wait for it."""

    def launch(self, deployment: Deployment) -> LaunchSpec | None:
        return LaunchSpec(argv=("/bin/true",), subject="scripted")

    async def start(self, spec: LaunchSpec, *, on_progress: OnProgress | None = None) -> Replica:
        if self.hold_starts is not None:
            await self.hold_starts.wait()
        if self.refusals:
            raise self.refusals.pop(0)
        replica = ScriptedReplica(len(self.started))
        self.started.append(replica)
        return replica

    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        return ScriptedSession(self, self.started[int(endpoint.address)])

    def close_now(self) -> None:
        raise AssertionError("a pool does not leave in a hurry")

    async def aclose(self) -> None:
        """Nothing is held here."""

    @property
    def alive(self) -> int:
        return sum(not replica.ended.is_set() for replica in self.started)


class ScriptedReplica(Replica):
    def __init__(self, number: int) -> None:
        self.number = number
        self.ended = asyncio.Event()
        self.running = 0

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(address=str(self.number), key="")

    async def wait(self) -> Exit:
        await self.ended.wait()
        return Exit(None, 9, "out of memory")

    async def aclose(self) -> None:
        self.ended.set()


@dataclass
class ScriptedSession(Session):
    world: World
    replica: ScriptedReplica

    @property
    def facts(self) -> SessionFacts:
        return SessionFacts(100, Capabilities())

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        self.replica.running += 1
        self.world.most_at_once = max(self.world.most_at_once, self.replica.running)
        try:
            if self.replica.ended.is_set():
                raise SessionLost("gone")
            await self._or_gone(self.world.gate)
            yield GenerationChunk("a")
            await self._or_gone(self.world.gate)
            yield GenerationChunk("b", (), "stop", Usage(1, 2))
        finally:
            self.replica.running -= 1

    async def _or_gone(self, event: asyncio.Event) -> None:
        waits = [asyncio.create_task(e.wait()) for e in (event, self.replica.ended)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self.replica.ended.is_set():
            raise SessionLost("the connection broke")

    async def count_tokens(self, prompt: Prompt) -> int:
        if self.replica.ended.is_set():
            raise SessionLost("gone")
        return 1

    async def aclose(self) -> None:
        """Nothing is held here."""


@pytest.fixture
def world() -> World:
    return World()


def pool_of(world: World, **bounds: float) -> Pool:
    pool = Pool(DEPLOYMENT, world, world, Bounds(**bounds))  # type: ignore[arg-type]
    pool.rescale(pool.bounds)
    return pool


async def answer(pool: Pool, request: GenerationRequest = REQUEST) -> str:
    async with aclosing(pool.generate(request)) as chunks:
        return "".join([chunk.text async for chunk in chunks])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.001)


async def test_m07_the_first_request_starts_a_replica(world: World) -> None:
    world.gate.set()
    pool = pool_of(world)
    assert world.started == []
    assert await answer(pool) == "ab"
    assert len(world.started) == 1
    await pool.aclose()
    assert world.alive == 0


async def test_m07_min_workers_are_started_at_once(world: World) -> None:
    pool = pool_of(world, min_workers=2, max_workers=3)
    await until(lambda: world.alive == 2)
    await pool.aclose()


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 30))
def test_m07_per_worker_and_max_workers_are_never_passed(workers: int, per_worker: int, asked: int) -> None:
    async def scenario() -> None:
        world = World()
        pool = pool_of(world, min_workers=1, max_workers=workers, per_worker=per_worker)
        answers = [asyncio.create_task(answer(pool)) for _ in range(asked)]
        at_once = min(asked, workers * per_worker)
        await until(lambda: sum(r.running for r in world.started) == at_once)
        assert pool.queued == asked - at_once
        world.gate.set()
        assert await asyncio.gather(*answers) == ["ab"] * asked
        assert world.most_at_once <= per_worker
        assert len(world.started) <= workers
        await pool.aclose()

    asyncio.run(scenario())


async def test_m07_idle_replicas_end_down_to_min_workers_and_come_back(world: World) -> None:
    world.gate.set()
    pool = pool_of(world, min_workers=0, max_workers=1, idle_seconds=0.02)
    await answer(pool)
    await until(lambda: world.alive == 0)
    assert await answer(pool) == "ab"
    assert len(world.started) == 2
    await pool.aclose()


async def test_m07_idle_counts_from_the_last_streams_end(world: World) -> None:
    pool = pool_of(world, idle_seconds=0.02)
    task = asyncio.create_task(answer(pool))
    await until(lambda: any(r.running for r in world.started))
    await asyncio.sleep(0.1)  # five times the idle time, and the stream is open
    assert world.alive == 1
    world.gate.set()
    await task
    await until(lambda: world.alive == 0)
    await pool.aclose()


async def test_the_queue_is_bounded(world: World) -> None:
    pool = pool_of(world, per_worker=1, queue_size=2)
    tasks = [asyncio.create_task(answer(pool)) for _ in range(3)]
    await until(lambda: pool.queued == 2 and any(r.running for r in world.started))
    with pytest.raises(RateLimitExceededError, match="queue_size=2"):
        await answer(pool)
    world.gate.set()
    assert await asyncio.gather(*tasks) == ["ab"] * 3
    await pool.aclose()


async def test_c11_waiting_in_the_queue_ends_at_the_deadline(world: World) -> None:
    pool = pool_of(world, per_worker=1)
    first = asyncio.create_task(answer(pool))
    await until(lambda: any(r.running for r in world.started))
    late = GenerationRequest(Text("x"), deadline=time.monotonic() + 0.02)
    with pytest.raises(RequestTimeoutError):
        await answer(pool, late)
    assert pool.queued == 0
    world.gate.set()
    assert await first == "ab"
    await pool.aclose()


async def test_c10_a_request_cancelled_in_the_queue_leaves_it_and_its_start_goes_on(world: World) -> None:
    world.hold_starts = asyncio.Event()
    pool = pool_of(world)
    task = asyncio.create_task(answer(pool))
    await until(lambda: pool.queued == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.queued == 0
    world.hold_starts.set()
    await until(lambda: world.alive == 1)
    await pool.aclose()


async def test_c10_closing_a_stream_frees_its_slot(world: World) -> None:
    world.gate.set()
    pool = pool_of(world, per_worker=1)
    async with aclosing(pool.generate(REQUEST)) as chunks:
        await anext(chunks)
    assert await answer(pool) == "ab"
    await pool.aclose()


async def test_a_request_that_has_not_started_is_tried_on_a_new_replica(world: World) -> None:
    pool = pool_of(world)
    task = asyncio.create_task(answer(pool))
    await until(lambda: any(r.running for r in world.started))
    world.started[0].ended.set()
    world.gate.set()
    assert await task == "ab"
    assert len(world.started) == 2
    await pool.aclose()


async def test_c09_a_request_that_has_started_ends_with_the_error(world: World) -> None:
    world.gate.set()
    pool = pool_of(world)
    async with aclosing(pool.generate(REQUEST)) as chunks:
        assert (await anext(chunks)).text == "a"
        world.gate.clear()
        world.started[0].ended.set()
        with pytest.raises(SessionLost, match="killed by signal 9; it last said: out of memory"):
            await anext(chunks)
    world.gate.set()
    assert await answer(pool) == "ab"
    await pool.aclose()


async def test_a_replica_lost_while_idle_is_replaced_at_the_next_request(world: World) -> None:
    world.gate.set()
    pool = pool_of(world)
    await answer(pool)
    world.started[0].ended.set()
    assert await answer(pool) == "ab"
    assert await pool.count_tokens(Text("x")) == 1
    await pool.aclose()


async def test_min_workers_are_kept_when_one_is_lost(world: World) -> None:
    pool = pool_of(world, min_workers=1)
    await until(lambda: world.alive == 1)
    world.started[0].ended.set()
    await until(lambda: len(world.started) == 2)
    await pool.aclose()


async def test_a_start_that_fails_reaches_all_who_wait_and_is_left_alone_for_a_while(world: World) -> None:
    world.refusals = [ServerError("no such tensor")]
    world.hold_starts = asyncio.Event()
    pool = pool_of(world)
    tasks = [asyncio.create_task(answer(pool)) for _ in range(5)]
    ready = asyncio.create_task(pool.ready(None))
    await until(lambda: pool.queued == 5)
    world.hold_starts.set()
    for task in [*tasks, ready]:
        with pytest.raises(ServerError, match="no such tensor"):
            await task
    with pytest.raises(ServerError, match=r"no such tensor \(the next try is in"):
        await answer(pool)
    await pool.aclose()


async def test_crash_loops_back_off_and_are_reported_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmengine_core.scaling.FIRST_BACKOFF", 0.0)
    reported: list[str | None] = []

    async def heard(error: Exception | None) -> None:
        reported.append(None if error is None else str(error))

    world.refusals = [ServerError(f"crash {n}") for n in range(1, GIVE_UP_AFTER + 3)]
    pool = Deployments(world).lease("mine", DEPLOYMENT, lambda: world, Bounds(), on_health=heard)
    for _ in range(GIVE_UP_AFTER + 2):
        with pytest.raises(ServerError):
            await answer(pool)
    await until(lambda: bool(reported))
    assert reported == [f"crash {GIVE_UP_AFTER}"]
    world.gate.set()
    assert await answer(pool) == "ab"
    await until(lambda: len(reported) == 2)
    assert reported[1] is None
    await pool.aclose()


async def test_a_start_that_hangs_fails_in_time(world: World) -> None:
    world.hold_starts = asyncio.Event()
    pool = pool_of(world, start_seconds=0.02)
    with pytest.raises(ServerError, match="not ready within"):
        await answer(pool)
    await pool.aclose()


async def test_leases_share_a_pool_and_the_last_one_drains_it(world: World) -> None:
    deployments = Deployments(world)
    first = deployments.lease("one", DEPLOYMENT, lambda: world, Bounds(max_workers=1))
    second = deployments.lease("two", DEPLOYMENT, lambda: world, Bounds(max_workers=3))
    assert first is second
    assert first.bounds.max_workers == 3
    running = asyncio.create_task(answer(first))
    await until(lambda: any(r.running for r in world.started))
    deployments.release("two", first)
    assert first.bounds.max_workers == 1
    first.hold()
    first.hold()
    queued = asyncio.create_task(answer(first))
    deployments.release("one", first)
    late = asyncio.create_task(answer(first))
    world.gate.set()
    assert [await each for each in (running, queued, late)] == ["ab"] * 3
    first.let_go()
    assert world.alive
    first.let_go()
    await until(lambda: world.alive == 0)
    with pytest.raises(ServerError, match="deleted, changed or stopped"):
        await answer(first)
    await deployments.aclose()


async def test_closing_ends_what_is_being_started(world: World) -> None:
    world.hold_starts = asyncio.Event()
    pool = pool_of(world, min_workers=1)
    task = asyncio.create_task(answer(pool))
    await until(lambda: pool.queued == 1)
    await pool.aclose()
    await pool.aclose()
    with pytest.raises(ServerError):
        await task
