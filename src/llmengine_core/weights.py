"""Where a spec's weights are, and what they are: on this machine, in a package, or in a storage."""

from __future__ import annotations

import asyncio
import difflib
import importlib.util
import os
import re
import stat
from contextlib import aclosing
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from llmengine_core.checkpoints import MoreNeeded, describe
from llmengine_core.errors import LLMEngineError
from llmengine_core.interfaces.storage import ObjectMissing, Storage, StorageError
from llmengine_core.plugins import describe_error
from llmengine_core.registry import Registry
from llmengine_core.types.models import ModelCard, ModelSpec, WeightsSource
from llmengine_core.types.plan import CheckpointFacts, Problem

__all__ = ["find_base", "find_weights"]

LOOK_SECONDS = 20.0
"""How long a storage may take to say what a checkpoint is."""
MOST_FILES = 10_000
"""A folder with more files isn't taken for a checkpoint."""
URL = re.compile(r"([a-z][a-z0-9+.-]*)://.*|(file):.*", re.DOTALL)
HERE = ("file", "package")
"""Schemes of what is on this machine."""
STORAGES = {"s3": "llmengine-s3", "hf": "llmengine-hub"}
"""Distributions that are known to serve a scheme, for mends."""


class _Absent(Exception):
    """There are no weights to look at."""

    def __init__(self, message: str, mend: str | None = None) -> None:
        super().__init__(message)
        self.problem = Problem(message, mend)


async def find_weights(spec: ModelSpec, card: ModelCard | None, registry: Registry) -> CheckpointFacts:
    """What can be seen of the weights that a spec names; what is wrong is a ``Problem`` in it."""
    if spec.checkpoint_path is not None:
        return await _look(spec.checkpoint_path, registry)
    if card is None:
        mend = "name a base model that is known, or give a checkpoint_path"
        problem = _unknown(spec.model, "there is no checkpoint_path", mend, registry)
        return CheckpointFacts(url="", problem=problem)
    return await _find_by_card(card, registry)


async def find_base(spec: ModelSpec, card: ModelCard | None, registry: Registry) -> CheckpointFacts:
    """The same for the base model of a spec whose checkpoint_path is an adapter."""
    if card is None:
        mend = "name the base model that the adapter was trained on"
        problem = _unknown(spec.model, "the checkpoint_path is only an adapter", mend, registry)
        return CheckpointFacts(url="", problem=problem)
    return await _find_by_card(card, registry)


async def _find_by_card(card: ModelCard, registry: Registry) -> CheckpointFacts:
    problems: list[Problem] = []
    for source in card.sources:
        facts = await _look_at_source(source, card, registry)
        if facts.problem is None:
            return facts
        problems.append(facts.problem)
    reasons = "; ".join(problem.message for problem in problems)
    mends = dict.fromkeys(problem.mend for problem in problems if problem.mend)
    problem = Problem(f"the weights of {card.name!r} are not here: {reasons}", ", or ".join(mends) or None)
    return CheckpointFacts(url=card.sources[0].url, problem=problem)


def _unknown(model: str, besides: str, mend: str, registry: Registry) -> Problem:
    close = sorted(name for name in registry.models if model.lower() in name.lower())[:3]
    close = close or difflib.get_close_matches(model, registry.models, n=3)
    known = ", ".join(sorted(registry.models)) or "none"
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known are {known}"
    return Problem(
        f"no base model is called {model!r}, and {besides}; {hint}",
        f"model={close[0]!r}" if close else mend,
    )


async def _look_at_source(source: WeightsSource, card: ModelCard, registry: Registry) -> CheckpointFacts:
    """A source on this machine, held against its card; one elsewhere, at the card's word until it is fetched."""
    scheme = urlsplit(source.url).scheme
    if scheme not in HERE and scheme in registry.storages_by_scheme:
        return CheckpointFacts(
            url=source.url,
            format=source.format,
            size=source.size,
            sha256=source.sha256,
            quantization=source.quantization,
            parameters=card.parameters,
            context_length=card.context_length,
        )
    seen = await _look(source.url, registry)
    problem = seen.problem
    if problem is None and source.size is not None and source.size != seen.size:
        problem = Problem(f"{source.url} has {seen.size:,} bytes, but {source.size:,} are expected")
    if problem is not None:
        return replace(seen, problem=replace(problem, mend=source.mend or problem.mend))
    return replace(
        seen,
        url=source.url,
        sha256=source.sha256,
        parameters=seen.parameters or card.parameters,
        context_length=seen.context_length or card.context_length,
    )


async def _look(location: str, registry: Registry) -> CheckpointFacts:
    """What is at a path or URL."""
    found = URL.fullmatch(location)
    scheme = (found[1] or found[2]) if found else "file"
    try:
        if scheme in HERE:
            return await asyncio.to_thread(_look_here, location, bool(found), scheme)
        async with asyncio.timeout(LOOK_SECONDS):
            return await _look_afar(location, scheme, registry)
    except _Absent as error:
        problem = error.problem
    except TimeoutError:
        problem = Problem(f"{location} did not answer within {LOOK_SECONDS:g} s")
    except OSError as error:
        problem = Problem(f"{location} can't be read: {error.strerror or describe_error(error)}")
    except (StorageError, LLMEngineError) as error:
        problem = Problem(f"{location} can't be reached: {error}")
    except Exception as error:  # a storage's own
        problem = Problem(f"{location} can't be reached: {describe_error(error)}")
    return CheckpointFacts(url=location, problem=problem)


# -- on this machine ---------------------------------------------------------------------------------------------


