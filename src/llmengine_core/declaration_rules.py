"""What makes a declaration sound: the types that its fields promise, and the rules that types can't say."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from llmengine_core.types.capabilities import COMBINABLE
from llmengine_core.types.declarations import (
    BackendInfo,
    EnvironmentBuild,
    EnvironmentSpec,
    GuidedDecoderInfo,
    Info,
    QuantizerInfo,
    StorageInfo,
    StoreInfo,
    TransformInfo,
)
from llmengine_core.types.models import ModelCard

__all__ = ["flaws"]

NAME = re.compile(r"[a-z0-9_]+")
FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
DISTRIBUTION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
SPECIFIER = "(==|!=|<=|>=|<|>) *[0-9]+([.][0-9]+)*((a|b|rc)[0-9]+)?"
PLAIN_REQUIREMENT = re.compile(
    rf"{DISTRIBUTION.pattern} *(\[{DISTRIBUTION.pattern}\])? *({SPECIFIER}( *, *{SPECIFIER})*)?"
)
"""Requirements of which this much tells that they are sound."""
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
PINS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:(?!/)(?!.*\.\.)[^:\\]+")
ACCELERATORS = frozenset({"cpu", "cuda"})
MOST_BITS = 64
SHA256 = re.compile(r"[0-9a-f]{64}")


def flaws(declaration: object, kind: type[Info | ModelCard]) -> list[str]:
    """All that is wrong with one declaration of a hook that gives ``kind``; empty where it is sound."""
    if type(declaration) is not kind:
        return [f"it is a {type(declaration).__name__}; a {kind.__name__} is wanted"]
    return list(_mistyped(declaration, "")) or list(_misruled(declaration))


def _mistyped(value: Any, path: str) -> Iterator[str]:
    """The fields of a frozen dataclass that hold something else than they promise."""
    for name, hint in _hints(value.__class__).items():
        held = getattr(value, name)
        if not _conforms(held, hint):
            shown = repr(held)
            yield f"{path}{name} is {shown[:60]}{'…' * (len(shown) > 60)}; it must be {_written(hint)}"


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _conforms(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_conforms(value, each) for each in get_args(hint))
    if origin is Literal:
        return type(value) is str and value in get_args(hint)
    if origin in (tuple, frozenset):
        return type(value) is origin and all(_conforms(each, get_args(hint)[0]) for each in value)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint and (not is_dataclass(hint) or not any(_mistyped(value, "")))


def _written(hint: Any) -> str:
    return (
        hint.__name__ if isinstance(hint, type) and not get_origin(hint) else str(hint).replace("typing.", "")
    )


def _misruled(declaration: Any) -> Iterator[str]:
    if not isinstance(declaration, ModelCard):
        if not NAME.fullmatch(declaration.name):
            yield f"name is {declaration.name!r}; it must be lower case letters, digits and '_'"
        if not FACTORY.fullmatch(declaration.factory):
            yield f'factory is {declaration.factory!r}; it must be "package.module:Class"'
    if rules := RULES.get(type(declaration)):
        yield from rules(declaration)


def _backend(info: BackendInfo) -> Iterator[str]:
    if info.probe is not None and not FACTORY.fullmatch(info.probe):
        yield f'probe is {info.probe!r}; it must be "package.module:function"'
    if not info.formats:
        yield "formats is empty; a backend loads at least one format of checkpoint"
    yield from _accelerators("accelerators", info.accelerators)
    if info.max_shards < 1:
        yield f"max_shards is {info.max_shards}; it must be at least 1"
    if unknown := info.capabilities.structured_excludes - COMBINABLE:
        yield (
            f"capabilities.structured_excludes holds {min(unknown)!r}; allowed: {', '.join(sorted(COMBINABLE))}"
        )
    if info.takes_masker and info.environment is None:
        yield "takes_masker is set, but environment is not: a masker runs where the engine does"
    if info.memory_factor <= 0:
        yield f"memory_factor is {info.memory_factor}; it must be above 0"
    yield from _environment(info.environment)


def _quantizer(info: QuantizerInfo) -> Iterator[str]:
    if not info.backends:
        yield "backends is empty; a quantizer serves at least one backend"
    if not info.methods and not info.stored:
        yield "methods and stored are empty; a quantizer has at least one of either"
    names = [method.name for method in info.methods]
    for name in sorted(set(names)):
        if not name or name != name.strip() or not name.isprintable():
            yield f"methods holds {name!r}; a method must be named"
        if names.count(name) > 1:
            yield f"methods holds {name!r} twice"
    for method in info.methods:
        if not 0 < method.bits <= MOST_BITS:
            yield f"the bits of {method.name!r} are {method.bits}; they must be above 0, and {MOST_BITS} at most"
    yield from _accelerators("accelerators", info.accelerators)
    yield from _environment(info.environment)


def _guided_decoder(info: GuidedDecoderInfo) -> Iterator[str]:
    if info.masker is not None and not FACTORY.fullmatch(info.masker):
        yield f'masker is {info.masker!r}; it must be "package.module:Class"'
    if info.masker is not None and not info.dialects:
        yield "dialects is empty; a masker reads at least one"
    yield from _environment(info.environment)


def _environment(spec: EnvironmentSpec | None) -> Iterator[str]:
    if spec is None:
        return
    if not DISTRIBUTION.fullmatch(spec.distribution):
        yield f"environment.distribution is {spec.distribution!r}; it must be the name of a distribution"
    if not MODULE.fullmatch(spec.module):
        yield f'environment.module is {spec.module!r}; it must be "package.module"'
    yield from _requirements("environment.requirements", spec.requirements)
    known: set[tuple[str, str]] = set()
    for at, build in enumerate(spec.builds):
        yield from _build(f"environment.builds[{at}]", build)
        own = {(build.version, each) for each in build.accelerators}
        for version, accelerator in sorted(own & known):
            yield f"environment.builds holds version {version!r} for {accelerator!r} twice"
        known |= own


def _build(path: str, build: EnvironmentBuild) -> Iterator[str]:
    if not VERSION.fullmatch(build.version) or build.version == "latest":
        yield f'{path}.version is {build.version!r}; it must be a version, such as "5.23.0"'
    if not build.requirements:
        yield f"{path}.requirements is empty; an environment of its own needs at least what it is for"
    yield from _requirements(f"{path}.requirements", build.requirements)
    yield from _requirements(f"{path}.overrides", build.overrides)
    yield from _accelerators(f"{path}.accelerators", build.accelerators)
    if build.pins is not None and not PINS.fullmatch(build.pins):
        yield f'{path}.pins is {build.pins!r}; it must be "package:path/in/it.txt"'


def _requirements(path: str, requirements: tuple[str, ...]) -> Iterator[str]:
    for each in requirements:
        if PLAIN_REQUIREMENT.fullmatch(each):
            continue
        from packaging.requirements import InvalidRequirement, Requirement  # a tenth of a second, for few

        try:
            if Requirement(each).url is not None:
                yield f"{path} holds {each!r}; it must not name an address, since no pin could hold it"
        except InvalidRequirement as error:
            reason = str(error).partition("\n")[0]
            yield f"{path} holds {each!r}, which is no requirement: {reason}"


def _accelerators(path: str, accelerators: frozenset[str]) -> Iterator[str]:
    if not accelerators:
        yield f'{path} is empty; it must hold "cpu", "cuda" or both'
    if unknown := accelerators - ACCELERATORS:
        yield f'{path} holds {min(unknown)!r}; allowed: "cpu", "cuda"'


def _schemes(info: StorageInfo | StoreInfo) -> Iterator[str]:
    if not info.schemes:
        yield "schemes is empty; it must hold at least one URL scheme"
    for scheme in sorted(info.schemes):
        if not SCHEME.fullmatch(scheme):
            yield f"schemes holds {scheme!r}; a scheme is lower case letters, digits, '+', '.' and '-'"


def _transform(info: TransformInfo) -> Iterator[str]:
    if not (info.source_format and info.target_format):
        yield "source_format and target_format must be named"
    if info.source_format == info.target_format and not info.methods:
        yield "it neither converts nor quantizes: its formats are equal and it has no methods"
    yield from _environment(info.environment)


def _card(card: ModelCard) -> Iterator[str]:
    if not card.name or not card.name.isprintable() or card.name != card.name.strip():
        yield f"name is {card.name!r}; it must be printable text"
    if not card.sources:
        yield "sources is empty; it must hold at least one place that the weights come from"
    for field in ("parameters", "context_length"):
        if getattr(card, field) < 1:
            yield f"{field} is {getattr(card, field)}; it must be at least 1"
    for source in card.sources:
        if "://" not in source.url:
            yield f"the source {source.url!r} is no URL"
        if source.sha256 is not None and not SHA256.fullmatch(source.sha256):
            yield f"the sha256 of {source.url!r} is {source.sha256!r}; it must be 64 lower case hex digits"


RULES: Mapping[type, Callable[[Any], Iterator[str]]] = {
    BackendInfo: _backend,
    QuantizerInfo: _quantizer,
    GuidedDecoderInfo: _guided_decoder,
    StorageInfo: _schemes,
    StoreInfo: _schemes,
    TransformInfo: _transform,
    ModelCard: _card,
}
