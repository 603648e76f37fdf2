"""What ``llmengine transforms`` does: one transform on one checkpoint of this machine, whole or not at all."""

from __future__ import annotations

import asyncio
import fcntl
import glob
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from llmengine_core.environments import find, read_pins
from llmengine_core.errors import BadRequestError, NotFoundError, ServerError
from llmengine_core.placement import install
from llmengine_core.places import Places
from llmengine_core.provisioning import run_transform
from llmengine_core.recipes import Conflict, environment_specs
from llmengine_core.registry import Registry
from llmengine_core.routes import FULL_PRECISION
from llmengine_core.settings import load_settings
from llmengine_core.types.declarations import TransformInfo
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.plan import CheckpointFacts
from llmengine_core.types.progress import OnProgress
from llmengine_core.urls import UrlPolicy
from llmengine_core.weights import find_weights

__all__ = ["HEADER", "Known", "Made", "known_transforms", "row", "transform"]

RANDOM = 8
"""Characters that ``tempfile`` puts behind a prefix."""
HEADER = ("NAME", "FROM", "TO", "METHODS", "RUNS IN")


class Known(TypedDict):
    """A registered transform."""

    name: str
    source_format: str
    target_format: str
    methods: list[str]
    environment: str | None
    """Where it would run: the name of an environment, "" for the current one, None where it can't yet."""
    mend: str | None
    """What makes that it can."""


class Made(TypedDict):
    """What a transform made."""

    transform: str
    method: str | None
    source: Path
    target: Path
    size: int
    """Bytes of all files."""


def known_transforms() -> list[Known]:
    """All that are registered, by name."""
    settings = load_settings()
    registry = Registry.build(settings)
    declarations = registry.declarations
    specs = environment_specs(declarations)
    here, pins = find(settings.home, specs), read_pins(specs)
    found: list[Known] = []
    for name, info in sorted(registry.transforms.items()):
        places = here[info.environment] if info.environment is not None else ()
        able = info.environment is None or bool(places)
        mend = None if able else install(info, declarations, pins)
        found.append(
            Known(
                name=name,
                source_format=info.source_format,
                target_format=info.target_format,
                methods=sorted(info.methods),
                environment=(places[0].name if places else "") if able else None,
                mend=mend.reason if isinstance(mend, Conflict) else mend,
            )
        )
    return found


def row(known: Known) -> tuple[str, ...]:
    """A transform as a row under ``HEADER``."""
    where = "-" if known["environment"] is None else known["environment"] or "this environment"
    if known["mend"] is not None:
        where = f"{where}  mend: {known['mend']}"
    methods = ", ".join(known["methods"]) or "-"
    return (known["name"], known["source_format"], known["target_format"], methods, where)


async def transform(
    name: str, source: Path, target: Path, *, method: str | None, force: bool, on_progress: OnProgress
) -> Made:
    """Carry out a transform; ``force`` lets the result take the place of what is at ``target``.

    Raises ``NotFoundError`` for a name that is not registered, ``BadRequestError`` for a checkpoint, a method or a
    target that it can't take, ``ServerError`` where it can't run here, or failed.
    """
    settings = await asyncio.to_thread(load_settings)
    registry = await asyncio.to_thread(Registry.build, settings)
    info = registry.transforms.get(name)
    if info is None:
        known = ", ".join(sorted(registry.transforms)) or "none"
        raise NotFoundError(f"no plugin registers a transform {name!r}; here are {known}")
    method = _method(info, method)
    spec = ModelSpec(name=name, model=name, checkpoint_path=str(source))
    checkpoint = await find_weights(spec, None, registry, UrlPolicy(settings.private_hosts))
    path = _fit(info, checkpoint, source)
    python = await asyncio.to_thread(Places(settings, registry).of_transform, info)
    try:
        target = await asyncio.to_thread(_free, target, path, force=force)
        folder, held = await asyncio.to_thread(_beside, target)
        try:
            made = folder / target.name
            work = registry.load(info)
            await run_transform(work, path, made, method=method, on_progress=on_progress, python=python)
            await asyncio.to_thread(_put, made, target, folder / "replaced")
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            os.close(held)
        size = await asyncio.to_thread(_size, target)
    except OSError as error:
        raise ServerError(
            f"{target} can't be written: {error.strerror or error} ({error.filename or target.parent})"
        ) from error
    return Made(transform=name, method=method, source=path, target=target, size=size)


