"""Builds of several parts put together, or what keeps them apart."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

from llmengine_core.recipes.recipe import Conflict, Recipe, left_out
from llmengine_core.recipes.versions import (
    ANY_VERSION,
    allows,
    canonical,
    closest,
    holds,
    is_version,
    requirement,
)
from llmengine_core.types.declarations import EnvironmentBuild, EnvironmentSpec

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["merge"]

PYTHON = ".".join(platform.python_version_tuple()[:2])
"""The Python that runs this, and that environments are built with."""


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
        absent = left_out(overrides)
        pins = {name: self._pin(name) for name in sorted(self._pins) if name not in absent}
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
        return closest(version for _, version in self._pins.get(name, ()))

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
                if kind == "overrides" or holds(each):
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
                if not holds(override):
                    yield Conflict(f"{title} requires {each} but {other} leaves {name} out")
                elif str(override.specifier) != str(each.specifier) and not (pin and allows(each, pin)):
                    yield Conflict(f"{title} requires {each} but {other} overrides it with {override}")
            if pin is not None and not overrides and holds(each) and not allows(each, pin):
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
