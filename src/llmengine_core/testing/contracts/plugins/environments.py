"""What is wrong with a plugin's account of an environment, judged by PEP 440 and 508 alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

__all__ = ["wrong_pins", "wrong_requirements", "wrong_versions"]


def wrong_requirements(seen: Mapping[str, Any]) -> Iterator[str]:
    """Of an environment as ``looking`` shows it: what is no requirement, or contradicts another."""
    spec = seen["spec"]
    lists = [("requirements", spec["requirements"])]
    for build in spec["builds"]:
        lists += [(f"build {build['version']}", each) for each in (build["requirements"], build["overrides"])]
    for where, texts in lists:
        for text in texts:
            try:
                Requirement(text)
            except InvalidRequirement as error:
                yield f"{where} holds {text!r}, which is no requirement: {str(error).splitlines()[0]}"
    for build in spec["builds"]:
        exact: dict[str, Requirement] = {}
        for each in _readable(build["requirements"]):
            if not _true(each):
                continue
            name = canonicalize_name(each.name)
            other = exact.setdefault(name, each)
            for one, two in ((each, other), (other, each)):
                version = _exact(one)
                if version is not None and not two.specifier.contains(version, prereleases=True):
                    yield f"build {build['version']} requires {one} and {two}, which nothing is"
                    break


def wrong_versions(seen: Mapping[str, Any]) -> Iterator[str]:
    """What of an environment's builds isn't the version that they say, and whether its module is findable."""
    spec = seen["spec"]
    wanted = canonicalize_name(spec["distribution"])
    for build in spec["builds"]:
        try:
            version = Version(build["version"])
        except InvalidVersion:
            yield f"build {build['version']!r} has no version"
            continue
        own = [each for each in _readable(build["requirements"]) if canonicalize_name(each.name) == wanted]
        if not own:
            yield f"build {version} doesn't require {spec['distribution']}, which it is for"
        for each in own:
            if not each.specifier.contains(version, prereleases=True):
                yield f"build {version} requires {each}, which {version} is not"
    if seen["here"] is not None and not seen["module"]:
        yield (
            f"{spec['distribution']} {seen['here']} is installed here, but no module {spec['module']!r} is: what is "
            "looked for is never found"
        )


def wrong_pins(seen: Mapping[str, Any]) -> Iterator[str]:
    """What of the pins of an environment's builds isn't there, isn't one, or isn't what is required."""
    spec = seen["spec"]
    wanted = canonicalize_name(spec["distribution"])
    for build in spec["builds"]:
        path = build["pins"]
        if path is None:
            continue
        text = seen["pins"][path]
        if text is None:
            yield f"build {build['version']}: the pins {path} are no file that can be read"
            continue
        pins: dict[str, str] = {}
        yield from (f"{path}: {each}" for each in _read_pins(text, pins))
        yield from (f"{path} {each}" for each in _unmet(build, pins))
        if wanted in pins and not _same(pins[wanted], build["version"]):
            yield f"{path} pins {wanted} to {pins[wanted]}, but the build is of {build['version']}"


def _read_pins(text: str, pins: dict[str, str]) -> Iterator[str]:
    """Lines that are no pins; fills in those that are, by canonical name."""
    for line in text.splitlines():
        said = line.partition("#")[0].strip()
        if not said:
            continue
        try:
            pin = Requirement(said)
        except InvalidRequirement:
            yield f"{line!r} is no pin"
            continue
        version = _exact(pin)
        if version is None:
            yield f"{line!r} pins no version"
        elif _true(pin):
            pins[canonicalize_name(pin.name)] = version


def _unmet(build: Mapping[str, Any], pins: Mapping[str, str]) -> Iterator[str]:
    """What a build requires, or its overrides in place of that, and the pins don't hold."""
    overrides = _readable(build["overrides"])
    replaced = {canonicalize_name(each.name) for each in overrides}
    asked = [
        each for each in _readable(build["requirements"]) if canonicalize_name(each.name) not in replaced
    ]
    for each in filter(_true, [*asked, *overrides]):
        name = canonicalize_name(each.name)
        if name not in pins:
            yield f"doesn't pin {each.name}, which build {build['version']} requires"
        elif not each.specifier.contains(pins[name], prereleases=True):
            yield f"pins {name} to {pins[name]}, but build {build['version']} requires {each}"


def _readable(texts: list[str]) -> list[Requirement]:
    found = []
    for text in texts:
        try:
            found.append(Requirement(text))
        except InvalidRequirement:
            continue
    return found


def _true(each: Requirement) -> bool:
    return each.marker is None or each.marker.evaluate({"extra": ""})


def _exact(each: Requirement) -> str | None:
    """The one version that it allows, where it says so."""
    versions = [one.version for one in each.specifier if one.operator in ("==", "===")]
    return versions[0] if len(versions) == 1 and not versions[0].endswith(".*") else None


def _same(pin: str, version: str) -> bool:
    try:
        return Version(pin) == Version(version) or Version(pin).public == version
    except InvalidVersion:
        return False
