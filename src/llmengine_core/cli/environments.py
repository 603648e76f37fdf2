"""What the commands about environments have in common."""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from llmengine_core.cli.console import Console
from llmengine_core.cli.progress import ProgressLine
from llmengine_core.environments import Environment, listed, read_pins
from llmengine_core.errors import BadRequestError, LLMEngineError, NotFoundError, ServerError
from llmengine_core.installing import look_inside, remove, users, wrong_versions
from llmengine_core.recipes import (
    ANY_VERSION,
    Conflict,
    Recipe,
    canonical,
    compose,
    environment_specs,
    owners,
)
from llmengine_core.registry import Registry
from llmengine_core.settings import load_settings
from llmengine_core.types.progress import OnProgress, Progress

__all__ = [
    "HEADER",
    "check_all",
    "described",
    "mend",
    "named",
    "recipe_for",
    "remove_all",
    "row",
    "run_with_progress",
    "state_folder",
]

T = TypeVar("T")

HEADER = ("ENVIRONMENT", "ENGINE", "VERSION", "DEVICE", "PYTHON", "WITH", "STATE")


def run_with_progress(console: Console, work: Callable[[OnProgress], Awaitable[T]]) -> T:
    """Do the work, and show how far it has come. Ctrl-C cancels it."""
    if console.debug:
        logging.basicConfig(level=logging.DEBUG)
    else:
        logging.getLogger().addHandler(logging.NullHandler())  # errors are reported once, by the program
    if console.shows_progress and console.progress is None:
        console.progress = ProgressLine()

    async def awaited() -> T:
        return await work(console.progress or (lambda _: None))

    try:
        return asyncio.run(awaited())
    finally:
        console.clear()


def state_folder() -> Path:
    """The home that the settings name."""
    return load_settings().home


def recipe_for(name: str, version: str | None, accelerator: str | None, methods: Sequence[str]) -> Recipe:
    """What to install for a backend or transform.

    Raises ``NotFoundError`` where there is none of that name with an environment of its own, and
    ``BadRequestError`` that says why there is no such environment.
    """
    declarations = Registry.build(load_settings()).declarations
    known = owners(declarations)
    owner = known.get(name)
    if owner is None or owner.environment is None:
        here = f"here are {', '.join(sorted(known))}" if known else "no plugin here brings one"
        raise NotFoundError(
            f"no backend or transform {name!r} has an environment to be installed; {here}. Mend: name one of these, "
            "or install the plugin that brings it"
        )
    kinds = {kind for build in owner.environment.builds for kind in build.accelerators}
    merged = compose(
        owner,
        declarations,
        tag=version or ANY_VERSION,
        accelerator=accelerator or ("cpu" if "cpu" in kinds else min(kinds)),
        methods=methods,
        pins=read_pins(environment_specs(declarations)),
    )
    if isinstance(merged, Conflict):
        way_out = f". Mend: {merged.mend}" if merged.mend else ""
        raise BadRequestError(f"there is no such environment for {name!r}: {merged.reason}{way_out}")
    return merged


def named(home: Path, name: str | None) -> list[Environment]:
    """The environments of an engine, or the one of that name; all where none is named.

    Raises ``NotFoundError`` where there is none.
    """
    found = listed(home)
    chosen = [
        each
        for each in found
        if name in (None, each.folder.name) or (each.manifest is not None and each.manifest.engine == name)
    ]
    if name is not None and not chosen:
        here = f"here are {', '.join(each.folder.name for each in found)}" if found else "none is here"
        install = shlex.join(["llmengine", "engines", "install", name])
        raise NotFoundError(f"there is no environment of {name!r} in {home}; {here}. Mend: {install}")
    return chosen


async def check_all(environments: Sequence[Environment], on_progress: OnProgress) -> list[list[str]]:
    """What is wrong with each; nothing where all is well."""
    found = []
    for each in environments:
        on_progress(Progress(each.folder.name, "check", 0.0))
        found.append(await _faults(each))
    return found


async def remove_all(
    home: Path, environments: Sequence[Environment], on_progress: OnProgress, *, force: bool
) -> None:
    """Remove them all; with ``force``, also those that are in use.

    Raises ``BadRequestError`` that names the processes that run in one of them, and then removes none.
    """
    for each in environments:
        if not force and (running := await users(each)):
            who = ", ".join(map(str, running[:3])) + (" and others" if len(running) > 3 else "")
            raise BadRequestError(
                f"{each.folder.name} is in use by {who}. Mend: end the programs that use its models, or --force"
            )
    for each in environments:
        on_progress(Progress(each.folder.name, "remove", 0.0))
        await remove(home, each)


async def _faults(environment: Environment) -> list[str]:
    if environment.manifest is None or environment.problem is not None:
        return [environment.problem or "it is not whole"]
    manifest = environment.manifest
    try:
        found = await look_inside(environment.python, manifest.modules, manifest.requirements)
    except ServerError as error:
        return [error.message]
    failed = [f"{module} can't be imported: {why}" for module, why in found.failed.items()]
    return [*failed, *wrong_versions(manifest.packages, found.packages, all_of_them=True)]


def mend(environment: Environment) -> str:
    """The commands that make a broken environment anew."""
    name, manifest = environment.folder.name, environment.manifest
    removal = shlex.join(["llmengine", "engines", "remove", name])
    if manifest is None:
        return removal
    install = ["llmengine", "engines", "install", manifest.engine, "--version", manifest.version]
    install += ["--accelerator", manifest.accelerator]
    for method in _methods(environment):
        install += ["--quantize", method]
    return f"{removal} && {shlex.join(install)}"


def described(environment: Environment) -> dict[str, object]:
    """An environment as JSON."""
    manifest = environment.manifest
    return {
        "name": environment.folder.name,
        "folder": environment.folder,
        "python": environment.python,
        "problem": environment.problem,
        "engine": manifest.engine if manifest else None,
        "version": manifest.version if manifest else None,
        "accelerator": manifest.accelerator if manifest else None,
        "python_version": manifest.python_version if manifest else None,
        "distributions": manifest.distributions if manifest else (),
        "packages": manifest.packages if manifest else {},
    }


def row(environment: Environment) -> tuple[str, ...]:
    """An environment as a row under ``HEADER``."""
    manifest = environment.manifest
    state = "ready" if environment.problem is None else f"broken: {environment.problem}"
    if manifest is None:
        return (environment.folder.name, *["-"] * 5, state)
    beside = (f"{each} {manifest.packages.get(each, '')}".rstrip() for each in manifest.distributions)
    return (
        environment.folder.name,
        manifest.engine,
        manifest.version,
        manifest.accelerator,
        manifest.python_version,
        ", ".join(beside),
        state,
    )


def _methods(environment: Environment) -> list[str]:
    """For each quantizer that an environment was built with, one of its methods."""
    manifest = environment.manifest
    if manifest is None:
        return []
    try:
        quantizers = Registry.build(load_settings()).declarations.quantizers
    except LLMEngineError:
        return []
    return [
        info.methods[0].name
        for info in (each.info for each in quantizers)
        if info.environment is not None
        and manifest.engine in info.backends
        and canonical(info.environment.distribution) in manifest.distributions
    ]
