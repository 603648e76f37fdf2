"""Models: created, looked at, changed and deleted by those who own them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmengine_core.arguments.checks import one_of
from llmengine_core.arguments.model import DOWNLOAD_FORMATS, merge_model
from llmengine_core.errors import BadRequestError
from llmengine_core.locations import shown
from llmengine_core.records import from_json, to_json
from llmengine_core.services.catalog import Catalog
from llmengine_core.services.downloads import OpenStorage, download_urls, lies_in
from llmengine_core.services.serving import Serving
from llmengine_core.types.models import ModelRecord, ModelSpec, ModelStatus
from llmengine_core.types.plan import Plan
from llmengine_core.urls import UrlPolicy

__all__ = ["Models"]


class Models:
    """``engine.models``."""

    def __init__(
        self,
        catalog: Catalog,
        serving: Serving,
        policy: UrlPolicy,
        open_storage: OpenStorage,
        *,
        uploads: str,
    ) -> None:
        """``uploads`` is the URL of the folder with all callers' files, which are nobody's weights."""
        self._catalog = catalog
        self._serving = serving
        self._policy = policy
        self._open_storage = open_storage
        self._uploads = uploads

    async def explain(self, spec: ModelSpec) -> Plan:
        """How a spec would be resolved, and why; nothing is changed."""
        return await self._catalog.explain(spec)

    async def create(self, spec: ModelSpec, *, caller: str = "root") -> ModelRecord:
        """Register a model; its weights are made ready behind the call's back (``wait`` waits for that).

        Raises ``BadRequestError`` for a name that exists, ``ResolutionError`` where nothing can serve it.
        """
        if self._catalog.is_base(spec.name):
            raise BadRequestError(f"name={spec.name!r} is a base model's; choose another")
        await self._check(spec)
        plan = await self._catalog.resolved(spec)
        record = await self._catalog.add(
            ModelRecord(
                id=f"model-{uuid.uuid4().hex}",
                spec=spec,
                owner=caller,
                status=ModelStatus.UPDATE_PENDING,
                plan=plan,
                created_at=time.time(),
            )
        )
        self._serving.make_ready(spec.name)
        return record

    async def get(self, name: str, *, caller: str = "root") -> ModelRecord:
        """A model that the caller may see; raises ``NotFoundError``.

        Others than its owner see its URLs without what may be secret in them.
        """
        return _seen_by(caller, await self._catalog.get(name, caller))

    async def list(self, *, caller: str = "root") -> list[ModelRecord]:
        """Every model that the caller may see: base models that can be served here, then the others by name."""
        return [_seen_by(caller, record) for record in await self._catalog.all(caller)]

    async def update(self, name: str, changes: Mapping[str, Any], *, caller: str = "root") -> ModelRecord:
        """Change a model; the old one serves until the new one stands.

        Raises as ``create`` does for what the change would lead to; a failure later leaves the old model
        serving, its status UPDATE_FAILED with the reason.
        """
        while (updated := await self._pend(await self._owned(name, caller), changes)) is None:
            pass  # Somebody else changed it in between: what they made of it is changed.
        self._serving.make_ready(name)
        return updated

    async def _pend(self, record: ModelRecord, changes: Mapping[str, Any]) -> ModelRecord | None:
        """Note a change of a model to be carried out; None where the model is no longer what it was."""
        base = record.spec if record.pending is None else from_json(ModelSpec, record.pending["spec"])
        spec = merge_model(base, changes)
        await self._check(spec)
        pending = {"spec": to_json(spec), "plan": to_json(await self._catalog.resolved(spec))}

        def noted(now: ModelRecord) -> ModelRecord | None:
            if (now.spec, now.pending) != (record.spec, record.pending):
                return None
            if now.status is ModelStatus.DELETE_IN_PROGRESS:
                return None
            return replace(now, status=ModelStatus.UPDATE_PENDING, pending=pending, reason=None)

        return await self._catalog.change(record.spec.name, noted)

    async def delete(self, name: str, *, caller: str = "root") -> bool:
        """Remove a model. Requests that run finish; new ones find nothing. Weights are not touched."""
        await self._owned(name, caller)
        await self._catalog.change(name, lambda now: replace(now, status=ModelStatus.DELETE_IN_PROGRESS))
        await self._serving.stop(name)
        await self._serving.forget(name)
        return await self._catalog.remove(name)

    async def wait(self, name: str, *, caller: str = "root") -> ModelRecord:
        """Wait until a model that is being made ready is READY or has failed."""
        while (record := await self.get(name, caller=caller)).is_pending:
            making = self._serving.make_ready(name)
            await asyncio.wait([making])
            failed = None if making.cancelled() else making.exception()
            if failed is not None:
                now = await self.get(name, caller=caller)
                if now.is_pending and (now.spec, now.pending) == (record.spec, record.pending):
                    raise failed  # it could not even be noted: on a full disk, for instance
        return record

    async def download(
        self, name: str, *, download_format: str = "hugging_face", caller: str = "root"
    ) -> dict[str, str]:
        """M12: the URL of each file of a model whose weights are its owner's own, by file name.

        What lies in a storage can be fetched by these URLs for an hour, what is on this machine for as long as it
        is. Raises ``NotFoundError``, ``BadRequestError`` for a base model's weights or another caller's, and as
        ``download_urls`` does.
        """
        one_of("download_format", download_format, DOWNLOAD_FORMATS)
        record = await self._owned(name, caller, "have its files", "has no files of its own")
        location, plan = record.spec.checkpoint_path, record.plan
        if location is None:
            raise BadRequestError(
                f"the model {name!r} is served from the weights of the base model {record.spec.model!r}, which are "
                "nobody's to give; files can be had of models that were created with a checkpoint_path"
            )
        if await asyncio.to_thread(lies_in, self._uploads, location):
            raise BadRequestError(
                f"the weights of {name!r} lie at {shown(location)}, beside the files of all callers, which are their "
                "owners' only; have them in a folder of their own"
            )
        return await download_urls(location, (plan.adapter or plan.checkpoint).path, self._open_storage)

    async def _check(self, spec: ModelSpec) -> None:
        """Refuse callers' files as weights, and a callback to where none is sent.

        What the name of a callback's host leads to is asked when it is sent.
        """
        location = spec.checkpoint_path
        if location is not None and await asyncio.to_thread(lies_in, location, self._uploads):
            raise BadRequestError(
                f"checkpoint_path={shown(location)!r} is where the files of all callers lie, which are their owners' "
                "only; put weights into a folder of their own"
            )
        if spec.default_callback_url is not None:
            self._policy.check(spec.default_callback_url, field="default_callback_url")

    async def _owned(
        self,
        name: str,
        caller: str,
        right: str = "change it",
        base: str = "can't be changed or deleted",
    ) -> ModelRecord:
        """A model of the caller's; ``right`` is what only its owner may do, ``base`` what is so of base models."""
        record = await self.get(name, caller=caller)
        if record.builtin:
            raise BadRequestError(f"{name!r} is a base model, which {base}")
        if record.owner != caller:
            raise BadRequestError(f"the model {name!r} belongs to another caller; only its owner may {right}")
        return record


def _seen_by(caller: str, record: ModelRecord) -> ModelRecord:
    """A model as a caller may see it: what grants access to its weights or callbacks is its owner's only."""
    if record.builtin or record.owner == caller:
        return record
    spec, plan = record.spec, record.plan
    return replace(
        record,
        spec=replace(
            spec,
            checkpoint_path=spec.checkpoint_path and shown(spec.checkpoint_path),
            default_callback_url=spec.default_callback_url and shown(spec.default_callback_url),
        ),
        plan=replace(
            plan,
            checkpoint=replace(plan.checkpoint, url=shown(plan.checkpoint.url)),
            adapter=plan.adapter and replace(plan.adapter, url=shown(plan.adapter.url)),
        ),
        pending=None,
    )
