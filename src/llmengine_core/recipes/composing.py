"""From what is registered to the environment of an engine with all that is to be in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from llmengine_core.recipes.merging import merge
from llmengine_core.recipes.recipe import Conflict, Recipe
from llmengine_core.recipes.versions import ANY_VERSION
from llmengine_core.types.declarations import (
    BackendInfo,
    Declarations,
    Declared,
    EnvironmentSpec,
    GuidedDecoderInfo,
    QuantizerInfo,
    TransformInfo,
)

__all__ = ["compose", "environment_specs", "masker_for", "owners", "pins_wanted", "quantizer_for"]


def compose(
    owner: BackendInfo | TransformInfo,
    declarations: Declarations,
    *,
    tag: str = ANY_VERSION,
    accelerator: str = "cpu",
    methods: Sequence[str] = (),
    pins: Mapping[str, Mapping[str, str]],
) -> Recipe | Conflict:
    """The environment of a backend or a transform.

    A backend's has the masker that constraints are enforced by, where it takes one, and for each of ``methods``
    that the backend doesn't know by itself the quantizer that does; a transform's is its own alone.
    """
    if owner.environment is None:
        return Conflict(f"{owner.name} needs no environment")
    parts: list[EnvironmentSpec | None] = []
    if isinstance(owner, BackendInfo):
        masker = masker_for(owner, declarations.guided_decoders)
        parts.append(masker.environment if masker else None)
        for method in methods:
            quantizer = quantizer_for(owner.name, method, declarations.quantizers)
            if quantizer is not None:
                parts.append(quantizer.environment)
            elif method not in owner.quantizations:
                return _no_quantizer(owner.name, method, declarations)
    elif methods:
        return Conflict(f"{owner.name} is a transform: nothing quantizes beside it", "leave --quantize out")
    given = [part for part in parts if part is not None]
    return merge(owner.name, owner.environment, tag=tag, accelerator=accelerator, parts=given, pins=pins)


def owners(declarations: Declarations) -> Mapping[str, BackendInfo | TransformInfo]:
    """By name, the backends and transforms that can have environments of their own."""
    found: dict[str, BackendInfo | TransformInfo] = {}
    infos: list[BackendInfo | TransformInfo] = [each.info for each in declarations.backends]
    infos += [each.info for each in declarations.transforms]
    for info in infos:
        if info.environment is not None and info.environment.builds:
            found.setdefault(info.name, info)
    return found


def environment_specs(declarations: Declarations) -> tuple[EnvironmentSpec, ...]:
    """Whatever anything that is registered asks of an environment, each once."""
    specs = [each.info.environment for each in declarations.backends]
    specs += [each.info.environment for each in declarations.transforms]
    specs += [each.info.environment for each in declarations.quantizers]
    specs += [each.info.environment for each in declarations.guided_decoders]
    return tuple(dict.fromkeys(each for each in specs if each is not None))


def pins_wanted(specs: Iterable[EnvironmentSpec]) -> frozenset[str]:
    """The references of all pins that merging these may need."""
    return frozenset(build.pins for spec in specs for build in spec.builds if build.pins is not None)


def quantizer_for(
    backend: str, method: str, quantizers: Iterable[Declared[QuantizerInfo]]
) -> QuantizerInfo | None:
    """The best quantizer that gives a backend this method; it may be asked for by its own name too."""
    fitting = [
        each.info
        for each in quantizers
        if backend in each.info.backends
        and method in {each.info.name, *(way.name for way in each.info.methods), *each.info.stored}
    ]
    return min(fitting, key=_preference, default=None)


def masker_for(
    backend: BackendInfo, decoders: Iterable[Declared[GuidedDecoderInfo]]
) -> GuidedDecoderInfo | None:
    """The best guided decoder whose masker can run beside a backend; None where it takes none."""
    dialect = backend.capabilities.structured_dialect
    fitting = [
        each.info
        for each in decoders
        if backend.takes_masker and each.info.masker is not None and dialect in each.info.dialects
    ]
    return min(fitting, key=_preference, default=None)


def _preference(info: QuantizerInfo | GuidedDecoderInfo) -> tuple[int, str]:
    return -info.priority, info.name


def _no_quantizer(backend: str, method: str, declarations: Declarations) -> Conflict:
    known = sorted(
        {
            way.name
            for each in declarations.quantizers
            if backend in each.info.backends
            for way in each.info.methods
        }
    )
    offered = f"known are {', '.join(known)}" if known else "no plugin here brings one"
    return Conflict(f"no quantizer gives {backend} the method {method!r}; {offered}")
