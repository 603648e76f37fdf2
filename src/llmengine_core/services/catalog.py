"""The models there are: rows of the store, and base models that stand ready by their cards."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace

from llmengine_core.cards import cards_here
from llmengine_core.errors import BadRequestError, NotFoundError
from llmengine_core.explanation import resolution_error
from llmengine_core.inspection import inspect
from llmengine_core.interfaces.store import RowConflict, RowExists, Store
from llmengine_core.records import from_json, to_json
from llmengine_core.registry import Registry
from llmengine_core.resolution import resolve
from llmengine_core.services.storing import could_be_a_key, store_errors
from llmengine_core.settings import Settings
from llmengine_core.types.models import ModelCard, ModelRecord, ModelSpec, ModelStatus
from llmengine_core.types.plan import Plan

__all__ = ["Catalog"]

TABLE = "models"

CARD_PER_WORKER = 4
"""Requests at once on one replica of a base model that nobody configured."""


class Catalog:
    """Looks models up, changes them by compare-and-set, and resolves specs."""

    def __init__(self, settings: Settings, registry: Registry, store: Store) -> None:
        self._settings = settings
        self._registry = registry
        self._store = store

    # -- resolution ------------------------------------------------------------------------------------------

    async def explain(self, spec: ModelSpec, *, afar: bool = True) -> Plan:
        """How a spec would be resolved, and why; unless ``afar``, without a look at what a card names elsewhere."""
        card = self._registry.models.get(spec.model)
        facts = await inspect(spec, card, self._registry, self._settings, afar=afar)
        return resolve(spec, self._registry.declarations, facts)

    async def resolved(self, spec: ModelSpec) -> Plan:
        """The plan for a spec; raises ``ResolutionError`` where nothing fits."""
        plan = await self.explain(spec)
        if plan.chosen is None:
            raise resolution_error(plan)
        return plan

    # -- looking up ------------------------------------------------------------------------------------------

    def is_base(self, name: str) -> bool:
        """Whether a base model is called so."""
        return name in self._registry.models

    async def find(self, name: str) -> ModelRecord | None:
        """The model of that name, whoever owns it; of a base model, what serves it on this machine now."""
        card = self._registry.models.get(name)
        if card is not None:
            return await self._by_card(card)
        if not could_be_a_key(name):
            return None
        with store_errors():
            row = await self._store.get(TABLE, name)
        return None if row is None else replace(from_json(ModelRecord, row.value), version=row.version)

    async def get(self, name: str, caller: str) -> ModelRecord:
        """A model that the caller may see; raises ``NotFoundError``."""
        record = await self.find(name)
        if record is None or not record.visible_to(caller):
            raise await self.missing(name, caller)
        return record

    async def all(self, caller: str) -> list[ModelRecord]:
        """Every model that the caller may see: base models that are here and can be served, then the others by name."""
        here = await cards_here(self._registry, self._settings)
        found = [await self._by_card(self._registry.models[name]) for name in sorted(here)]
        records = [record for record in found if record.plan.chosen is not None]
        return records + [record for record in await self._stored() if record.visible_to(caller)]

    async def _stored(self) -> list[ModelRecord]:
        """Every model that was created, by name."""
        records: list[ModelRecord] = []
        after: str | None = None
        while True:
            with store_errors():
                rows = await self._store.scan(TABLE, after=after)
            if not rows:
                return records
            records += [replace(from_json(ModelRecord, row.value), version=row.version) for row in rows]
            after = rows[-1].key

    async def missing(self, name: str, caller: str) -> NotFoundError:
        """The error for a name that the caller can't find, with what may have been meant: what is here comes first."""
        stored = [record.spec.name for record in await self._stored() if record.visible_to(caller)]
        here = await cards_here(self._registry, self._settings)
        names = list(dict.fromkeys([*stored, *sorted(here), *sorted(self._registry.models)]))
        close = [each for each in names if name.lower() in each.lower()][:3]
        close = close or difflib.get_close_matches(name[:64], names, n=3)
        hint = "`llmengine models list` shows what there is"
        if close:
            hint = f"did you mean {' or '.join(map(repr, close))}?"
        return NotFoundError(f"there is no model {name[:64]!r}; {hint}")

    async def _by_card(self, card: ModelCard) -> ModelRecord:
        spec = ModelSpec(
            name=card.name, model=card.name, inference_framework="auto", per_worker=CARD_PER_WORKER
        )
        return ModelRecord(
            id=f"model-{card.name}",
            spec=spec,
            owner="",
            status=ModelStatus.READY,
            plan=await self.explain(spec, afar=False),
            created_at=0.0,
            builtin=True,
        )

    # -- changing --------------------------------------------------------------------------------------------

    async def add(self, record: ModelRecord) -> ModelRecord:
        """Insert a model. Of several that add one name at once, one wins; the others see ``BadRequestError``."""
        try:
            with store_errors():
                row = await self._store.insert(TABLE, record.spec.name, to_json(record))
        except RowExists:
            raise BadRequestError(
                f"name={record.spec.name!r}: a model of that name exists; choose another, or update or delete it"
            ) from None
        return replace(record, version=row.version)

    async def change(
        self, name: str, change: Callable[[ModelRecord], ModelRecord | None]
    ) -> ModelRecord | None:
        """Change a model to what ``change`` makes of it as it is now; None from either is no change.

        Where somebody else is first, ``change`` is asked again about what they made of it.
        """
        while True:
            record = await self.find(name)
            changed = None if record is None or record.builtin else change(record)
            if record is None or changed is None:
                return None
            try:
                with store_errors():
                    row = await self._store.replace(TABLE, name, to_json(changed), version=record.version)
            except RowConflict:
                continue
            return replace(changed, version=row.version)

    async def remove(self, name: str) -> bool:
        """Delete a model; whether there was one."""
        with store_errors():
            return await self._store.delete(TABLE, name)
