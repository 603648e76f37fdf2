"""What to install for an engine with a quantizer, a masker and the like beside it: pure.

Each part brings a list of builds (``EnvironmentBuild``) that it is known to work with. A merge takes one of
each, the first that fit together, and is a ``Recipe``; or it is a ``Conflict`` that says what keeps them apart.
The same content gives the same recipe, in whatever order the parts were named.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

from llmengine_core.types.declarations import (
    BackendInfo,
    Declared,
    EnvironmentBuild,
    EnvironmentSpec,
    GuidedDecoderInfo,
    QuantizerInfo,
)

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.version import Version

__all__ = [
    "ANY_VERSION",
    "Conflict",
    "Recipe",
    "canonical",
    "is_version",
    "masker_for",
    "merge",
    "parse_pins",
    "pins_wanted",
    "quantizer_for",
    "requirement",
]

ANY_VERSION = "latest"
"""The tag that takes a plugin's preferred build."""
PYTHON = ".".join(platform.python_version_tuple()[:2])
"""The Python that runs this, and that environments are built with."""
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*==\s*([A-Za-z0-9.!+_-]+)\s*(?:;(.*))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One environment, completely: two recipes are equal where what they install is."""

    engine: str
    """The registered name of the backend or transform that it is for."""
    version: str
    """Of its distribution."""
    accelerator: str
    """"cpu" or "cuda"."""
    python: str
    """"3.11"."""
    distributions: tuple[str, ...]
    """Of the engine and of each part, canonical and sorted: what it is built for."""
    modules: tuple[str, ...]
    """What must import there in the end, sorted."""
    requirements: tuple[str, ...]
    """What is asked for (PEP 508), sorted."""
    pins: Mapping[str, str]
    """Version by canonical distribution: constraints, not requests."""
    overrides: tuple[str, ...] = ()
    """Requirements that stand in for every other one of their name, sorted."""
    digest: str = field(init=False)
    """Hex digest of all of the above."""

    def __post_init__(self) -> None:
        facts = [
            self.engine, self.version, self.accelerator, self.python, self.distributions, self.modules,
            self.requirements, dict(self.pins), self.overrides,
        ]  # fmt: skip
        text = json.dumps(facts, sort_keys=True)
        object.__setattr__(self, "digest", hashlib.sha256(text.encode()).hexdigest())

    @property
    def name(self) -> str:
        """The folder that it is built into: "transformers-5.23.0-cpu-0123abcd"."""
        return f"{self.engine}-{self.version}-{self.accelerator}-{self.digest[:8]}"

    @property
    def left_out(self) -> frozenset[str]:
        """Canonical distributions that an override's marker, which is never true, keeps out."""
        return _left_out(self.overrides)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why there is no such environment."""

    reason: str
    """For people: who wants what."""
    mend: str | None = None


def merge(
    name: str,
    spec: EnvironmentSpec,
    *,
    tag: str = ANY_VERSION,
    accelerator: str = "cpu",
    parts: Iterable[EnvironmentSpec] = (),
    pins: Mapping[str, Mapping[str, str]],
    python: str = PYTHON,
) -> Recipe | Conflict:
    """The environment of the backend or transform ``name``, with everything that ``parts`` need in it.

    Its own build is the first for the accelerator whose version ``tag`` names ("latest": any); of each part,
    the first for the accelerator that goes with the others. ``pins`` has the content of the builds' pins by
    reference (``environments.read_pins``).
    """
    own = next((each for each in _builds(spec, accelerator) if is_version(tag, each.version)), None)
    if own is None:
        return _no_build(name, spec, tag, accelerator)
    others = sorted({each for each in parts if each != spec}, key=repr)
    choices: list[Sequence[EnvironmentBuild]] = []
    for part in others:
        if not (builds := list(_builds(part, accelerator)) or _unbuilt(part)):
            return _no_build(part.distribution, part, ANY_VERSION, accelerator)
        choices.append(builds)
    first: Conflict | None = None
    for chosen in product(*choices):
        merged = _Merged([*zip((spec, *others), (own, *chosen), strict=True)], pins)
        if (conflict := merged.conflict) is None:
            return merged.recipe(name, own.version, accelerator, python)
        first = first or conflict
    assert first is not None  # `product` of no choices is one
    return first


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
    return min(fitting, key=lambda info: (-info.priority, info.name), default=None)


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
    return min(fitting, key=lambda info: (-info.priority, info.name), default=None)


def pins_wanted(specs: Iterable[EnvironmentSpec]) -> frozenset[str]:
    """The references of all pins that merging these may need."""
    return frozenset(build.pins for spec in specs for build in spec.builds if build.pins is not None)


@lru_cache(maxsize=64)
def parse_pins(text: str) -> Mapping[str, str]:
    """Version by canonical distribution, of lines "name==version", each perhaps with a marker behind ";".

    Empty lines and comments count for nothing, nor do lines whose marker isn't true here. Raises ``ValueError``
    that quotes any other line.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        said = line.partition("#")[0].strip()
        if not said:
            continue
        pin = PIN.fullmatch(said)
        if pin is None or (pin[3] is not None and not pin[3].strip()):
            raise ValueError(
                f'{line!r} is no pin; it must be "name==version", and may have a marker behind ";"'
            )
        if pin[3] is None or _holds(requirement(said)):
            found[canonical(pin[1])] = pin[2]
    return found


