"""Where an engine would run: which of the environments that it is in, and what would have to be installed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llmengine_core.recipes import ANY_VERSION, Conflict, compose, is_version
from llmengine_core.types.declarations import (
    BackendInfo,
    Declarations,
    EnvironmentSpec,
    GuidedDecoderInfo,
    QuantizerInfo,
    TransformInfo,
)
from llmengine_core.types.plan import EnvironmentFacts

__all__ = [
    "Pins",
    "Place",
    "accelerator_of",
    "choose",
    "holds",
    "install",
    "maskers_by_dialect",
    "runs_on",
]

Pins = Mapping[str, Mapping[str, str]]
"""``Facts.pins``."""


@dataclass(frozen=True, slots=True)
class Place:
    """An environment that an engine would run in."""

    environment: EnvironmentFacts
    why: str
    """Why this one and no other, for people; "" where it is the only one."""
    masker: GuidedDecoderInfo | None
    """The best that can run in it."""


def accelerator_of(info: BackendInfo, gpus: int | None) -> str:
    """What a backend would compute on: a GPU where one is asked for, or where it runs on nothing else."""
    wanted = "cuda" if gpus else "cpu"
    return wanted if wanted in info.accelerators else min(info.accelerators)


def maskers_by_dialect(decoders: Iterable[GuidedDecoderInfo]) -> Mapping[str, Sequence[GuidedDecoderInfo]]:
    """The guided decoders that have a masker, by the language that they translate into; the best first."""
    found: dict[str, list[GuidedDecoderInfo]] = {}
    for info in sorted(decoders, key=lambda info: (-info.priority, info.name)):
        if info.masker is not None:
            for dialect in info.dialects:
                found.setdefault(dialect, []).append(info)
    return found


def choose(
    environments: Iterable[EnvironmentFacts],
    *,
    tag: str = ANY_VERSION,
    accelerator: str = "cpu",
    quantizer: QuantizerInfo | None = None,
    maskers: Sequence[GuidedDecoderInfo] = (),
) -> Place | None:
    """The environment of the version and for the device wanted that has most of the rest; None where there is none.

    Those with the quantizer come first, then those with a better of the maskers, which are in order of preference,
    then the current one; then they stay in the order that they are in, which has the newest version first.
    """
    fitting = [each for each in environments if runs_on(each, accelerator) and is_version(tag, each.version)]
    if not fitting:
        return None
    best, why = fitting[0], ""
    if len(fitting) > 1:
        ranked = sorted((*_lacks(each, quantizer, maskers), at) for at, each in enumerate(fitting))
        best = fitting[ranked[0][-1]]
        why = _why(ranked, quantizer, maskers)
    return Place(best, why, next((each for each in maskers if holds(best, each.environment)), None))


def runs_on(environment: EnvironmentFacts, accelerator: str) -> bool:
    """Whether an environment was built for a device; where nobody said, it is taken to be."""
    return environment.accelerators is None or accelerator in environment.accelerators


def holds(environment: EnvironmentFacts, spec: EnvironmentSpec | None) -> bool:
    """Whether a part's distribution is in an environment; a part without one needs nothing."""
    return spec is None or spec.distribution in environment.holds


def install(
    owner: BackendInfo | TransformInfo,
    declarations: Declarations,
    pins: Pins,
    *,
    tag: str = ANY_VERSION,
    accelerator: str = "cpu",
    method: str | None = None,
    quantizer: QuantizerInfo | None = None,
    masker: GuidedDecoderInfo | None = None,
) -> str | Conflict:
    """The command that brings an environment for a backend or a transform, or why there can't be one.

    ``quantizer`` is what must be in it for ``method``, ``masker`` the best that could be. What has no builds of its own
    lives in the current environment; a transform that needs just what a backend needs runs in the backend's.
    """
    spec = owner.environment
    if isinstance(owner, TransformInfo):
        owner = next((each.info for each in declarations.backends if each.info.environment == spec), owner)
    if spec is None:
        return Conflict(f"{owner.name} needs none")
    beside = quantizer.environment if quantizer else None
    if not spec.builds:
        return _pip_install(spec, tag, beside, masker.environment if masker else None)
    methods = (method,) if method is not None and beside is not None else ()
    found = compose(owner, declarations, tag=tag, accelerator=accelerator, methods=methods, pins=pins)
    if isinstance(found, Conflict):
        return found
    command = ["llmengine", "engines", "install", owner.name]
    command += ["--version", tag] if tag != ANY_VERSION else []
    command += ["--accelerator", accelerator] if accelerator != "cpu" else []
    command += [part for each in methods for part in ("--quantize", each)]
    return shlex.join(command)


def _pip_install(spec: EnvironmentSpec, tag: str, *beside: EnvironmentSpec | None) -> str:
    exact = (f"{spec.distribution}=={tag}",) if tag != ANY_VERSION else ()
    wanted = list(exact or spec.requirements or (spec.distribution,))
    for part in beside:
        if part is not None:
            wanted += part.requirements or (part.distribution,)
    return shlex.join(["python", "-m", "pip", "install", *wanted])


def _lacks(
    environment: EnvironmentFacts, quantizer: QuantizerInfo | None, maskers: Sequence[GuidedDecoderInfo]
) -> tuple[bool, int, bool]:
    """What counts against an environment, the gravest first."""
    without = quantizer is not None and not holds(environment, quantizer.environment)
    held = (at for at, each in enumerate(maskers) if holds(environment, each.environment))
    return without, next(held, len(maskers)), environment.name != ""


def _why(
    ranked: Sequence[tuple[bool, int, bool, int]],
    quantizer: QuantizerInfo | None,
    maskers: Sequence[GuidedDecoderInfo],
) -> str:
    """What the first has before the second."""
    first, second = ranked[:2]
    if quantizer is not None and first[0] != second[0]:
        return f"it has {quantizer.name}"
    if first[1] != second[1]:
        return f"it has {maskers[first[1]].name}"
    if first[2] != second[2]:
        return "llmengine itself runs in it"
    return f"the newest of {len(ranked)}"
