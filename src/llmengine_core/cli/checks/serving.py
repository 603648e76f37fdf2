"""What it takes to serve a model: plugins, engines, checkers of constraints, weights."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Literal

from llmengine_core.cards import cards_here
from llmengine_core.cases import GET_MASKER
from llmengine_core.cli.checks.finding import ROOM_WANTED, Finding
from llmengine_core.inspection import inspect, look_around
from llmengine_core.looks import HERE, scheme_of
from llmengine_core.placement import accelerator_of, holds, install, maskers_by_dialect
from llmengine_core.recipes import Conflict
from llmengine_core.registry import Registry
from llmengine_core.resolution import resolve
from llmengine_core.settings import Settings
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.plan import Verdict

__all__ = ["engines", "guided", "models", "plugins"]


def plugins(settings: Settings, registry: Registry) -> Iterator[Finding]:
    """What failed, and what was left out."""
    for fault in registry.faults:
        yield Finding("broken", f"the plugin {fault.plugin!r} {fault.message}", fault.mend)
    yield Finding("ok", f"loaded: {', '.join(each.name for each in registry.plugins)}")
    if registry.left_out:
        names = ", ".join(fault.plugin for fault in registry.left_out)
        yield Finding("ok", f"left out by the settings: {names}")


def engines(settings: Settings, registry: Registry) -> Iterator[Finding]:
    """Every backend's engine is here, and its probe finds nothing wrong."""
    facts = look_around(registry, settings)
    for name, info in registry.backends.items():
        seen = facts.backends[name]
        for problem in seen.problems:
            yield Finding("broken", f"{name}: {problem.message}", problem.mend)
        if info.environment is not None and not seen.environments:
            # What has environments of its own is whole without one: not everybody needs every engine.
            level: Literal["advice", "broken"] = "advice" if info.environment.builds else "broken"
            found = install(info, registry.declarations, facts.pins, accelerator=accelerator_of(info, None))
            message = f"{name}: its engine {info.environment.distribution} is not installed"
            if isinstance(found, Conflict):
                yield Finding(level, f"{message}, and can't be: {found.reason}", found.mend)
            else:
                yield Finding(level, message, found)
        elif not seen.problems:
            places = [
                f"{each.version} ({each.name})" if each.name else each.version for each in seen.environments
            ]
            yield Finding("ok", f"{name} {', '.join(places)}".strip())
    if not registry.backends:
        yield Finding("broken", "no engine is installed", "python -m pip install llmengine-llamacpp")
    if facts.host.memory < ROOM_WANTED:
        yield Finding("advice", f"this machine has only {facts.host.memory >> 20} MiB of memory")


def guided(settings: Settings, registry: Registry) -> Iterator[Finding]:
    """Every kind of constraint that a backend enforces can be checked first, and enforced where its engine is."""
    facts = look_around(registry, settings)
    maskers = maskers_by_dialect(registry.guided_decoders.values())
    for name, info in registry.backends.items():
        dialect = info.capabilities.structured_dialect
        kinds = sorted(info.capabilities.structured)
        if missing := [kind for kind in kinds if registry.guided_decoder(kind, dialect) is None]:
            message = f"guided_{' and guided_'.join(missing)} on {name} is refused: nothing here can check it"
            yield Finding("advice", message, GET_MASKER)
            continue
        here = facts.backends[name].environments if info.takes_masker else ()
        beside = maskers.get(dialect or "", ())
        bare = [each for each in here if not any(holds(each, masker.environment) for masker in beside)]
        for each in bare:
            where = each.name or "this environment"
            message = f"constraints on {name} are refused in {where}: no masker is beside the engine"
            found = install(info, registry.declarations, facts.pins) if beside else GET_MASKER
            yield Finding("advice", message, found.mend if isinstance(found, Conflict) else found)
        if kinds and not bare:
            yield Finding("ok", f"{name}: {', '.join(kinds)}")


def models(settings: Settings, registry: Registry) -> Iterator[Finding]:
    """At least one base model can be served with what is here, or would be once a package is."""
    served, problems = [], []
    here = asyncio.run(cards_here(registry, settings))
    for name, card in registry.models.items():
        if name not in here and not any(scheme_of(source.url) in HERE for source in card.sources):
            continue  # it is fetched when somebody asks for it
        spec = ModelSpec(name=name, model=name, inference_framework="auto")
        facts = asyncio.run(inspect(spec, card, registry, settings, afar=False))
        plan = resolve(spec, registry.declarations, facts)
        if plan.chosen is not None:
            served.append(name)
        elif problem := plan.checkpoint.problem:
            problems.append(Finding("broken", problem.message, problem.mend))
        else:
            rules = [(each.name, rule) for each in plan.candidates for rule in each.rules]
            reasons = "; ".join(
                f"{engine}: {rule.fact}" for engine, rule in rules if rule.verdict is Verdict.FAILED
            )
            message = f"nothing here can serve {name!r}: {reasons or 'no engine is installed'}"
            problems.append(Finding("broken", message, f"llmengine explain {name}"))
    if served:
        yield Finding("ok", ", ".join(served))
    else:
        mend = "python -m pip install llmengine-llamacpp"
        yield from problems or [Finding("broken", "no base model is known by name", mend)]
