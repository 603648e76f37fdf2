"""The Python environments on this machine that engines can run in: this one, and those built for them.

A built one is a folder of ``<home>/environments`` with a virtual environment and a manifest in it. The manifest
is written last: a folder without a sound one doesn't count. Nothing here imports an engine, and nothing that
lies there, however broken, is an error.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from llmengine_core.recipes import allows, canonical, holds, is_version, parse_pins, pins_wanted, requirement
from llmengine_core.types.declarations import EnvironmentBuild, EnvironmentSpec
from llmengine_core.types.plan import EnvironmentFacts

__all__ = [
    "MANIFEST",
    "Environment",
    "Manifest",
    "environments_folder",
    "find",
    "listed",
    "look_at",
    "read_pins",
]

MANIFEST = "environment.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an environment was built as."""

    engine: str
    """The registered name of the backend or transform that it was built for."""
    version: str
    """Of its distribution."""
    accelerator: str
    """"cpu" or "cuda"."""
    digest: str
    """Of the recipe that it was built from."""
    python_version: str
    """"3.11.7"."""
    distributions: tuple[str, ...]
    """Of the engine and of all that was asked for beside it, canonical."""
    modules: tuple[str, ...]
    """What it was built to import."""
    requirements: tuple[str, ...]
    """What was asked for."""
    packages: Mapping[str, str]
    """The version of each distribution that was installed, by canonical name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A folder among the engine environments."""

    folder: Path
    manifest: Manifest | None
    """None where it doesn't say soundly what it is."""
    finished: int = 0
    """When its manifest was written, in nanoseconds since 1970; 0 where that isn't known."""
    problem: str | None = None
    """Why nothing can run in it."""

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"


def environments_folder(home: Path) -> Path:
    """Where the environments of a state folder are."""
    return home.absolute() / "environments"


def listed(home: Path) -> tuple[Environment, ...]:
    """All that lies there, of each engine the newest version first, and of a version what was built last.

    What is being built is left out.
    """
    try:
        with os.scandir(environments_folder(home)) as entries:
            names = sorted(each.name for each in entries if not each.name.startswith(".") and each.is_dir())
    except OSError:
        return ()
    found = [look_at(environments_folder(home) / name) for name in names]
    found.sort(key=lambda each: each.finished, reverse=True)
    found.sort(key=lambda each: _newness(each.manifest.version if each.manifest else ""), reverse=True)
    found.sort(key=lambda each: each.manifest.engine if each.manifest else "")
    return tuple(found)


def look_at(folder: Path) -> Environment:
    """One folder as it is now."""
    manifest, finished = _manifest(folder / MANIFEST)
    if isinstance(manifest, str):
        return Environment(folder=folder, manifest=None, finished=finished, problem=manifest)
    python = folder / "bin" / "python"
    problem = None if os.access(python, os.X_OK) else f"its interpreter {python} is gone"
    return Environment(folder=folder, manifest=manifest, finished=finished, problem=problem)


def find(
    home: Path, specs: Iterable[EnvironmentSpec]
) -> Mapping[EnvironmentSpec, tuple[EnvironmentFacts, ...]]:
    """For each spec, the environments that have what it asks for.

    The current one comes first, then the newest version, and of one version what was built last. A built one
    counts for what it was built for, and for everything else of which it happens to hold a build that the spec
    knows, with all that belongs to it.
    """
    asked = tuple(dict.fromkeys(specs))
    here = {spec: version for spec in asked if (version := _version_here(spec)) is not None}
    current = {spec.distribution: version for spec, version in here.items()}
    built = [(each, each.manifest) for each in listed(home) if each.manifest and not each.problem]
    found = dict[EnvironmentSpec, tuple[EnvironmentFacts, ...]]()
    for spec in asked:
        own = [_facts(each, manifest, spec, asked) for each, manifest in built if _suits(spec, manifest)]
        own.sort(key=lambda facts: _newness(facts.version), reverse=True)
        if spec in here:
            own.insert(0, EnvironmentFacts(python=sys.executable, version=here[spec], holds=current))
        found[spec] = tuple(own)
    return found


def read_pins(specs: Iterable[EnvironmentSpec]) -> Mapping[str, Mapping[str, str]]:
    """Version by canonical distribution, by reference, of all pins of these specs' builds that can be read."""
    found: dict[str, Mapping[str, str]] = {}
    for reference in sorted(pins_wanted(specs)):
        package, _, path = reference.partition(":")
        with suppress(Exception):  # of whatever the package does as it is imported
            found[reference] = parse_pins(resources.files(package).joinpath(path).read_text(encoding="utf-8"))
    return found


