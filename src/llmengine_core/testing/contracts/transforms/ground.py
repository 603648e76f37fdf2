"""How transforms are run and looked at: on a small checkpoint, as the core runs them."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from llmengine_core.errors import ServerError
from llmengine_core.interfaces.transform import Transform
from llmengine_core.places import Places
from llmengine_core.provisioning import run_transform
from llmengine_core.registry import Registry
from llmengine_core.settings import Settings, load_settings
from llmengine_core.testing.checkpoints import KINDS, gguf_file, hugging_face_folder
from llmengine_core.testing.contracts.declared import find_declared, registry_of
from llmengine_core.testing.laws import Contract, NotApplicable
from llmengine_core.types.declarations import TransformInfo
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.plan import CheckpointFacts
from llmengine_core.types.progress import OnProgress, Progress
from llmengine_core.urls import UrlPolicy
from llmengine_core.weights import find_weights

__all__ = ["Bench", "TransformGround", "digest", "inspected"]


@dataclass
class Bench:
    """What all laws of a transform share."""

    folder: Path
    source: Path
    python: str
    info: TransformInfo
    registry: Registry
    made: dict[str | None, str] = field(default_factory=dict)
    """Digests of what was made of the source, by method."""
    numbers: itertools.count[int] = field(default_factory=itertools.count)


class TransformGround(Contract):
    """A transform by its name, and a small checkpoint that it works on."""

    kind = "transform"
    transform: ClassVar[str]
    """Its name, as in ``TransformInfo``."""
    plugin: ClassVar[str] = ""
    """The plugin's module, where it isn't installed under an entry point."""
    methods: ClassVar[tuple[str, ...] | None] = None
    """Quantizations to try, of those that it declares; None for all."""
    margin: ClassVar[float] = 10.0
    """Seconds in which work that was cancelled has stopped, also on a machine that is busy."""
    drift: ClassVar[float] = 0.5
    """How far weights may move, as the root of the squares over theirs; noise in their place comes to 1.4."""

    @classmethod
    def settings(cls) -> Settings:
        """Where engine environments are; by default what the process is configured with."""
        return load_settings()

    @classmethod
    def registry(cls) -> Registry:
        """All that is installed, and the plugin."""
        return registry_of(cls.settings(), cls.plugin)

    @classmethod
    def info(cls) -> TransformInfo:
        """The declaration that is judged."""
        return find_declared(cls.registry(), TransformInfo, cls.transform)

    @classmethod
    def made(cls) -> Transform:
        """A transform of its own."""
        found: Transform = cls.registry().load(cls.info())
        return found

    @classmethod
    def python(cls) -> str:
        """The interpreter that it runs in, "" for our own."""
        try:
            return Places(cls.settings(), cls.registry()).of_transform(cls.info())
        except ServerError as error:
            raise NotApplicable(str(error)) from error

    @classmethod
    def source(cls, folder: Path) -> Path:
        """A small checkpoint, in full precision, that it can work on; it goes into ``folder``. Runs in a thread.

        By default one of the kit's own, of the source format that is declared.
        """
        info = cls.info()
        kinds = [kind for kind in KINDS if info.architectures is None or kind in info.architectures]
        if kinds and info.source_format == "safetensors":
            return hugging_face_folder(folder / "model", kinds[0])
        if kinds and info.source_format == "gguf":
            return gguf_file(folder / "model.gguf", kinds[0])
        raise AssertionError(
            f"the kit has no small checkpoint in {info.source_format} of {sorted(info.architectures or ())}; "
            f"override source() of {cls.__name__}"
        )

    async def loads(self, path: Path) -> None:
        """Load what was made as those do that read its format; raises what is wrong with it.

        Override it where an engine is at hand.
        """
        raise NotApplicable("loads() is not overridden: no engine to load it with")

    @asynccontextmanager
    async def full_disk(self) -> AsyncIterator[Path]:
        """A folder where nothing can be written for want of space. Override it where there is one."""
        raise NotApplicable("full_disk() is not overridden: no disk to fill")
        yield Path()

    @classmethod
    @asynccontextmanager
    async def shared(cls) -> AsyncIterator[Bench]:
        holder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="transform-")
        try:
            folder = Path(holder.name)
            yield await asyncio.to_thread(
                lambda: Bench(folder, cls.source(folder), cls.python(), cls.info(), cls.registry())
            )
        finally:
            await asyncio.to_thread(holder.cleanup)

    @property
    def bench(self) -> Bench:
        """The checkpoint, and where to put what is made of it."""
        bench: Bench = self.given
        return bench

    def tried(self) -> tuple[str | None, ...]:
        """The methods to try; None alone for a mere conversion."""
        declared = sorted(self.bench.info.methods)
        return tuple(declared if self.methods is None else self.methods) or (None,)

    def target_name(self) -> str:
        """What a target is called: files have an ending, folders none."""
        return "made.gguf" if self.bench.info.target_format == "gguf" else "made"

    async def place(self, name: str = "") -> Path:
        """A target that doesn't exist, in a new folder that does."""
        folder = self.bench.folder / f"{next(self.bench.numbers)}{name}"
        await asyncio.to_thread(folder.mkdir)
        return folder / self.target_name()

    async def work(
        self,
        target: Path,
        method: str | None,
        *,
        source: Path | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Make ``target`` as the core does."""
        transform = await asyncio.to_thread(self.made)

        def ignore(_: Progress) -> None:
            """Nobody asks."""

        await run_transform(
            transform,
            source or self.bench.source,
            target,
            method=method,
            on_progress=on_progress or ignore,
            python=self.bench.python,
        )

    async def done(self, method: str | None) -> Path:
        """What was made of the source, anew."""
        target = await self.place()
        await self.work(target, method)
        assert await asyncio.to_thread(target.exists), (
            f"run() returned and there is no {target.name}, which it was to write"
        )
        return target

    async def expected(self, method: str | None) -> str:
        """The digest of what is made of the source: of a first run, that all others are held against."""
        if method not in self.bench.made:
            self.bench.made[method] = await asyncio.to_thread(digest, await self.done(method))
        return self.bench.made[method]


def digest(path: Path) -> str:
    """Of a file, or of a folder's files with their names."""
    seen = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file()):
        seen.update(f"{'' if file == path else file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        seen.update(file.read_bytes())
    return seen.hexdigest()


async def inspected(path: Path, registry: Registry) -> CheckpointFacts:
    """What our own inspection sees there, of the content."""
    spec = ModelSpec(name="made", model="made", checkpoint_path=str(path))
    return await find_weights(spec, None, registry, UrlPolicy())
