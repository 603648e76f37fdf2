"""The pools of one engine, shared by lease."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from llmengine_core.errors import LLMEngineError
from llmengine_core.interfaces.backend import Backend
from llmengine_core.interfaces.runtime import Runtime
from llmengine_core.pool import Pool
from llmengine_core.scaling import Bounds, Holder
from llmengine_core.types.launch import Deployment
from llmengine_core.types.progress import OnProgress

__all__ = ["Deployments"]


@dataclass(eq=False)
class Deployments:
    """Pools by deployment key; models hold counted leases on them."""

    runtime: Runtime
    on_progress: OnProgress | None = None
    pools: dict[str, Pool] = field(default_factory=dict)
    _closing: set[asyncio.Task[None]] = field(default_factory=set)

    def lease(
        self,
        holder: str,
        deployment: Deployment,
        backend: Callable[[], Backend],
        bounds: Bounds,
        *,
        on_health: Callable[[LLMEngineError | None], Coroutine[Any, Any, None]] | None = None,
        adapter: str | None = None,
    ) -> Pool:
        """The pool for a deployment, made if need be, scaled to what all its holders ask for.

        A holder has at most one lease on a pool; a further one changes its bounds and its ``adapter``. Give it
        back with ``release``. What needs no adapters joins a pool that takes some where there is one, rather than
        to have the same weights in memory twice.
        """
        pool = self.pools.get(deployment.key) or self.pools.get(replace(deployment, adapters=True).key)
        if pool is None:
            pool = Pool(deployment, backend(), self.runtime, bounds, on_progress=self.on_progress)
            self.pools[deployment.key] = pool
        before = pool.holders.get(holder)
        pool.holders[holder] = Holder(bounds, on_health, adapter)
        pool.adapters.hold(adapter)
        if before is not None:
            pool.adapters.let_go(before.adapter)
        pool.rescale(_together(pool.holders.values()))
        return pool

    def release(self, holder: str, pool: Pool) -> None:
        """Give a lease back. With the last one the pool lets its requests finish and closes."""
        before = pool.holders.pop(holder, None)
        if before is not None:
            pool.adapters.let_go(before.adapter)
        if pool.holders:
            pool.rescale(_together(pool.holders.values()))
        elif self.pools.get(pool.deployment.key) is pool:
            del self.pools[pool.deployment.key]
            task = asyncio.get_running_loop().create_task(pool.drain())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def close_now(self) -> None:
        """Start no replica any more; safe from any thread, without a loop."""
        for pool in list(self.pools.values()):
            pool.close_now()

    async def aclose(self) -> None:
        """Close every pool. Idempotent."""
        pools = list(self.pools.values())
        self.pools.clear()
        await asyncio.gather(*(pool.aclose() for pool in pools), return_exceptions=True)
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)


def _together(holders: Iterable[Holder]) -> Bounds:
    """Bounds that give every holder what it asked for."""
    every = [holder.bounds for holder in holders]
    return replace(
        every[0],
        min_workers=max(b.min_workers for b in every),
        max_workers=max(b.max_workers for b in every),
        per_worker=max(b.per_worker for b in every),
    )
