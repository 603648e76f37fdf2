"""How a whole engine is put together, asked, and put together anew on what it has left."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from llmengine_core.arguments.completion import parse_completion
from llmengine_core.arguments.model import parse_model
from llmengine_core.engine import Engine
from llmengine_core.services.completions import Completed, CompletionStream
from llmengine_core.settings import Settings, load_settings
from llmengine_core.testing.laws import Contract
from llmengine_core.types.models import ModelSpec

__all__ = ["Composition", "EngineGround"]


@dataclass
class Composition:
    """An engine on a state folder, and those that went before it."""

    settings: Settings
    plugins: tuple[ModuleType, ...]
    engine: Engine
    numbers: itertools.count[int] = field(default_factory=itertools.count)


class EngineGround(Contract):
    """A composition: which backend serves which model, with which store and storage."""

    kind = "engine"
    model: ClassVar[str]
    """A base model that is here."""
    backend: ClassVar[str] = "auto"
    """What serves it, as in ``inference_framework``."""
    plugins: ClassVar[tuple[str, ...]] = ()
    """Modules of plugins besides the installed ones."""
    fields: ClassVar[Mapping[str, Any]] = {}
    """Further settings: ``{"database_url": "...", "storage_url": "..."}``; "{home}" in a text is the state folder."""
    prompt: ClassVar[str] = "one two three"

    @classmethod
    def settings(cls, home: Path) -> Settings:
        """The settings of an engine with that state folder."""
        given = {
            name: value.replace("{home}", str(home)) if isinstance(value, str) else value
            for name, value in cls.fields.items()
        }
        return load_settings(home=home, **given)

    @classmethod
    def engine_of(cls, settings: Settings, plugins: tuple[ModuleType, ...]) -> Engine:
        """An engine that isn't open yet."""
        return Engine(settings, plugins=plugins)

    @classmethod
    @asynccontextmanager
    async def shared(cls) -> AsyncIterator[Composition]:
        holder = await asyncio.to_thread(
            tempfile.TemporaryDirectory, prefix="engine-", ignore_cleanup_errors=True
        )
        try:
            settings = await asyncio.to_thread(cls.settings, Path(holder.name))
            names = (*cls.plugins, "llmengine_core.testing.listening")
            plugins = tuple([await asyncio.to_thread(importlib.import_module, name) for name in names])
            composition = Composition(settings, plugins, cls.engine_of(settings, plugins))
            await composition.engine.__aenter__()
            try:
                yield composition
            finally:
                await composition.engine.aclose()
        finally:
            await asyncio.to_thread(holder.cleanup)

    @property
    def composition(self) -> Composition:
        """The engine that all laws share, and what it stands on."""
        found: Composition = self.given
        return found

    @property
    def engine(self) -> Engine:
        """The engine as it is now."""
        return self.composition.engine

    async def reopened(self, *, crash: bool = False) -> None:
        """Another engine on the same state: after the first was closed, or as if it had died in the midst of it."""
        old = self.engine
        if not crash:
            await old.aclose()
        new = self.engine_of(self.composition.settings, self.composition.plugins)
        await new.__aenter__()
        self.composition.engine = new
        if crash:
            await old.aclose()

    def fresh(self) -> str:
        """The beginning of names that nobody has yet."""
        return f"law-{next(self.composition.numbers)}-"

    def spec(self, name: str, **fields: object) -> ModelSpec:
        """A model of the base model; raises what is wrong with the fields."""
        given: dict[str, object] = {
            "name": name,
            "model": self.model,
            "inference_framework": self.backend,
            "inference_framework_image_tag": "latest",
        }
        return parse_model(**(given | fields))

    async def complete(self, model: str, caller: str = "root", **fields: object) -> Completed:
        """A whole answer, as likely as can be."""
        given: dict[str, Any] = {"prompt": self.prompt, "temperature": 0, "max_new_tokens": 8, **fields}
        return await self.engine.completions.create(parse_completion(model=model, **given), caller=caller)

    async def stream(self, model: str, caller: str = "root", **fields: object) -> CompletionStream:
        """The same as a stream."""
        given: dict[str, Any] = {"prompt": self.prompt, "temperature": 0, "max_new_tokens": 8, **fields}
        return await self.engine.completions.stream(parse_completion(model=model, **given), caller=caller)