def _look_here(location: str, is_url: bool, scheme: str) -> CheckpointFacts:
    if scheme == "package":
        path = _package_path(location)
    elif is_url:
        parts = urlsplit(location)
        if parts.netloc not in ("", "localhost"):
            raise _Absent(
                f"{location} is on the host {parts.netloc!r}; a file:// URL has none: file:///folder/file"
            )
        path = Path(unquote(parts.path))
    else:
        path = Path(location).expanduser().absolute()
    return _look_at_path(location, path)


def _package_path(url: str) -> Path:
    """Where a file of an installed package lies; the package is looked for, not imported."""
    parts = urlsplit(url)
    package, inner = parts.netloc, PurePosixPath(unquote(parts.path).lstrip("/"))
    if not package.isidentifier() or ".." in inner.parts:
        raise _Absent(f"{url} is no package://import_name/path")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise _Absent(f"the package {package} is not installed")
    paths = [Path(folder) / inner for folder in folders]
    return next((path for path in paths if path.exists()), paths[0])


def _look_at_path(location: str, path: Path) -> CheckpointFacts:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise _Absent(f"there is no {path}", "correct the path, or put the weights there") from None
    if stat.S_ISDIR(status.st_mode):
        entries: list[tuple[str, int, int, int]] = []
        with os.scandir(path) as found:
            for entry in found:
                if len(entries) == MOST_FILES:
                    raise _Absent(f"{path} holds more than {MOST_FILES:,} files; it is no checkpoint")
                if entry.is_file():
                    seen = entry.stat()
                    entries.append((entry.name, seen.st_size, seen.st_mtime_ns, seen.st_ino))
        return _describe_path(location, path, tuple(sorted(entries)), folder=True)
    if not stat.S_ISREG(status.st_mode):
        raise _Absent(f"{path} is neither a file nor a folder")
    stamp = (path.name, status.st_size, status.st_mtime_ns, status.st_ino)
    return _describe_path(location, path, (stamp,), folder=False)


@lru_cache(maxsize=64)
def _describe_path(
    location: str, path: Path, files: tuple[tuple[str, int, int, int], ...], *, folder: bool
) -> CheckpointFacts:
    """Describe files by name, size, time and number; as long as these stay, so does the answer."""
    parent = path if folder else path.parent
    heads: dict[str, bytes] = {}
    while True:
        try:
            found = describe(location, {name: size for name, size, *_ in files}, heads, folder=folder)
        except MoreNeeded as more:
            with (parent / more.name).open("rb") as file:
                heads[more.name] = file.read(more.stop)
            if len(heads[more.name]) < more.stop:
                raise _Absent(f"{parent / more.name} became shorter while it was read") from None
        else:
            return replace(found.facts, path=str(path / found.file if found.file else path))


# -- in a storage ------------------------------------------------------------------------------------------------


async def _look_afar(url: str, scheme: str, registry: Registry) -> CheckpointFacts:
    info = registry.storages_by_scheme.get(scheme)
    if info is None:
        known = ", ".join(
            f"{each}://" for each in ("file", *sorted(registry.storages_by_scheme.keys() - {"file"}))
        )
        raise _Absent(
            f"no plugin here reads {scheme}:// URLs, only {known}",
            f"python -m pip install {STORAGES[scheme]}"
            if scheme in STORAGES
            else "install a plugin that serves it",
        )
    root, _, name = url.rstrip("/").rpartition("/")
    if root.endswith("/"):  # all of a bucket: what is left is the scheme
        root, name = url, ""
    storage: Storage = await asyncio.to_thread(registry.load, info, root)
    try:
        path = storage.path(name) if name else None
        if path is not None:
            return await asyncio.to_thread(_look_at_path, url, path)
        return await _describe_object(url, storage, name)
    finally:
        await storage.aclose()


async def _describe_object(url: str, storage: Storage, name: str) -> CheckpointFacts:
    """Describe the object ``name``, or the folder where there is no such object."""
    sizes = await _object_size(storage, name)
    folder = sizes is None
    prefix = f"{name}/" if folder and name else ""
    if sizes is None:
        sizes = await _folder_sizes(url, storage, prefix)
    heads: dict[str, bytes] = {}
    while True:
        try:
            found = await asyncio.to_thread(describe, url, sizes, heads, folder=folder)
        except MoreNeeded as more:
            have = heads.get(more.name, b"")
            async with aclosing(storage.get(prefix + more.name, start=len(have), stop=more.stop)) as pieces:
                heads[more.name] = have + b"".join([piece async for piece in pieces])
            if len(heads[more.name]) < more.stop:
                raise _Absent(f"{prefix + more.name} of {url} became shorter while it was read") from None
        else:
            return replace(found.facts, url=f"{url.rstrip('/')}/{found.file}") if found.file else found.facts


async def _object_size(storage: Storage, name: str) -> dict[str, int] | None:
    try:
        return {name: (await storage.head(name)).size} if name else None
    except ObjectMissing:
        return None


async def _folder_sizes(url: str, storage: Storage, prefix: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    count = 0
    async with aclosing(storage.list(prefix)) as objects:
        async for each in objects:
            count += 1
            if count > MOST_FILES:
                raise _Absent(f"{url} holds more than {MOST_FILES:,} files; it is no checkpoint")
            inner = each.key.removeprefix(prefix)
            if "/" not in inner:
                sizes[inner] = each.size
    if not sizes:
        raise _Absent(f"there is nothing at {url}", "correct the URL, or put the weights there")
    return sizes
