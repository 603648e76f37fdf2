"""The replicas of one deployment, as one session: started on need, scaled between two bounds."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any

from llmengine_core.adapters import Adapters
from llmengine_core.deadlines import until
from llmengine_core.errors import LLMEngineError, RateLimitExceededError, ServerError
from llmengine_core.interfaces.backend import Backend, Session, SessionLost
from llmengine_core.interfaces.runtime import Replica, Runtime
from llmengine_core.members import Member, launch
from llmengine_core.scaling import GIVE_UP_AFTER, Bounds, Failures, Holder
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Prompt, SessionFacts
from llmengine_core.types.launch import Adapter, Deployment
from llmengine_core.types.progress import OnProgress

__all__ = ["Pool"]

log = logging.getLogger(__name__)

NOT_FREE = (
    "the model was not ready, or no replica was free, within the call's timeout; raise `timeout`, or the "
    "model's max_workers or per_worker"
)
ATTEMPTS = 3
"""Replicas that a request which hasn't started may be tried on."""


class Pool(Session):
    """The replicas of one deployment, as one session.

    A request goes to the live replica with the fewest requests below ``per_worker``. Where all are busy, one
    more is started up to ``max_workers``; requests wait in order meanwhile. Starts belong to the pool: a
    request that is cancelled doesn't take the replica that it woke with it.
    """

    def __init__(
        self,
        deployment: Deployment,
        backend: Backend,
        runtime: Runtime,
        bounds: Bounds,
        *,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.deployment = deployment
        self.bounds = bounds
        self.holders: dict[str, Holder] = {}
        self._backend = backend
        self._runtime = runtime
        self._on_progress = on_progress
        self._reported = False
        self._facts: SessionFacts | None = None
        self._workers: list[Member] = []
        self.adapters = Adapters(lambda: [worker.session for worker in self._workers])
        self._waiting: deque[asyncio.Future[Member]] = deque()
        self._ready_waiters: list[asyncio.Future[None]] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._failures = Failures()
        self._draining = False
        self._held = 0
        self._quiet = asyncio.Event()

    # -- what a session gives --------------------------------------------------------------------------------

    @property
    def facts(self) -> SessionFacts:
        """Of the replicas. Known once ``ready`` has returned."""
        if self._facts is None:
            raise ServerError("the pool has not started yet")
        return self._facts

    @property
    def known_facts(self) -> SessionFacts | None:
        """``facts`` of a replica that lives or lived; None before the first."""
        return self._facts

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        with self.adapters.used(request.adapter):
            for attempt in range(1, ATTEMPTS + 1):
                started = False
                worker = await self._acquire(request.deadline)
                try:
                    async with aclosing(worker.session.generate(request)) as chunks:
                        async for chunk in chunks:
                            started = True
                            yield chunk
                    return
                except SessionLost as error:
                    self._lost(worker)
                    if started or self._draining or attempt == ATTEMPTS:
                        raise await worker.explained(error) from error
                    log.warning("a replica was lost before it answered; another is tried: %s", error)
                finally:
                    self._release(worker)

    async def count_tokens(self, prompt: Prompt) -> int:
        for attempt in range(1, ATTEMPTS + 1):
            await self.ready(None)
            worker = min(self._workers, key=lambda w: w.active)
            try:
                return await worker.session.count_tokens(prompt)
            except SessionLost as error:
                self._lost(worker)
                if attempt == ATTEMPTS:
                    raise await worker.explained(error) from error
        raise AssertionError("unreachable")

    async def load_adapter(self, name: str, path: str) -> None:
        await self._on_replicas(lambda: self.adapters.load(name, path))

    async def unload_adapter(self, name: str) -> None:
        await self.adapters.unload(name)

    async def have_adapter(self, adapter: Adapter) -> None:
        """Load an adapter that is held in ``adapters``, unless it is there. Raises why a replica refuses it."""
        await self._on_replicas(lambda: self.adapters.have(adapter.name, adapter.path))

    async def _on_replicas(self, change: Callable[[], Awaitable[None]]) -> None:
        """Make a change that needs a replica; where it was the end of all, with how one of them ended."""
        await self.ready(None)
        worker = self._workers[0]
        try:
            await change()
        except SessionLost as error:
            raise await worker.explained(error) from error

    def close_now(self) -> None:
        """Put nothing in the place of replicas that end from here on; safe from any thread, without a loop."""
        self._draining = True

    async def aclose(self) -> None:
        """End every stream and every replica. Idempotent."""
        self._draining = True
        for task in [*self._starting, *self._tasks]:
            task.cancel()
        self._fail_waiting(ServerError("the model was stopped"))
        workers, self._workers = self._workers, []
        await asyncio.gather(*(worker.end() for worker in workers), return_exceptions=True)
        await self.adapters.aclose()
        await asyncio.gather(*self._starting, *self._tasks, *self._ending, return_exceptions=True)

    # -- readiness and scaling -------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Replicas that live or are being started."""
        return len(self._workers) + len(self._starting)

    @property
    def queued(self) -> int:
        """Requests that wait for a free replica."""
        return len(self._waiting)

    async def ready(self, deadline: float | None) -> SessionFacts:
        """Wait until one replica lives, starting it if need be. Raises the reason where it can't be had."""
        while not self._workers or self._facts is None:
            if self._draining:
                raise _retired()
            if not self._starting:
                self._start_one()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._ready_waiters.append(waiter)
            await until(waiter, deadline, NOT_FREE)
        return self._facts

    def rescale(self, bounds: Bounds) -> None:
        """Take over new bounds, and start what they demand at least, unless that just failed."""
        self.bounds = bounds
        if not self._draining:
            with suppress(ServerError):
                for _ in range(bounds.min_workers - self.size):
                    self._start_one()

    def _meet_demand(self) -> None:
        """Start as many replicas as those who wait need, within the bounds."""
        while (
            len(self._waiting) > len(self._starting) * self.bounds.per_worker
            and self.size < max(1, self.bounds.max_workers)
            and self._start_one()
        ):
            pass

    def _start_one(self) -> bool:
        """Begin to start a replica; not where the last start failed just now: raises why if none lives."""
        wait = self._failures.not_before - time.monotonic()
        if wait > 0 and self._failures.last is not None:
            if self._workers:
                return False
            raise ServerError(f"{self._failures.last.message} (the next try is in {wait:.0f} s)")
        task = asyncio.get_running_loop().create_task(self._start())
        self._starting.add(task)
        return True

    async def _start(self) -> None:
        failure: LLMEngineError
        worker: Member | None
        try:
            worker = await self._launch()
        except LLMEngineError as error:
            failure, worker = error, None
        except Exception as error:
            log.exception("a replica of %s could not be started", self.deployment.backend)
            failure, worker = ServerError(f"{self.deployment.backend} could not be started: {error!r}"), None
        finally:
            self._starting.discard(_this_task())
        if worker is None:
            self._start_failed(failure)
            return
        if self._draining:
            await worker.end()
            return
        self._failures = Failures()
        if self._reported:
            self._report(None)
        self._facts = worker.session.facts
        self._workers.append(worker)
        if worker.replica is not None:
            self._keep(self._tasks, self._watch(worker, worker.replica))
        for waiter in self._ready_waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._ready_waiters.clear()
        self._serve_waiting()
        self._meet_demand()
        self._rest(worker)

    async def _launch(self) -> Member:
        worker = await launch(
            self._backend,
            self._runtime,
            self.deployment,
            seconds=self.bounds.start_seconds,
            on_progress=self._on_progress,
        )
        try:
            await self.adapters.put_on(worker.session)
        except BaseException:
            await worker.end()
            raise
        return worker

    def _start_failed(self, error: LLMEngineError) -> None:
        self._failures.add(error)
        if self._workers:
            log.warning("a further replica could not be started: %s", error)
        else:
            self._fail_waiting(error)
        if self._failures.count == GIVE_UP_AFTER:
            self._report(error)

    def _report(self, error: LLMEngineError | None) -> None:
        """Tell the holders that the model fails again and again, or, with None, that it works after all."""
        self._reported = error is not None
        for holder in self.holders.values():
            if holder.on_health is not None:
                self._keep(self._tasks, holder.on_health(error))

    def _fail_waiting(self, error: LLMEngineError) -> None:
        waiters: list[asyncio.Future[Member] | asyncio.Future[None]] = [*self._waiting, *self._ready_waiters]
        self._waiting.clear()
        self._ready_waiters.clear()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(copy.copy(error))

    # -- one request -----------------------------------------------------------------------------------------

    async def _acquire(self, deadline: float | None) -> Member:
        if self._draining:
            raise _retired()
        worker = self._free_worker()
        if worker is None or self._waiting:
            self._check_queue()
            waiter: asyncio.Future[Member] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                self._serve_waiting()
                self._meet_demand()
                return await until(waiter, deadline, NOT_FREE)
            except BaseException:
                if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                    self._release(waiter.result())
                elif waiter in self._waiting:
                    self._waiting.remove(waiter)
                raise
        self._take(worker)
        return worker

    def _check_queue(self) -> None:
        """Refuse where as many wait as may, besides those whom replicas still to be started will serve."""
        bounds = self.bounds
        room = bounds.max_workers * bounds.per_worker - sum(worker.active for worker in self._workers)
        if len(self._waiting) >= bounds.queue_size + max(0, room):
            raise RateLimitExceededError(
                f"{len(self._waiting)} requests wait for this model already (queue_size={bounds.queue_size}, "
                f"max_workers={bounds.max_workers}, per_worker={bounds.per_worker}); try again later, or raise one "
                "of them"
            )

    def _free_worker(self) -> Member | None:
        best: Member | None = None
        for worker in self._workers:
            if worker.active < self.bounds.per_worker and (best is None or worker.active < best.active):
                best = worker
        return best

    def _take(self, worker: Member) -> None:
        worker.active += 1
        worker.busy()

    def _release(self, worker: Member) -> None:
        worker.active -= 1
        if worker.active == 0 and worker.gone:
            self._begin_end(worker)
            return
        self._serve_waiting()
        self._rest(worker)

    def _serve_waiting(self) -> None:
        while self._waiting:
            worker = self._free_worker()
            if worker is None:
                return
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._take(worker)
                waiter.set_result(worker)

    # -- the end of a replica --------------------------------------------------------------------------------

    def _rest(self, worker: Member) -> None:
        """Start the clock of a replica that serves nobody."""
        if worker.active == 0 and not worker.gone and worker.idle_timer is None and not self._draining:
            loop = asyncio.get_running_loop()
            worker.idle_timer = loop.call_later(self.bounds.idle_seconds, self._idle, worker)

    def _idle(self, worker: Member) -> None:
        worker.idle_timer = None
        if worker.active == 0 and worker in self._workers and len(self._workers) > self.bounds.min_workers:
            self._workers.remove(worker)
            self._begin_end(worker)

    def _lost(self, worker: Member) -> None:
        """Take a replica that is gone out of service, and start what is needed instead.

        Its session is closed behind its last request, so that each of them sees how it was lost.
        """
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        worker.gone = True
        if worker.active == 0:
            self._begin_end(worker)
        if not self._draining and (self._waiting or len(self._workers) < self.bounds.min_workers):
            try:
                self.rescale(self.bounds)
                self._meet_demand()
            except ServerError as error:
                self._fail_waiting(error)

    async def _watch(self, worker: Member, replica: Replica) -> None:
        end = await replica.wait()
        if not self._draining and worker in self._workers:
            log.warning("a replica of %s ended by itself: %s", self.deployment.backend, end)
            self._lost(worker)

    def _begin_end(self, worker: Member) -> None:
        self._keep(self._ending, worker.end())

    def hold(self, adapter: str | None = None) -> None:
        """Count a request that is about to come, or runs: ``drain`` waits for it. Pair it with ``let_go``."""
        self._held += 1
        self.adapters.hold(adapter)

    def let_go(self, adapter: str | None = None) -> None:
        """The request is over."""
        self._held -= 1
        self.adapters.let_go(adapter)
        if not self._held:
            self._quiet.set()

    async def drain(self) -> None:
        """Close once every request that is held is over."""
        while self._held:
            self._quiet.clear()
            await self._quiet.wait()
        await self.aclose()

    def _keep(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def _retired() -> ServerError:
    return ServerError("the model was deleted, changed or stopped")


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task
