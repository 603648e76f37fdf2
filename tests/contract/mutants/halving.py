"""A transform in pure Python that stores weights as 16-bit floats: what wrong transforms are made of."""

from __future__ import annotations

import asyncio
import errno
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

from tests.contract.mutants import Mutant

from llmengine_core.errors import BadRequestError
from llmengine_core.gguf import BadHeader, read_header
from llmengine_core.interfaces.transform import Transform
from llmengine_core.testing import TransformContract
from llmengine_core.testing.checkpoints import GGUF_SHAPES, gguf_bytes
from llmengine_core.testing.tensors import Tensors, read_tensors
from llmengine_core.types.declarations import TransformInfo
from llmengine_core.types.progress import OnProgress, Progress

MUTANTS: list[Mutant] = []


class Halving(Transform):
    file_type = 1
    pause = 0.0
    """Seconds that it waits after its first news, unless it is cancelled then."""

    async def run(
        self, source: Path, target: Path, *, method: str | None, on_progress: OnProgress, python: str = ""
    ) -> None:
        self.check(method)
        loop = asyncio.get_running_loop()

        def tell(done: float) -> None:
            loop.call_soon_threadsafe(on_progress, Progress(source.name, "transform", done, 1.0))

        stop = threading.Event()
        working = loop.run_in_executor(None, self.work, source, target, tell, stop)
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait({working})
            raise
        tell(1.0)
        await asyncio.sleep(0)

    def check(self, method: str | None) -> None:
        if method != "f16":
            raise BadRequestError(f"quantize is {method!r}; allowed: f16")

    def work(self, source: Path, target: Path, tell: Callable[[float], None], stop: threading.Event) -> None:
        tensors = self.read(source)
        made = {name: (1, self.stored(tensors[name])) for name in GGUF_SHAPES}
        content = gguf_bytes("llama", made, file_type=self.file_type)
        tell(0.0)
        stop.wait(self.pause)
        with target.open("xb") as file:
            for at in range(0, len(content), 4096):
                if stop.is_set():
                    return
                self.put(target, file.write, content[at : at + 4096])
                tell(at / len(content))

    def read(self, source: Path) -> Tensors:
        content = source.read_bytes()
        try:
            read_header(content, len(content))
        except BadHeader as error:
            raise BadRequestError(f"{source.name} can't be stored as f16: {error.reason}") from None
        return read_tensors(source)

    def stored(self, numbers: list[float]) -> bytes:
        return struct.pack(f"<{len(numbers)}e", *numbers)

    def put(self, target: Path, write: Callable[[bytes], object], data: bytes) -> None:
        if target.parent.name == "full":
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        write(data)


class TransformOf(TransformContract):
    """Of ``made_of``."""

    transform = "halving"
    made_of: ClassVar[type[Transform]] = Halving

    @classmethod
    def info(cls) -> TransformInfo:
        return TransformInfo(
            name="halving",
            factory="tests:Halving",
            source_format="gguf",
            target_format="gguf",
            methods=frozenset({"f16"}),
            architectures=frozenset({"llama"}),
        )

    @classmethod
    def made(cls) -> Transform:
        return cls.made_of()

    async def loads(self, path: Path) -> None:
        found = await asyncio.to_thread(read_tensors, path)
        assert found.keys() == GGUF_SHAPES.keys(), f"there are {sorted(found)}"

    @asynccontextmanager
    async def full_disk(self) -> AsyncIterator[Path]:
        folder = self.bench.folder / "full"
        await asyncio.to_thread(folder.mkdir)
        yield folder
