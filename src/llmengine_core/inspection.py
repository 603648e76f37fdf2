"""Looks before anything is decided: at the weights, at the engines that are here, at this machine.

All the input and output that a decision needs is here; none of it imports an engine.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from llmengine_core import environments
from llmengine_core.host import host_facts
from llmengine_core.plugins import describe_error, import_object
from llmengine_core.recipes import environment_specs
from llmengine_core.registry import Registry
from llmengine_core.types.declarations import BackendInfo, EnvironmentSpec
from llmengine_core.types.models import ModelCard, ModelSpec
from llmengine_core.types.plan import BackendFacts, CheckpointFacts, EnvironmentFacts, Facts, Problem
from llmengine_core.urls import UrlPolicy
from llmengine_core.weights import find_base, find_weights

if TYPE_CHECKING:
    from llmengine_core.settings import Settings

__all__ = ["inspect", "look_around"]


async def inspect(
    spec: ModelSpec, card: ModelCard | None, registry: Registry, settings: Settings, *, afar: bool = True
) -> Facts:
    """See all that resolving ``spec`` may need to know; ``card`` describes ``spec.model`` where it is known.

    What is missing or broken is a ``Problem`` in the facts, never an error. Unless ``afar``, nothing that a card
    names is looked at in a storage: it is taken at the card's word.
    """
    policy = UrlPolicy(private_hosts=settings.private_hosts)
    checkpoint, adapter = await find_weights(spec, card, registry, policy, afar=afar), None
    if checkpoint.format == "adapter":
        checkpoint, adapter = await find_base(spec, card, registry, policy, afar=afar), checkpoint
    if card is not None and checkpoint.parameters is None and checkpoint.problem is None:
        checkpoint = replace(checkpoint, parameters=card.parameters)  # it is said to be that model
    around = await asyncio.to_thread(look_around, registry, settings)
    return replace(around, checkpoint=checkpoint, adapter=adapter)


def look_around(registry: Registry, settings: Settings) -> Facts:
    """The same without weights. Reads files: on an event loop, call it in a thread."""
    backends, transforms = registry.backends.values(), registry.transforms.values()
    specs = environment_specs(registry.declarations)
    found = environments.find(settings.home, specs)

    def having(spec: EnvironmentSpec | None) -> tuple[EnvironmentFacts, ...]:
        return found[spec] if spec is not None else ()

    return Facts(
        checkpoint=CheckpointFacts(url=""),
        host=host_facts(),
        backends={
            info.name: BackendFacts(environments=having(info.environment), problems=_probe(info))
            for info in backends
        },
        transforms={
            info.name: having(info.environment) for info in transforms if info.environment is not None
        },
        pins=environments.read_pins(specs),
        allow_remote_code=settings.allow_remote_code,
        structured_checker=bool(registry.guided_decoders),
    )


def _probe(info: BackendInfo) -> tuple[Problem, ...]:
    """What a backend's own look at this machine finds wrong; one that fails is such a problem."""
    if info.probe is None:
        return ()
    try:
        found = tuple(import_object(info.probe)())
        wrong = [type(each).__name__ for each in found if not isinstance(each, Problem)]
        if wrong:
            raise TypeError(f"it gave a {wrong[0]}, not a Problem")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return (Problem(f"its probe {info.probe} failed: {describe_error(error)}"),)
    return found
