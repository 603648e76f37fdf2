"""Builds an environment: all of it, or nothing that anybody would take for one."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from llmengine_core.environments import MANIFEST, Environment, Manifest, environments_folder, look_at
from llmengine_core.errors import ServerError
from llmengine_core.installing.checking import look_inside, unmet, wrong_versions
from llmengine_core.installing.failures import explained, os_reason
from llmengine_core.installing.tools import Listener, Tool, find_tool
from llmengine_core.locks import file_lock
from llmengine_core.processes import spawn
from llmengine_core.recipes import Recipe
from llmengine_core.rundir import locked, sweep
from llmengine_core.types.progress import OnProgress

__all__ = ["build", "built_already", "lock_of"]

OURS = re.compile(r"\..+|.+-(cpu|cuda)-[0-9a-f]{8}")
"""Names of folders that we make, while they are being made and afterwards."""


async def build(
    home: Path, recipe: Recipe, *, on_progress: OnProgress | None = None, tool: Tool | None = None
) -> Environment:
    """The environment of a recipe, built unless it is there already; whoever else builds it is waited for.

    It is made beside its place and moved there, then tried out, and only then its manifest is written: what a
    kill at any time leaves doesn't count, and the next build removes it. The installer keeps what it downloads,
    so beginning again costs little. Cancelling ends the installer and removes what it made. ``tool`` is uv where
    there is one, unless it is given.

    Raises ``ServerError`` with the installer's own last words and what mends it.
    """
    if (found := await asyncio.to_thread(built_already, home, recipe)) is not None:
        return found
    hear = Listener(
        f"{recipe.engine} {recipe.version} ({recipe.accelerator})", on_progress or (lambda _: None)
    )
    hear.begin("wait")
    async with file_lock(lock_of(home, recipe.name)):
        if (found := await asyncio.to_thread(built_already, home, recipe)) is not None:
            return found
        by = await asyncio.to_thread(find_tool) if tool is None else tool
        try:
            async with _taken(environments_folder(home) / recipe.name) as folder:
                await _install(recipe, folder, by, hear)
                return await _finish(recipe, folder, by, hear)
        except OSError as error:
            reason = os_reason(error, environments_folder(home))
            raise ServerError(f"the environment {recipe.name} could not be built: {reason}") from error


def built_already(home: Path, recipe: Recipe) -> Environment | None:
    """The environment of a recipe where it is there, whole."""
    found = look_at(environments_folder(home) / recipe.name)
    whole = found.problem is None and found.manifest is not None and found.manifest.digest == recipe.digest
    return found if whole else None


def lock_of(home: Path, name: str) -> Path:
    """What is held by whoever builds or removes the environment of that name."""
    return home / "locks" / f"environment-{name}"


class _Folder:
    """Where an environment is being made: ``path`` is beside ``target`` first, and then it.

    Taken, moved and left in threads that nobody may be waiting for any more.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.parent / f".{target.name}.{secrets.token_hex(4)}"
        self.kept = False
        """Whether it is done; one that isn't goes when it is left."""
        self._turn = threading.Lock()
        self._held: int | None = None

    def take(self) -> None:
        """Make it and hold it, after removing what others left there."""
        with self._turn:
            root = self.target.parent
            root.mkdir(parents=True, exist_ok=True)
            with locked(root):  # a new folder isn't held yet for a moment
                for name in filter(OURS.fullmatch, os.listdir(root)):
                    left = root / name
                    if name.startswith(".") or left == self.target or not (left / MANIFEST).exists():
                        sweep(left)
                self.path.mkdir()
                self._held = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def move(self) -> None:
        """Bring it to its place."""
        with self._turn:
            os.rename(self.path, self.target)
            self.path = self.target

    def leave(self) -> None:
        """Let go of it."""
        with self._turn:
            if self._held is not None:
                if not self.kept:
                    shutil.rmtree(self.path, ignore_errors=True)
                os.close(self._held)


@asynccontextmanager
async def _taken(target: Path) -> AsyncIterator[_Folder]:
    folder = _Folder(target)
    try:
        await asyncio.to_thread(folder.take)
        yield folder
    finally:
        await asyncio.to_thread(folder.leave)


async def _install(recipe: Recipe, folder: _Folder, tool: Tool, hear: Listener) -> None:
    hear.begin("venv")
    await _run(recipe, folder, tool, tool.make(folder.path), hear)
    await asyncio.to_thread(tool.prepare, recipe, folder.path)
    hear.begin("resolve")
    await _run(recipe, folder, tool, tool.install(recipe, folder.path, os.environ), hear)


async def _run(recipe: Recipe, folder: _Folder, tool: Tool, argv: Sequence[str], hear: Listener) -> None:
    more = await asyncio.to_thread(tool.environment, os.environ)
    child = await spawn(argv, env=more, on_line=hear)
    try:
        end = await child.wait()
    finally:
        await child.aclose()
    if end.code != 0:
        ended = f"status {end.code}" if end.signal is None else signal.Signals(end.signal).name
        why = await asyncio.to_thread(
            explained, [*hear.lines, f"{tool.name} ended with {ended}"], folder.path
        )
        raise ServerError(f"the environment {recipe.name} could not be built with {tool.name}: {why}")


async def _finish(recipe: Recipe, folder: _Folder, tool: Tool, hear: Listener) -> Environment:
    """Move it to its place, try it out there, and say that it is done."""
    hear.begin("check")
    await asyncio.to_thread(_readdress, folder.path, folder.target)
    await asyncio.to_thread(folder.move)
    python = folder.path / "bin" / "python"
    found = await look_inside(python, recipe.modules, recipe.requirements)
    wrong = [f"{module} can't be imported: {why}" for module, why in found.failed.items()]
    wrong += wrong_versions(recipe.pins, found.packages, all_of_them=False)
    if tool.name == "pip" and recipe.overrides:
        missing = list(unmet(found, besides=recipe.overridden))
        wrong += [*missing, "pip knows no overrides; python -m pip install uv"] if missing else []
    if wrong:
        raise ServerError(
            f"the environment {recipe.name} was installed, but does not work: {'; '.join(wrong)}. Mend: upgrade "
            "the plugin that asks for it, or name another --version"
        )
    manifest = Manifest(
        engine=recipe.engine,
        version=recipe.version,
        accelerator=recipe.accelerator,
        digest=recipe.digest,
        python_version=found.python_version,
        distributions=recipe.distributions,
        modules=recipe.modules,
        requirements=recipe.requirements,
        packages=found.packages,
    )
    await asyncio.to_thread(_write, folder.path, manifest)
    folder.kept = True
    return await asyncio.to_thread(look_at, folder.path)


def _readdress(folder: Path, target: Path) -> None:
    """Have the programs of an environment, of which some name their interpreter, find it at its new place.

    The interpreter itself needs nothing: it finds its packages by where it lies. uv's programs do, too.
    """
    old, new = os.fsencode(folder), os.fsencode(target)
    for program in (folder / "bin").iterdir():
        if program.is_file() and not program.is_symlink():
            content = program.read_bytes()
            if old in content:
                program.write_bytes(content.replace(old, new))


def _write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, once all that it speaks of is on the disk."""
    os.sync()
    partial = folder / f".{MANIFEST}"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(asdict(manifest), file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / MANIFEST)
    for each in (folder, folder.parent):
        descriptor = os.open(each, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):  # file systems that can't, need not
            os.fsync(descriptor)
        os.close(descriptor)