@lru_cache(maxsize=512)
def requirement(text: str) -> Requirement:
    """A requirement (PEP 508), taken apart. Raises ``ValueError`` where it is none."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise ValueError(f"{text!r} is no requirement: {error}") from None


def canonical(distribution: str) -> str:
    """A distribution's name as one of its many spellings (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def is_version(wanted: str, version: str) -> bool:
    """Whether a version is the one that was asked for: "latest", or the same number; "2.13" is "2.13.0+cpu" too."""
    if wanted in (ANY_VERSION, version):
        return True
    parsed, other = _parsed(wanted), _parsed(version)
    if parsed is None or other is None:
        return False
    return parsed in (other, _public(other))


class _Merged:
    """One build of each part, put together."""

    def __init__(
        self, parts: Sequence[tuple[EnvironmentSpec, EnvironmentBuild]], pins: Mapping[str, Mapping[str, str]]
    ) -> None:
        self._parts = [(_title(spec, build), build) for spec, build in parts]
        self._distributions = tuple(sorted({canonical(spec.distribution) for spec, _ in parts}))
        self._modules = tuple(sorted({spec.module for spec, _ in parts}))
        self._pins: dict[str, set[tuple[str, str]]] = {}
        """By distribution, who wants it and which version."""
        self._unread: list[str] = []
        for (spec, build), (title, _) in zip(parts, self._parts, strict=True):
            if build.version:
                self._pins.setdefault(canonical(spec.distribution), set()).add((title, build.version))
            if build.pins is not None and build.pins not in pins:
                self._unread.append(f"the pins of {title}, {build.pins}, can't be read")
            for distribution, version in pins.get(build.pins or "", {}).items():
                self._pins.setdefault(distribution, set()).add((title, version))

    @property
    def conflict(self) -> Conflict | None:
        """What keeps the parts apart, the first by the distribution's name; None where nothing does."""
        if self._unread:
            return Conflict(min(self._unread), "reinstall its plugin")
        return next(self._conflicts(), None)

    def recipe(self, engine: str, version: str, accelerator: str, python: str) -> Recipe:
        """All of it, where there is no conflict."""
        overrides = _sorted(each for _, build in self._parts for each in build.overrides)
        left_out = _left_out(overrides)
        pins = {name: self._pin(name) for name in sorted(self._pins) if name not in left_out}
        return Recipe(
            engine=engine,
            version=version,
            accelerator=accelerator,
            python=python,
            distributions=self._distributions,
            modules=self._modules,
            requirements=_sorted(each for _, build in self._parts for each in build.requirements),
            pins={name: pin for name, pin in pins.items() if pin is not None},
            overrides=overrides,
        )

    def _pin(self, name: str) -> str | None:
        """The version that all accept; None where there is none, or nobody cares."""
        return _closest(version for _, version in self._pins.get(name, ()))

    def _conflicts(self) -> Iterator[Conflict]:
        for name, wanted in sorted(self._pins.items()):
            if self._pin(name) is None:
                yield Conflict(" but ".join(f"{title} pins {name} {pin}" for title, pin in sorted(wanted)))
        overrides = self._requirements("overrides")
        for name, stated in sorted(overrides.items()):
            yield from _differing(name, stated)
        for name, asked in sorted(self._requirements("requirements").items()):
            yield from self._refused(name, asked, overrides.get(name, {}))
        for name, stated in sorted(overrides.items()):
            yield from self._refused(name, stated, {})

    def _requirements(self, kind: str) -> dict[str, dict[str, list[Requirement]]]:
        """Requirements or overrides by distribution and by who states them."""
        found: dict[str, dict[str, list[Requirement]]] = {}
        for title, build in self._parts:
            for each in map(requirement, getattr(build, kind)):
                if kind == "overrides" or _holds(each):
                    found.setdefault(canonical(each.name), {}).setdefault(title, []).append(each)
        return found

    def _refused(
        self, name: str, asked: Mapping[str, list[Requirement]], overrides: Mapping[str, list[Requirement]]
    ) -> Iterator[Conflict]:
        """What is asked for, but kept out or kept at another version by somebody else."""
        pin = self._pin(name)
        for title, each in ((title, each) for title, all_ in sorted(asked.items()) for each in all_):
            strangers = [
                (other, by) for other, stated in sorted(overrides.items()) for by in stated if other != title
            ]
            for other, override in strangers:
                if not _holds(override):
                    yield Conflict(f"{title} requires {each} but {other} leaves {name} out")
                elif str(override.specifier) != str(each.specifier) and not (pin and _allows(each, pin)):
                    yield Conflict(f"{title} requires {each} but {other} overrides it with {override}")
            if pin is not None and not overrides and _holds(each) and not _allows(each, pin):
                who = " and ".join(sorted({pinning for pinning, _ in self._pins[name]}))
                yield Conflict(f"{title} requires {each} but {who} pins {name} {pin}")


