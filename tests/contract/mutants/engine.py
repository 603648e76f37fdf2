"""Engines that are wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from uuid import uuid4

from tests.contract.mutants import Mutant

from llmengine_core.arguments.completion import CompletionArguments
from llmengine_core.engine import Engine
from llmengine_core.errors import BadRequestError, NotFoundError
from llmengine_core.interfaces.observer import Observer
from llmengine_core.services.completions import Completions, CompletionStream
from llmengine_core.services.models import Models
from llmengine_core.settings import Settings
from llmengine_core.testing import EngineContract
from llmengine_core.testing.contracts.engines.models_machine import programs
from llmengine_core.types.models import ModelRecord, ModelSpec, ModelStatus


class Tampered(Engine):
    """One whose parts are others."""

    models_type: ClassVar[type[Models]] = Models
    completions_type: ClassVar[type[Completions]] = Completions

    async def _open(self) -> None:
        await super()._open()
        self.models.__class__ = self.models_type
        self.completions.__class__ = self.completions_type


class EngineOf(EngineContract):
    model = "echo"
    plugins = ("llmengine_core.testing.echo",)
    soon = 0.5
    program = programs(6)
    made_of: ClassVar[type[Engine]] = Engine

    @classmethod
    def engine_of(cls, settings: Settings, plugins: tuple[ModuleType, ...]) -> Engine:
        return cls.made_of(settings, plugins=plugins)


class Forgets(EngineOf):
    """Rows of each engine are its own."""

    @classmethod
    def engine_of(cls, settings: Settings, plugins: tuple[ModuleType, ...]) -> Engine:
        own = Path(settings.home) / f"{uuid4().hex}.db"
        return Engine(settings.model_copy(update={"database_url": f"sqlite:///{own}"}), plugins=plugins)


class ShowsAll(Models):
    async def list(self, *, caller: str = "root") -> list[ModelRecord]:
        return [*await super().list(caller=caller), *await self.hidden(caller)]

    async def hidden(self, caller: str) -> Sequence[ModelRecord]:
        others = {"me": "you", "you": "me"}.get(caller, "me")
        seen = {record.spec.name for record in await super().list(caller=caller)}
        return [each for each in await super().list(caller=others) if each.spec.name not in seen]


class AnyoneDeletes(Models):
    async def delete(self, name: str, *, caller: str = "root") -> bool:
        record = await self.get(name, caller=caller)
        return await super().delete(name, caller=record.owner or caller)


class NoUpdates(Models):
    async def update(self, name: str, changes: Mapping[str, Any], *, caller: str = "root") -> ModelRecord:
        record = await super().update(name, {"labels": {}}, caller=caller)
        return replace(record, spec=replace(record.spec, **changes))


class LosesUpdates(Models):
    """Reads, then writes what it read with the change, whatever came between."""

    async def update(self, name: str, changes: Mapping[str, Any], *, caller: str = "root") -> ModelRecord:
        record = await self._owned(name, caller)
        await asyncio.sleep(0.01)
        changed = await self._catalog.change(
            name, lambda now: replace(now, spec=replace(record.spec, **changes), status=ModelStatus.READY)
        )
        assert changed is not None
        return changed


class LastCreatorWins(Models):
    async def create(self, spec: ModelSpec, *, caller: str = "root") -> ModelRecord:
        try:
            return await super().create(spec, caller=caller)
        except BadRequestError:
            record = await self.get(spec.name, caller=caller)
            await super().delete(spec.name, caller=record.owner)
            return await super().create(spec, caller=caller)


class LeavesTheDeleted(Models):
    async def delete(self, name: str, *, caller: str = "root") -> bool:
        await self._owned(name, caller)
        await self._serving.stop(name)
        return await self._catalog.remove(name)


class AnswersForTheMissing(Completions):
    async def stream(self, arguments: CompletionArguments, *, caller: str = "root") -> CompletionStream:
        try:
            return await super().stream(arguments, caller=caller)
        except NotFoundError:
            return await super().stream(replace(arguments, model="echo"), caller=caller)


class TellsTwice(Completions):
    def _observed(self, request_id: str, arguments: CompletionArguments, caller: str) -> Any:
        finish = super()._observed(request_id, arguments, caller)

        def twice(*ending: Any) -> None:
            finish(*ending)
            if ending[0] is None:
                finish(*ending)

        return twice


class TellsNoCancelled(Completions):
    def _observed(self, request_id: str, arguments: CompletionArguments, caller: str) -> Any:
        finish = super()._observed(request_id, arguments, caller)
        return lambda last, error: finish(last, error) if last is not None else None


class NoHeaders(Completions):
    def _observed(self, request_id: str, arguments: CompletionArguments, caller: str) -> Any:
        return super()._observed(request_id, replace(arguments, headers={}), caller)


class LetsThemRaise(Completions):
    def _tell(self, news: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            news(observer)


class StopsAtTheFirst(Completions):
    def _tell(self, news: Callable[[Observer], None]) -> None:
        try:
            for observer in self._observers:
                news(observer)
        except Exception:
            return


def mutant(
    name: str,
    bug: str,
    *killers: str,
    models: type[Models] = Models,
    completions: type[Completions] = Completions,
    contract: type[EngineContract] | None = None,
    shipped: str = "",
) -> Mutant:
    engine = type(f"Engine_{name}", (Tampered,), {"models_type": models, "completions_type": completions})
    about = {"subject": name, "made_of": engine}
    return Mutant(name, bug, contract or type(f"Mutant_{name}", (EngineOf,), about), killers, shipped)


THEIRS = "test_m09_everybody_has_what_is_theirs"
DICT = "test_models_are_what_a_dict_says"
ONCE = "test_c12_observers_hear_each_request_once"
HARMLESS = "test_an_observer_that_raises_is_harmless"
MUTANTS: list[Mutant] = [
    mutant(
        "forgets",
        "the next engine knows none of the models",
        "test_models_outlive_the_engine",
        contract=Forgets,
        shipped="xorbitsai/inference#4068",
    ),
    mutant("shows_all", "a list shows other callers' private models", THEIRS, models=ShowsAll),
    mutant("anyone_deletes", "who may see a model may delete it", THEIRS, models=AnyoneDeletes),
    mutant("no_updates", "a change is answered, not made", THEIRS, models=NoUpdates),
    mutant(
        "loses_updates",
        "of changes made at once the last one takes the others back",
        "test_m10_changes_at_once_all_take_effect",
        models=LosesUpdates,
    ),
    mutant(
        "last_creator_wins",
        "who creates a model that exists takes its place",
        "test_m10_one_of_several_creators_wins",
        models=LastCreatorWins,
    ),
    mutant(
        "leaves_the_deleted",
        "a deleted model answers on until somebody looks",
        "test_m10_a_deleted_model_answers_nobody_new",
        models=LeavesTheDeleted,
    ),
    mutant(
        "answers_for_the_missing",
        "another model answers for one that is missing",
        "test_m10_a_deleted_model_answers_nobody_new",
        DICT,
        completions=AnswersForTheMissing,
    ),
    mutant("tells_twice", "the end of a stream that was closed is told twice", ONCE, completions=TellsTwice),
    mutant(
        "tells_no_cancelled", "the end of what was cancelled isn't told", ONCE, completions=TellsNoCancelled
    ),
    mutant(
        "no_headers",
        "the caller's headers don't reach observers",
        "test_c12_headers_and_callers_reach_observers",
        completions=NoHeaders,
    ),
    mutant(
        "lets_them_raise", "what an observer raises breaks the answer", HARMLESS, completions=LetsThemRaise
    ),
    mutant(
        "stops_at_the_first",
        "behind an observer that raises nobody hears",
        HARMLESS,
        completions=StopsAtTheFirst,
    ),
]