def _beside(target: Path) -> tuple[Path, int]:
    """A new folder beside a target, and the lock that says that it is in use; those of runs that were killed go."""
    prefix = f".{target.name}-"
    for other in target.parent.glob(f"{glob.escape(prefix)}*"):
        if other.is_dir() and not other.is_symlink() and len(other.name) == len(prefix) + RANDOM:
            _sweep(other)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(held, fcntl.LOCK_SH)
    return folder, held


def _sweep(folder: Path) -> None:
    """Remove a folder of ours that nobody holds any more."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _method(info: TransformInfo, method: str | None) -> str | None:
    """The method to use: the one that was asked for, or the only one."""
    allowed = ", ".join(sorted(info.methods))
    if method is None and len(info.methods) > 1:
        raise BadRequestError(f"{info.name} can quantize in several ways; choose with --method: {allowed}")
    if method is not None and method not in info.methods:
        raise BadRequestError(
            f"--method is {method!r}; {info.name} takes {allowed or 'none: it converts, and leaves the numbers'}"
        )
    return method or next(iter(info.methods), None)


def _fit(info: TransformInfo, checkpoint: CheckpointFacts, source: Path) -> Path:
    """The file or folder to work on; raises ``BadRequestError`` where the transform does not take it."""
    if checkpoint.problem is not None:
        raise BadRequestError(checkpoint.problem.message)
    if checkpoint.format != info.source_format:
        raise BadRequestError(
            f"{source} is in the format {checkpoint.format!r}; {info.name} takes {info.source_format!r}"
        )
    architecture, stored = checkpoint.architecture, checkpoint.quantization
    if info.architectures is not None and architecture is not None and architecture not in info.architectures:
        known = ", ".join(sorted(info.architectures))
        raise BadRequestError(f"{source} is of the architecture {architecture!r}; {info.name} takes {known}")
    if info.sources is not None and stored not in FULL_PRECISION | info.sources:
        known = ", ".join(["full precision", *sorted(info.sources)])
        raise BadRequestError(f"{source} is stored in {stored!r}; {info.name} takes {known}")
    assert checkpoint.path is not None  # it is on this machine, or else it has a problem
    return Path(checkpoint.path)


def _free(target: Path, source: Path, *, force: bool) -> Path:
    """Where the result goes; raises ``BadRequestError`` where something is that must not go."""
    target = target.absolute()
    if not target.parent.is_dir():
        raise BadRequestError(f"there is no folder {target.parent}. Mend: mkdir -p {target.parent}")
    real, source = target.resolve(), source.resolve()
    if real == source or real in source.parents or source in real.parents:
        raise BadRequestError(f"TARGET {target} and SOURCE {source} lie in one another; name another target")
    if not force and (target.exists() or target.is_symlink()):
        raise BadRequestError(f"{target} exists. Mend: name another target, or --force")
    held = _folder_in(target)
    if held is not None:
        raise BadRequestError(
            f"{target} holds the folder {held!r}, and --force replaces weights, not trees of folders. "
            "Mend: name another target, or remove it yourself"
        )
    return target


def _folder_in(target: Path) -> str | None:
    """A folder in the folder that would be replaced: then it is more than a checkpoint, a home for instance."""
    if target.is_symlink() or not target.is_dir():
        return None
    return next((each.name for each in sorted(target.iterdir()) if each.is_dir()), None)


def _put(made: Path, target: Path, aside: Path) -> None:
    """Put what was made in its place; what was there is back there where that fails."""
    if not target.exists() and not target.is_symlink():
        made.rename(target)
        return
    target.rename(aside)
    try:
        made.rename(target)
    except OSError:
        aside.rename(target)
        raise


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)
