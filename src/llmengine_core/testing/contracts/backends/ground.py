"""What every backend promises, on one session of a real model."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from types import ModuleType
from typing import Any, ClassVar

from llmengine_core.interfaces.backend import Session
from llmengine_core.interfaces.guided import GuidedDecoder
from llmengine_core.registry import Registry
from llmengine_core.settings import Settings, load_settings
from llmengine_core.testing.contracts.sessions.ground import SessionGround
from llmengine_core.testing.laws import NotApplicable
from llmengine_core.testing.opening import Opened, opened
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import BackendInfo, GuidedDecoderInfo
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.sampling import StructuredOutput

__all__ = ["BackendGround"]


@cache
def _registry(settings: Settings, plugin: str) -> Registry:
    modules: list[ModuleType] = [importlib.import_module(plugin)] if plugin else []
    return Registry.build(settings, modules=modules)


class BackendGround(SessionGround):
    """How a backend's session is opened: as the core does it, with no pool in between."""

    kind = "backend"
    backend: ClassVar[str]
    """Its name, as in ``BackendInfo``."""
    model: ClassVar[str]
    """A model card that it can serve; with ``checkpoint`` any name."""
    checkpoint: ClassVar[str | None] = None
    """A checkpoint's path or URL to serve instead of the card's."""
    plugin: ClassVar[str] = ""
    """The plugin's module, where it isn't installed under an entry point."""
    spec: ClassVar[Mapping[str, Any]] = {}
    """Further fields of ``ModelSpec``: ``{"quantize": "q8_0"}``."""

    @classmethod
    def settings(cls) -> Settings:
        """Where engine environments and prepared weights are; by default what the process is configured with."""
        return load_settings()

    @classmethod
    def registry(cls) -> Registry:
        """All that is installed, and the plugin."""
        return _registry(cls.settings(), cls.plugin)

    @classmethod
    def info(cls) -> BackendInfo:
        """The declaration that is judged."""
        found = cls.registry().backends.get(cls.backend)
        if found is None:
            known = ", ".join(sorted(cls.registry().backends)) or "none"
            faults = "".join(f"\n  {each.plugin} {each.message}" for each in cls.registry().faults)
            raise AssertionError(f"no plugin registers the backend {cls.backend!r}, but: {known}{faults}")
        return found

    @classmethod
    def declared(cls) -> Capabilities:
        return cls.info().capabilities

    @classmethod
    @asynccontextmanager
    async def opened(cls, **changes: Any) -> AsyncIterator[Opened]:
        """A replica and a session of its own; ``changes`` are further fields of the spec."""
        given = {"checkpoint_path": cls.checkpoint, **cls.spec, **changes}
        spec = ModelSpec(name="contract", model=cls.model, inference_framework=cls.backend, **given)
        registry, settings = await asyncio.to_thread(lambda: (cls.registry(), cls.settings()))
        async with opened(registry, settings, spec, adapters=bool(cls.adapters)) as found:
            yield found

    @classmethod
    @asynccontextmanager
    async def shared(cls) -> AsyncIterator[Session]:
        async with cls.opened() as found:
            await asyncio.to_thread(cls.checkers)  # importing them blocks
            yield found.session

    @asynccontextmanager
    async def another(self) -> AsyncIterator[Session]:
        async with self.opened() as found:
            yield found.session

    @classmethod
    def checkers(cls) -> list[tuple[GuidedDecoderInfo, GuidedDecoder]]:
        """The guided decoders that speak the backend's language."""
        registry, dialect = cls.registry(), cls.declared().structured_dialect
        infos = [info for info in registry.guided_decoders.values() if dialect in info.dialects]
        return [(info, registry.load_once(info)) for info in infos]

    def checker(self, structured: StructuredOutput) -> GuidedDecoder:
        for info, decoder in self.checkers():
            if structured.kind in info.kinds:
                return decoder
        raise NotApplicable(f"no guided decoder for {structured.kind} is installed")
