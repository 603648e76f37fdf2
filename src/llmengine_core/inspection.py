"""Looks before anything is decided: at the weights, at the engines that are here, at this machine.

All the input and output that a decision needs is here; none of it imports an engine.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Iterable
from importlib import metadata

from llmengine_core.host import host_facts
from llmengine_core.plugins import describe_error, import_object
from llmengine_core.registry import Registry
from llmengine_core.types.declarations import BackendInfo
from llmengine_core.types.models import ModelCard, ModelSpec
from llmengine_core.types.plan import BackendFacts, EnvironmentFacts, Facts, HostFacts, Problem
from llmengine_core.weights import find_weights

__all__ = ["inspect"]


async def inspect(spec: ModelSpec, card: ModelCard | None, registry: Registry) -> Facts:
    """See all that resolving ``spec`` may need to know; ``card`` describes ``spec.model`` where it is known.

    What is missing or broken is a ``Problem`` in the facts, never an error.
    """
    checkpoint = await find_weights(spec, card, registry)
    host, backends = await asyncio.to_thread(_look_around, registry.backends.values())
    return Facts(
        checkpoint=checkpoint,
        host=host,
        backends=backends,
        structured_checker=bool(registry.guided_decoders),
    )


def _look_around(backends: Iterable[BackendInfo]) -> tuple[HostFacts, dict[str, BackendFacts]]:
    return host_facts(), {info.name: _backend_facts(info) for info in backends}


def _backend_facts(info: BackendInfo) -> BackendFacts:
    return BackendFacts(environments=_environments(info), problems=_probe(info))


def _environments(info: BackendInfo) -> tuple[EnvironmentFacts, ...]:
    spec = info.environment
    if spec is None or not _is_here(spec.module):
        return ()
    try:
        version = metadata.version(spec.distribution)
    except (metadata.PackageNotFoundError, KeyError):
        version = ""
    return (EnvironmentFacts(python=sys.executable, version=version, holds={spec.distribution: version}),)


def _is_here(module: str) -> bool:
    """Whether a module could be imported; of a dotted name, its package, so that nothing is imported."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


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