def _differing(name: str, stated: Mapping[str, list[Requirement]]) -> Iterator[Conflict]:
    """Overrides of one distribution that are not the same."""
    by_text = {str(each): title for title, all_ in sorted(stated.items()) for each in all_}
    if len(by_text) > 1:
        said = " but ".join(f"{title} overrides it with {text}" for text, title in sorted(by_text.items()))
        yield Conflict(f"{name}: {said}")


def _builds(spec: EnvironmentSpec, accelerator: str) -> Iterator[EnvironmentBuild]:
    return (each for each in spec.builds if accelerator in each.accelerators)


def _unbuilt(spec: EnvironmentSpec) -> list[EnvironmentBuild]:
    """What a part that has no builds at all asks for where it is installed."""
    if spec.builds:
        return []
    return [EnvironmentBuild(version="", requirements=spec.requirements or (spec.distribution,))]


def _no_build(name: str, spec: EnvironmentSpec, tag: str, accelerator: str) -> Conflict:
    if not spec.builds:
        return Conflict(f"{name} has no environment of its own: it lives where llmengine is installed")
    known = ", ".join(dict.fromkeys(each.version for each in _builds(spec, accelerator)))
    if not known:
        others = ", ".join(sorted({kind for each in spec.builds for kind in each.accelerators}))
        return Conflict(f"{name} has no build for accelerator {accelerator!r}, only for {others}")
    return Conflict(f"{name} has no build of version {tag} for accelerator {accelerator!r}, only of {known}")


def _title(spec: EnvironmentSpec, build: EnvironmentBuild) -> str:
    return f"{spec.distribution} {build.version}".rstrip()


def _sorted(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({str(requirement(each)) for each in texts}))


def _left_out(overrides: Iterable[str]) -> frozenset[str]:
    return frozenset(canonical(each.name) for each in map(requirement, overrides) if not _holds(each))


def _holds(each: Requirement) -> bool:
    return each.marker is None or each.marker.evaluate()


def _allows(each: Requirement, pin: str) -> bool:
    return each.specifier.contains(pin, prereleases=True)


def _parsed(text: str) -> Version | None:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(text)
    except InvalidVersion:
        return None


def _public(version: Version) -> Version | None:
    return _parsed(version.public)


def _closer(one: str, other: str) -> str | None:
    """The more exact of two versions of which one says no less than the other; None where they differ.

    "2.13.0" leaves open how it was built; "2.13.0+cpu" says so.
    """
    if is_version(one, other):
        return other
    return one if is_version(other, one) else None


def _closest(wanted: Iterable[str]) -> str | None:
    """The one version that all accept, at its most exact; None where there is none."""
    found: str | None = None
    for each in sorted(wanted):
        found = each if found is None else _closer(found, each)
        if found is None:
            return None
    return found
