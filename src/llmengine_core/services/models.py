"""Models: created, changed and deleted in the store; made ready and served from here."""

from __future__ import annotations

import asyncio
import difflib
import time
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmengine_core.arguments.model import merge_model
from llmengine_core.deployments import Deployments
from llmengine_core.errors import BadRequestError, LLMEngineError, NotFoundError, ServerError
from llmengine_core.explanation import resolution_error
from llmengine_core.inspection import inspect
from llmengine_core.interfaces.store import RowConflict, RowExists, Store
from llmengine_core.locks import file_lock
from llmengine_core.pool import Pool
from llmengine_core.provisioning import Provisioner
from llmengine_core.records import from_json, to_json
from llmengine_core.registry import Registry
from llmengine_core.resolution import resolve
from llmengine_core.scaling import Bounds
from llmengine_core.services.storing import could_be_a_key, store_errors
from llmengine_core.settings import Settings
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.models import ModelCard, ModelRecord, ModelSpec, ModelStatus
from llmengine_core.types.plan import Plan

__all__ = ["Models", "Served"]

TABLE = "models"

FRESH_SECONDS = 1.0
"""How long a model that was looked up is taken to be unchanged by other processes."""
CARD_PER_WORKER = 4
"""Requests at once on one replica of a base model that nobody configured."""
PENDING = (ModelStatus.UPDATE_PENDING, ModelStatus.UPDATE_IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class Served:
    """A model that can be asked."""

    record: ModelRecord
    backend: str
    capabilities: Capabilities
    pool: Pool


@dataclass(slots=True)
class _Entry:
    served: Served
    checked_at: float


class Models:
    """``engine.models``."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        store: Store,
        provisioner: Provisioner,
        deployments: Deployments,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._store = store
        self._provisioner = provisioner
        self._deployments = deployments
        self._locks = Path(settings.home) / "locks"
        self._entries: dict[str, _Entry] = {}
        self._work: dict[str, asyncio.Task[Any]] = {}

    # -- what callers do -------------------------------------------------------------------------------------

    async def explain(self, spec: ModelSpec) -> Plan:
        """How a spec would be resolved, and why; nothing is changed."""
        card = self._registry.models.get(spec.model)
        facts = await inspect(spec, card, self._registry)
        return resolve(spec, self._registry.declarations, facts)

    async def create(self, spec: ModelSpec, *, caller: str = "root") -> ModelRecord:
        """Register a model; its weights are made ready behind the call's back (``wait`` waits for that).

        Raises ``BadRequestError`` for a name that exists, ``ResolutionError`` where nothing can serve it.
        """
        if spec.name in self._registry.models:
            raise BadRequestError(f"name={spec.name!r} is a base model's; choose another")
        if await self._row(spec.name) is not None:
            raise _exists(spec.name)
        plan = await self._resolved(spec)
        record = ModelRecord(
            id=f"model-{uuid.uuid4().hex}",
            spec=spec,
            owner=caller,
            status=ModelStatus.UPDATE_PENDING,
            plan=plan,
            created_at=time.time(),
        )
        try:
            with store_errors():
                await self._store.insert(TABLE, spec.name, to_json(record))
        except RowExists:
            raise _exists(spec.name) from None
        self._begin(spec.name)
        return replace(record, version=1)

    async def get(self, name: str, *, caller: str = "root") -> ModelRecord:
        """A model that the caller may see; raises ``NotFoundError``."""
        record = await self._record(name)
        if record is None or not _visible(record, caller):
            raise await self._not_found(name, caller)
        return record

    async def list(self, *, caller: str = "root") -> list[ModelRecord]:
        """Every model that the caller may see: base models that can be served here, then the others by name."""
        cards = [await self._card_record(card) for _, card in sorted(self._registry.models.items())]
        records = [record for record in cards if record.plan.chosen is not None]
        after: str | None = None
        while True:
            with store_errors():
                rows = await self._store.scan(TABLE, after=after)
            if not rows:
                return records
            stored = [replace(from_json(ModelRecord, row.value), version=row.version) for row in rows]
            records += [record for record in stored if _visible(record, caller)]
            after = rows[-1].key

    async def update(self, name: str, changes: Mapping[str, Any], *, caller: str = "root") -> ModelRecord:
        """Change a model; the old one serves until the new one stands.

        Raises as ``create`` does for what the change would lead to; a failure later leaves the old model
        serving, its status UPDATE_FAILED with the reason.
        """
        record = await self._owned(name, caller)
        spec = merge_model(record.spec, changes)
        plan = await self._resolved(spec)
        pending = {"spec": to_json(spec), "plan": to_json(plan)}
        record = await self._replace(
            replace(record, status=ModelStatus.UPDATE_PENDING, pending=pending, reason=None)
        )
        self._begin(name)
        return record

    async def delete(self, name: str, *, caller: str = "root") -> bool:
        """Remove a model. Requests that run finish; new ones find nothing. Weights are not touched."""
        record = await self._owned(name, caller)
        record = await self._replace(replace(record, status=ModelStatus.DELETE_IN_PROGRESS))
        task = self._work.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._forget(name)
        with store_errors():
            return await self._store.delete(TABLE, name)

    async def wait(self, name: str, *, caller: str = "root") -> ModelRecord:
        """Wait until a model that is being made ready is READY or has failed."""
        record = await self.get(name, caller=caller)
        if record.status in PENDING:
            await asyncio.wait([self._begin(name)])
            record = await self.get(name, caller=caller)
        return record

    # -- serving ---------------------------------------------------------------------------------------------

    async def serve(self, name: str, *, caller: str = "root") -> Served:
        """The model's pool, made ready if need be. Raises ``NotFoundError``, or why it can't be served."""
        entry = self._entries.get(name)
        if entry is None or time.monotonic() - entry.checked_at > FRESH_SECONDS:
            entry = await self._look_up(name, caller)
        record = entry.served.record
        if not _visible(record, caller):
            raise await self._not_found(name, caller)
        return entry.served

    async def _look_up(self, name: str, caller: str) -> _Entry:
        record = await self._record(name)
        entry = self._entries.get(name)
        if record is None or record.status is ModelStatus.DELETE_IN_PROGRESS:
            self._forget(name)
            raise await self._not_found(name, caller)
        if record.plan.chosen is None:
            raise resolution_error(record.plan)
        if record.status in PENDING and (entry is None or record.pending is None):
            record = await asyncio.shield(self._begin(name))
        elif record.status in PENDING:
            self._begin(name)
        if (
            entry is not None
            and entry.served.record.plan == record.plan
            and entry.served.record.spec == record.spec
        ):
            entry.served = replace(entry.served, record=record)
            entry.checked_at = time.monotonic()
            return entry
        return await asyncio.shield(self._once(f"{name} serve", self._enter(record)))

    async def _enter(self, record: ModelRecord) -> _Entry:
        pool = await self._pool(record.spec, record.plan)
        info = self._registry.backends[record.plan.chosen or ""]
        entry = _Entry(Served(record, info.name, info.capabilities, pool), time.monotonic())
        old = self._entries.get(record.spec.name)
        self._entries[record.spec.name] = entry
        if old is not None and old.served.pool is not pool:
            self._deployments.release(record.spec.name, old.served.pool)
        return entry

    async def _pool(self, spec: ModelSpec, plan: Plan) -> Pool:
        deployment = await self._provisioner.prepare(spec, plan)
        info = self._registry.backends.get(deployment.backend)
        if info is None:
            raise ServerError(
                f"the model {spec.name!r} needs the backend {deployment.backend!r}, whose plugin is no longer here; "
                "install it again, or update the model"
            )
        bounds = Bounds(
            min_workers=spec.min_workers,
            max_workers=spec.max_workers,
            per_worker=spec.per_worker,
            idle_seconds=self._settings.idle_seconds,
            start_seconds=self._settings.start_seconds,
            queue_size=self._settings.queue_size,
        )

        async def failed(error: LLMEngineError) -> None:
            await self._failed(spec.name, error.message)

        return self._deployments.lease(
            spec.name, deployment, lambda: self._registry.load(info), bounds, on_failed=failed
        )

    def _forget(self, name: str) -> None:
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._deployments.release(name, entry.served.pool)

    # -- making ready ----------------------------------------------------------------------------------------

    def _begin(self, name: str) -> asyncio.Task[ModelRecord]:
        """Carry out what is pending for a model, once, in a task of the engine's."""
        return self._once(name, self._carry_out(name))

    def _once(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._work.get(name)
        if task is None or task.done():
            task = self._work[name] = asyncio.get_running_loop().create_task(work)
            task.add_done_callback(_seen)
        else:
            work.close()
        return task

    async def _carry_out(self, name: str) -> ModelRecord:
        """Whoever gets the model's lock carries on, also after another process that died at it."""
        async with file_lock(self._locks / f"model-{name}"):
            record = await self._record(name)
            if record is None:
                raise NotFoundError(f"the model {name!r} was deleted meanwhile")
            if record.status not in PENDING:
                return record
            record = await self._replace(replace(record, status=ModelStatus.UPDATE_IN_PROGRESS))
            spec, plan = record.spec, record.plan
            if record.pending is not None:
                spec = from_json(ModelSpec, record.pending["spec"])
                plan = from_json(Plan, record.pending["plan"])
            try:
                pool = await self._pool(spec, plan)
                if record.pending is not None:
                    await pool.ready(None)
            except LLMEngineError as error:
                await self._failed(name, error.message)
                raise
            ready = replace(record, spec=spec, plan=plan, status=ModelStatus.READY, pending=None, reason=None)
            ready = await self._replace(ready)
            await self._enter(ready)
            return ready

    async def _failed(self, name: str, reason: str) -> None:
        record = await self._record(name)
        if record is not None and not record.builtin and record.status is not ModelStatus.DELETE_IN_PROGRESS:
            await self._replace(
                replace(record, status=ModelStatus.UPDATE_FAILED, pending=None, reason=reason)
            )

    async def _resolved(self, spec: ModelSpec) -> Plan:
        plan = await self.explain(spec)
        if plan.chosen is None:
            raise resolution_error(plan)
        return plan

    # -- records ---------------------------------------------------------------------------------------------

    async def _row(self, name: str) -> ModelRecord | None:
        if not could_be_a_key(name):
            return None
        with store_errors():
            row = await self._store.get(TABLE, name)
        return None if row is None else replace(from_json(ModelRecord, row.value), version=row.version)

    async def _record(self, name: str) -> ModelRecord | None:
        card = self._registry.models.get(name)
        if card is None:
            return await self._row(name)
        entry = self._entries.get(name)
        return entry.served.record if entry is not None else await self._card_record(card)

    async def _card_record(self, card: ModelCard) -> ModelRecord:
        spec = ModelSpec(
            name=card.name, model=card.name, inference_framework="auto", per_worker=CARD_PER_WORKER
        )
        return ModelRecord(
            id=f"model-{card.name}",
            spec=spec,
            owner="",
            status=ModelStatus.READY,
            plan=await self.explain(spec),
            created_at=0.0,
            builtin=True,
        )

    async def _replace(self, record: ModelRecord) -> ModelRecord:
        try:
            with store_errors():
                row = await self._store.replace(
                    TABLE, record.spec.name, to_json(record), version=record.version
                )
        except RowConflict:
            raise BadRequestError(
                f"the model {record.spec.name!r} was changed by somebody else at the same time; look at it and "
                "try again"
            ) from None
        entry = self._entries.get(record.spec.name)
        if entry is not None:
            entry.checked_at = 0.0
        return replace(record, version=row.version)

    async def _owned(self, name: str, caller: str) -> ModelRecord:
        record = await self.get(name, caller=caller)
        if record.builtin:
            raise BadRequestError(f"{name!r} is a base model, which can't be changed or deleted")
        if record.owner != caller:
            raise BadRequestError(
                f"the model {name!r} belongs to another caller; only its owner may change it"
            )
        return record

    async def _not_found(self, name: str, caller: str) -> NotFoundError:
        names = [record.spec.name for record in await self.list(caller=caller)]
        close = difflib.get_close_matches(name[:64], names, n=3)
        hint = (
            f"did you mean {' or '.join(map(repr, close))}?"
            if close
            else "`llmengine models list` shows what there is"
        )
        return NotFoundError(f"there is no model {name[:64]!r}; {hint}")

    async def aclose(self) -> None:
        """Stop what is being made ready; it goes on with whoever needs it next."""
        tasks = list(self._work.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _visible(record: ModelRecord, caller: str) -> bool:
    return record.builtin or record.spec.public_inference or record.owner == caller


def _exists(name: str) -> BadRequestError:
    return BadRequestError(
        f"name={name!r}: a model of that name exists; choose another, or update or delete it"
    )


def _seen(task: asyncio.Task[Any]) -> None:
    """Its error is in the record, and with those who waited; nobody else needs to hear of it."""
    if not task.cancelled():
        task.exception()
