"""A backend's session on a real model, opened as the core opens one, with nothing in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import ModuleType

from llmengine_core.errors import BadRequestError
from llmengine_core.explanation import resolution_error
from llmengine_core.inspection import inspect
from llmengine_core.interfaces.backend import Backend, Session
from llmengine_core.interfaces.runtime import Replica, Runtime
from llmengine_core.members import launch
from llmengine_core.provisioning import Provisioner
from llmengine_core.registry import Registry
from llmengine_core.resolution import resolve
from llmengine_core.settings import Settings
from llmengine_core.types.declarations import BackendInfo
from llmengine_core.types.launch import Deployment
from llmengine_core.types.models import ModelSpec

__all__ = ["Opened", "deployed", "find_registry", "opened"]


@dataclass(frozen=True, slots=True)
class Opened:
    """A session, and where it came from."""

    session: Session
    info: BackendInfo
    deployment: Deployment
    backend: Backend
    runtime: Runtime
    registry: Registry
    replica: Replica | None
    """None where somebody else runs the server."""


async def find_registry(settings: Settings, plugins: Sequence[ModuleType]) -> Registry:
    """What is installed, and ``plugins`` besides."""
    return await asyncio.to_thread(lambda: Registry.build(settings, modules=plugins))


async def deployed(
    registry: Registry, settings: Settings, spec: ModelSpec, *, adapters: bool = False
) -> Deployment:
    """What to start for a spec, its weights made ready. Raises ``ResolutionError`` and what provisioning raises."""
    if spec.model not in registry.models and spec.checkpoint_path is None:
        raise BadRequestError(
            f"there is no model card {spec.model!r} to judge {spec.inference_framework!r} on; name one of those that "
            "`llmengine models zoo` lists, or a checkpoint_path"
        )
    card = registry.models.get(spec.model)
    facts = await inspect(spec, card, registry, settings)
    plan = resolve(spec, registry.declarations, facts)
    if plan.chosen is None:
        raise resolution_error(plan)

    provisioner = Provisioner(settings, registry)
    try:
        deployment = await provisioner.prepare(spec, plan)
    finally:
        provisioner.close()  # whoever tries it has it open soon, and homes of trials are nobody else's
    return replace(deployment, adapters=adapters)


@asynccontextmanager
async def opened(
    registry: Registry, settings: Settings, spec: ModelSpec, *, adapters: bool = False
) -> AsyncIterator[Opened]:
    """One replica and a session on it, both closed at the end."""
    deployment = await deployed(registry, settings, spec, adapters=adapters)
    info = registry.backends[deployment.backend]
    backend: Backend = await asyncio.to_thread(registry.load, info)
    runtime: Runtime = registry.load(registry.runtimes["local"], settings.home)
    try:
        member = await launch(backend, runtime, deployment, seconds=settings.start_seconds)
        try:
            yield Opened(member.session, info, deployment, backend, runtime, registry, member.replica)
        finally:
            await member.end()
    finally:
        await runtime.aclose()
