"""From a model's name to a pool that answers: made ready once, looked up quickly, given back when it goes."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmengine_core.deployments import Deployments
from llmengine_core.errors import LLMEngineError
from llmengine_core.explanation import resolution_error
from llmengine_core.locks import file_lock
from llmengine_core.pool import Pool
from llmengine_core.provisioning import Provisioner
from llmengine_core.records import from_json
from llmengine_core.registry import Registry
from llmengine_core.scaling import Bounds
from llmengine_core.services.catalog import Catalog
from llmengine_core.settings import Settings
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.launch import Adapter
from llmengine_core.types.models import ModelRecord, ModelSpec, ModelStatus
from llmengine_core.types.plan import Plan

__all__ = ["Served", "Serving"]

FRESH_SECONDS = 1.0
"""How long a model that was looked up is taken to be unchanged by other processes."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model that can be asked."""

    record: ModelRecord
    backend: str
    capabilities: Capabilities
    """As declared; the pool's facts may narrow them."""
    pool: Pool
    checked_at: float
    """When it was last looked up, on the clock of ``time.monotonic()``."""
    unguided: str = ""
    """What would bring the masker that constraints are enforced by, where it is missing."""
    adapter: Adapter | None = None
    """What is to be loaded on the pool for it, and held there by each of its requests."""

    @property
    def adapter_name(self) -> str | None:
        """As ``GenerationRequest.adapter``."""
        return None if self.adapter is None else self.adapter.name


