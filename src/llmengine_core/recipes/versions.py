"""What requirements and versions say of each other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.version import Version

__all__ = [
    "ANY_VERSION",
    "allows",
    "canonical",
    "closest",
    "holds",
    "is_version",
    "parse_pins",
    "requirement",
]

ANY_VERSION = "latest"
"""The tag that takes a plugin's preferred build."""
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*==\s*([A-Za-z0-9.!+_-]+)\s*(?:;(.*))?")


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


@lru_cache(maxsize=512)
def requirement(text: str) -> Requirement:
    """A requirement (PEP 508), taken apart. Raises ``ValueError`` where it is none."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise ValueError(f"{text!r} is no requirement: {error}") from None


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
        if pin[3] is None or holds(requirement(said)):
            found[canonical(pin[1])] = pin[2]
    return found


def holds(each: Requirement) -> bool:
    """Whether a requirement's marker is true here."""
    return each.marker is None or each.marker.evaluate()


def allows(each: Requirement, pin: str) -> bool:
    """Whether a version, a preliminary one too, is within a requirement."""
    return each.specifier.contains(pin, prereleases=True)


def closest(wanted: Iterable[str]) -> str | None:
    """The one version that all accept, at its most exact; None where there is none."""
    found: str | None = None
    for each in sorted(wanted):
        found = each if found is None else _closer(found, each)
        if found is None:
            return None
    return found


def _closer(one: str, other: str) -> str | None:
    """The more exact of two versions of which one says no less than the other; None where they differ.

    "2.13.0" leaves open how it was built; "2.13.0+cpu" says so.
    """
    if is_version(one, other):
        return other
    return one if is_version(other, one) else None


def _parsed(text: str) -> Version | None:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(text)
    except InvalidVersion:
        return None


def _public(version: Version) -> Version | None:
    return _parsed(version.public)