def _facts(
    environment: Environment, manifest: Manifest, spec: EnvironmentSpec, asked: Iterable[EnvironmentSpec]
) -> EnvironmentFacts:
    packages = manifest.packages
    versions = ((each.distribution, packages.get(canonical(each.distribution))) for each in asked)
    return EnvironmentFacts(
        python=str(environment.python),
        version=packages[canonical(spec.distribution)],
        name=environment.folder.name,
        accelerators=frozenset({manifest.accelerator}),
        holds={distribution: version for distribution, version in versions if version is not None},
    )


def _suits(spec: EnvironmentSpec, manifest: Manifest) -> bool:
    version = manifest.packages.get(canonical(spec.distribution))
    if version is None:
        return False
    if canonical(spec.distribution) in manifest.distributions:
        return True
    return any(
        manifest.accelerator in build.accelerators
        and is_version(build.version, version)
        and _has_all(build, manifest.packages)
        for build in spec.builds
    )


def _has_all(build: EnvironmentBuild, packages: Mapping[str, str]) -> bool:
    """Whether all that a build asks for is there."""
    for each in map(requirement, build.requirements):
        if holds(each):
            version = packages.get(canonical(each.name))
            if version is None or not allows(each, version):
                return False
    return True


def _version_here(spec: EnvironmentSpec) -> str | None:
    """The version in the current environment, "" where it has no metadata; None where it isn't all there."""
    try:
        # Of a dotted name, its package, so that nothing is imported.
        if importlib.util.find_spec(spec.module.partition(".")[0]) is None:
            return None
    except (ImportError, ValueError):
        return None
    if any(_lacks(each, spec) for each in spec.requirements):
        return None
    return _installed(spec.distribution) or ""


def _lacks(text: str, spec: EnvironmentSpec) -> bool:
    """Whether a requirement is not met in the current environment.

    Its version is looked at only where there is a choice: an engine that can be nowhere else is taken as it is.
    """
    if ";" in text and not holds(requirement(text)):
        return False
    name = _named(text)
    version = _installed(name)
    if version is None:
        return canonical(name) != canonical(spec.distribution)
    return bool(spec.builds) and not allows(requirement(text), version)


@lru_cache(maxsize=512)
def _named(text: str) -> str:
    """The distribution that a requirement is for; cheaper than taking all of it apart."""
    head = text.partition(";")[0]
    for end in "[<>=!~@ (":
        head = head.partition(end)[0]
    return head.strip()


def _installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except (metadata.PackageNotFoundError, KeyError, ValueError):
        return None


@lru_cache(maxsize=512)
def _newness(version: str) -> tuple[bool, Any]:
    """What sorts versions; what is none sorts below all."""
    from packaging.version import InvalidVersion, Version

    try:
        return True, Version(version)
    except InvalidVersion:
        return False, version


_seen: dict[Path, tuple[tuple[int, int, int], Manifest | str]] = {}
"""What each manifest said when it was read, with what tells that it is still the same."""


def _manifest(path: Path) -> tuple[Manifest | str, int]:
    """What a manifest says, or why it says nothing; and when it was written."""
    try:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        known = _seen.get(path)
        if known is None or known[0] != stamp:
            known = _seen[path] = (stamp, _read(path.read_bytes()))
        return known[1], status.st_mtime_ns
    except FileNotFoundError:
        return f"it has no {MANIFEST}: it was never finished, or is none of llmengine's", 0
    except OSError as error:
        return f"its {MANIFEST} can't be read: {error.strerror or error}", 0


def _read(content: bytes) -> Manifest | str:
    try:
        said = json.loads(content)
        return Manifest(**{each.name: _checked(str(each.type), said[each.name]) for each in fields(Manifest)})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        return f"its {MANIFEST} is damaged: {type(error).__name__}: {error}"


def _checked(kind: str, value: Any) -> Any:
    """A value of the kind that a field of ``Manifest`` promises; ``TypeError`` for any other."""
    match kind, value:
        case "str", str():
            return value
        case "tuple[str, ...]", list() if all(isinstance(each, str) for each in value):
            return tuple(value)
        case "Mapping[str, str]", dict() if all(isinstance(each, str) for each in value.values()):
            return value
    raise TypeError(f"{value!r:.60} is no {kind}")