class Serving:
    """The models that this process serves."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        catalog: Catalog,
        provisioner: Provisioner,
        deployments: Deployments,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._catalog = catalog
        self._provisioner = provisioner
        self._deployments = deployments
        self._locks = Path(settings.home) / "locks"
        self._served: dict[str, Served] = {}
        self._work: dict[tuple[str, str], asyncio.Task[Any]] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        provisioner.keep(self._needed)

    async def serve(self, name: str, caller: str) -> Served:
        """The model's pool, made ready if need be. Raises ``NotFoundError``, or why it can't be served."""
        served = self._served.get(name)
        if served is None or time.monotonic() - served.checked_at > FRESH_SECONDS:
            served = await self._look_up(name, caller)
        if not served.record.visible_to(caller):
            raise await self._catalog.missing(name, caller)
        return served

    async def _look_up(self, name: str, caller: str) -> Served:
        served = self._served.get(name)
        if served is not None and served.record.builtin and not await _homeless(served.pool):
            return served
        record = await self._catalog.find(name)
        if record is None or not record.visible_to(caller):
            raise await self._catalog.missing(name, caller)
        if record.plan.chosen is None:
            raise resolution_error(record.plan)
        if record.is_pending:
            making = self.make_ready(name)
            if record.pending is None:  # there is nothing yet that could serve meanwhile
                await asyncio.shield(making)
        served = await asyncio.shield(self._once(("enter", name), self._enter(name)))
        if served is None:
            raise await self._catalog.missing(name, caller)
        return served

    async def _enter(self, name: str, *, afresh: bool = False) -> Served | None:
        """Serve the model as it stands now; what served it before lets its requests finish.

        ``afresh`` looks at its files again, also where nothing else has changed.
        """
        async with self._turns[name]:
            old = self._served.get(name)
            record = await self._catalog.find(name)
            if record is None or record.status is ModelStatus.DELETE_IN_PROGRESS:
                self._drop(name)
                return None
            same = old is not None and (old.record.spec, old.record.plan) == (record.spec, record.plan)
            if old is not None and same and not afresh and not await _homeless(old.pool):
                served = replace(old, record=record, checked_at=time.monotonic())
            else:
                pool, adapter = await self._lease(record.spec, record.plan)
                info = self._registry.backends[pool.deployment.backend]
                now = time.monotonic()
                served = Served(record, info.name, info.capabilities, pool, now, adapter=adapter)
                if info.takes_masker and pool.deployment.masker is None:
                    mend = await asyncio.to_thread(self._provisioner.without_masker, info, record.spec)
                    without = replace(info.capabilities, structured=frozenset())
                    served = replace(served, capabilities=without, unguided=mend)
            self._served[name] = served
            if old is not None and old.pool is not served.pool:
                self._deployments.release(name, old.pool)
            return served

    async def _lease(
        self, spec: ModelSpec, plan: Plan, *, holder: str | None = None
    ) -> tuple[Pool, Adapter | None]:
        """A pool, and what is to be loaded on it."""
        deployment = await self._provisioner.prepare(spec, plan)
        adapter = await self._provisioner.adapter(spec, plan)
        info = self._registry.backends[deployment.backend]
        bounds = Bounds(
            min_workers=spec.min_workers,
            max_workers=spec.max_workers,
            per_worker=spec.per_worker,
            idle_seconds=self._settings.idle_seconds,
            start_seconds=self._settings.start_seconds,
            queue_size=self._settings.queue_size,
        )

        async def heard(error: LLMEngineError | None) -> None:
            await self._note_health(spec.name, error)

        pool = self._deployments.lease(
            holder or spec.name,
            deployment,
            lambda: self._registry.load(info),
            bounds,
            on_health=heard,
            adapter=None if adapter is None else adapter.name,
        )
        return pool, adapter

    def _needed(self) -> set[str]:
        """The paths that replicas of the models served here are started from."""
        served = self._served.values()
        adapters = {each.adapter.path for each in served if each.adapter is not None}
        return adapters | {each.pool.deployment.weights for each in served}

    async def forget(self, name: str) -> None:
        """Serve a model no more; its requests finish."""
        async with self._turns[name]:
            self._drop(name)

    def _drop(self, name: str) -> None:
        served = self._served.pop(name, None)
        if served is not None:
            self._deployments.release(name, served.pool)

    # -- making ready ----------------------------------------------------------------------------------------

    def make_ready(self, name: str) -> asyncio.Task[None]:
        """Carry out what is pending for a model, in a task of the engine's; one at a time for each model."""
        return self._once(("ready", name), self._carry_out(name))

    def _once(self, key: tuple[str, str], work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._work.get(key)
        if task is not None:
            work.close()
            return task
        task = self._work[key] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda done: self._over(key, done))
        return task

    def _over(self, key: tuple[str, str], task: asyncio.Task[Any]) -> None:
        self._work.pop(key, None)
        if not task.cancelled():
            task.exception()  # It is in the record, and with those who waited; nobody else needs to hear of it.

    async def _carry_out(self, name: str) -> None:
        """Whoever gets the model's lock carries on, also after another process that died at it."""
        async with file_lock(self._locks / f"model-{name}"):
            while (record := await self._begun(name)) is not None:
                spec, plan = _intended(record)
                ready = replace(record, spec=spec, plan=plan, status=ModelStatus.READY, pending=None)
                try:
                    async with self._tried(record, spec, plan):
                        if await self._catalog.change(name, _unless_changed(record, ready)) is not None:
                            await self._enter(name, afresh=True)
                except LLMEngineError as error:
                    if await self._failed(name, error.message, of=record):
                        raise
                    # It was changed meanwhile, so that this failure says nothing of it any more.

    async def _begun(self, name: str) -> ModelRecord | None:
        """The model, marked as being worked on; None where nothing is pending."""
        return await self._catalog.change(
            name,
            lambda now: replace(now, status=ModelStatus.UPDATE_IN_PROGRESS) if now.is_pending else None,
        )

    @asynccontextmanager
    async def _tried(self, record: ModelRecord, spec: ModelSpec, plan: Plan) -> AsyncIterator[None]:
        """With the weights prepared; where a model changes what it runs, also with a replica of its new form.

        An adapter is loaded in any case: whether it fits its base only the engine can tell.
        """
        form = await self._form(spec, plan)
        new = record.pending is None
        if (new and plan.adapter is None) or (not new and form == await self._present(record)):
            yield
            return
        trial = f"{spec.name} (trial)"
        pool, adapter = await self._lease(spec, plan, holder=trial)
        try:
            await pool.ready(None)
            if adapter is not None:
                await pool.have_adapter(adapter)
            yield
        finally:
            self._deployments.release(trial, pool)

    async def _form(self, spec: ModelSpec, plan: Plan) -> tuple[str, Adapter | None]:
        """What tells apart whatever models run: a deployment's key, and what is loaded on it."""
        deployment = await self._provisioner.prepare(spec, plan)
        return deployment.key, await self._provisioner.adapter(spec, plan)

    async def _present(self, record: ModelRecord) -> tuple[str, Adapter | None] | None:
        """What a model runs; None where that is gone, so that a change is what mends it."""
        served = self._served.get(record.spec.name)
        if served is not None and (served.record.spec, served.record.plan) == (record.spec, record.plan):
            return served.pool.deployment.key, served.adapter  # its files may be others by now
        try:
            return await self._form(record.spec, record.plan)
        except LLMEngineError:
            return None

    async def _failed(self, name: str, reason: str, *, of: ModelRecord) -> bool:
        """Note why a change failed, unless the model isn't what it was; whether it was noted."""

        def noted(now: ModelRecord) -> ModelRecord | None:
            if now != of:
                return None
            return replace(now, status=ModelStatus.UPDATE_FAILED, pending=None, reason=reason)

        return await self._catalog.change(name, noted) is not None

    async def _note_health(self, name: str, error: LLMEngineError | None) -> None:
        """Note that a model's starts fail, or succeed after all; a change that is pending decides for itself."""

        def noted(now: ModelRecord) -> ModelRecord | None:
            if now.is_pending or now.status is ModelStatus.DELETE_IN_PROGRESS:
                return None
            if error is None:
                return replace(now, status=ModelStatus.READY, reason=None)
            return replace(now, status=ModelStatus.UPDATE_FAILED, reason=error.message)

        await self._catalog.change(name, noted)

    async def stop(self, name: str) -> None:
        """End what is being carried out for a model."""
        task = self._work.get(("ready", name))
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def aclose(self) -> None:
        """End what is being carried out; it goes on with whoever needs it next."""
        tasks = list(self._work.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _homeless(pool: Pool) -> bool:
    """Whether a pool could start no replica, since the environment that it starts them in was removed."""
    python = pool.deployment.python
    return bool(python) and not pool.size and not await asyncio.to_thread(os.access, python, os.X_OK)


def _unless_changed(was: ModelRecord, ready: ModelRecord) -> Callable[[ModelRecord], ModelRecord | None]:
    """A change to ``ready`` of a model that is still what it ``was``."""
    return lambda now: ready if now == was else None


def _intended(record: ModelRecord) -> tuple[ModelSpec, Plan]:
    """What a model is to become."""
    if record.pending is None:
        return record.spec, record.plan
    return from_json(ModelSpec, record.pending["spec"]), from_json(Plan, record.pending["plan"])
