"""Whether an environment can do what it was built for: tried in it, by its own interpreter."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmengine_core.errors import ServerError
from llmengine_core.processes import spawn
from llmengine_core.recipes import allows, canonical, is_version, requirement

__all__ = ["Found", "look_inside", "unmet", "wrong_versions"]

SECONDS = 300.0
"""How long the imports may take: the first of a large engine, from a slow disk, takes minutes."""

PROGRAM = """
import importlib, json, os, sys
from importlib import metadata
from importlib.util import find_spec
out = os.dup(1)
os.dup2(2, 1)  # what an engine prints is none of ours
asked = json.loads(sys.stdin.readline())
there = {each.metadata["Name"]: [each.version, each.requires or []] for each in metadata.distributions()}
failed = {}
likely = [module for module in asked["likely"] if find_spec(module)]
for module in [*asked["modules"], *likely]:
    try:
        importlib.import_module(module)
    except BaseException as error:
        failed[module] = f"{type(error).__name__}: {error}"
found = {"there": there, "failed": failed, "python": ".".join(map(str, sys.version_info[:3]))}
os.write(out, json.dumps(found).encode() + b"\\n")
os._exit(0)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is in an environment."""

    python_version: str
    packages: Mapping[str, str]
    """The version of each distribution, by canonical name."""
    requires: Mapping[str, tuple[str, ...]]
    """What each of them requires."""
    failed: Mapping[str, str]
    """Why a module can't be imported, by its name."""


async def look_inside(
    python: Path, modules: Iterable[str], requirements: Iterable[str] = (), *, seconds: float = SECONDS
) -> Found:
    """Import these modules in a fresh interpreter of the environment, and see what is installed.

    Of ``requirements`` those are imported too whose modules are called as they are: an engine may import well,
    and what it works with only when it is used.

    Raises ``ServerError`` where the interpreter doesn't run, or the imports end it or take too long.
    """
    messages: list[dict[str, Any]] = []
    names = {canonical(requirement(each).name).replace("-", "_") for each in requirements}
    asked = {"modules": list(modules), "likely": sorted(names.difference(modules))}
    what = f"importing {', '.join((*asked['modules'], *asked['likely']))} with {python}"
    child = await spawn([str(python), "-I", "-c", PROGRAM], document=asked, on_message=messages.append)
    try:
        async with asyncio.timeout(seconds):
            end = await child.wait()
    except TimeoutError:
        raise ServerError(f"{what} took longer than {seconds:g} s: {child.reason()}") from None
    finally:
        await child.aclose()
    if not messages:
        raise ServerError(f"{what} failed: {end}")
    there, failed = messages[0]["there"], messages[0]["failed"]
    return Found(
        python_version=messages[0]["python"],
        packages={canonical(name): version for name, (version, _) in sorted(there.items())},
        requires={canonical(name): tuple(requires) for name, (_, requires) in there.items()},
        failed=failed,
    )


def wrong_versions(
    wanted: Mapping[str, str], packages: Mapping[str, str], *, all_of_them: bool
) -> Iterator[str]:
    """Each distribution that is there in another version than wanted; with ``all_of_them``, also those missing."""
    for name, version in wanted.items():
        found = packages.get(name)
        if found is None and all_of_them:
            yield f"{name} is gone, {version} was installed"
        elif found is not None and not is_version(version, found):
            yield f"{name} is {found}, not {version}"


def unmet(found: Found, besides: frozenset[str]) -> Iterator[str]:
    """What one distribution requires of another that isn't so; ``besides`` don't count."""
    for name, requires in sorted(found.requires.items()):
        for each in map(requirement, requires):
            other = canonical(each.name)
            if other in besides or (each.marker is not None and not each.marker.evaluate({"extra": ""})):
                continue
            version = found.packages.get(other)
            if version is None:
                yield f"{name} requires {each}, which is not there"
            elif not allows(each, version):
                yield f"{name} requires {each}, but {version} is there"
