"""Storages whose content is known, and which break where they are told to."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from llmengine_core.cache import Weights, WeightsCache, Work
from llmengine_core.interfaces.storage import Storage, StorageError
from llmengine_core.testing.memory_storage import MemoryStorage
from llmengine_core.types.plan import CheckpointFacts, CheckpointFile
from llmengine_core.types.progress import OnProgress

__all__ = ["Broken", "Fault", "Source", "Vouched", "nobody_looks", "sha256"]

Vouched: TypeAlias = Literal["sha256", "etag", "nothing"]
"""What is known of a file's content before it is fetched."""
PIECE = 10_000
_numbers = itertools.count()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one download."""

    kind: Literal["cut", "short", "wrong", "long", "cancelled"]
    """It fails, ends as if it were whole, has another byte in it, has more at its end, or its caller is cancelled."""
    at: int
    """At which byte of what was asked for."""
    key: str = ""
    """Of the object that it happens to; "" for whichever is asked for next."""


class Broken(MemoryStorage):
    """Objects whose downloads meet faults in their order."""

    def __init__(
        self,
        url: str,
        faults: list[Fault | None],
        asked: list[tuple[str, int]],
        cancel: Callable[[], object],
    ) -> None:
        super().__init__(url)
        self._faults = faults
        self._asked = asked
        self._cancel = cancel

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        self._asked.append((key, start))
        mine = [at for at, each in enumerate(self._faults) if each is None or each.key in ("", key)]
        fault = self._faults.pop(mine[0]) if mine else None
        content = b"".join([piece async for piece in super().get(key, start=start, stop=stop)])
        if fault is not None and fault.kind == "wrong" and content:
            at = fault.at % len(content)
            content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        if fault is not None and fault.kind == "long":
            content += b"more"
        if fault is not None and fault.kind in ("cut", "short", "cancelled"):
            content = content[: fault.at]
        for at in range(0, len(content), PIECE):
            await asyncio.sleep(0)
            yield content[at : at + PIECE]
        if fault is not None and fault.kind == "cut":
            raise StorageError("the connection was cut")
        if fault is not None and fault.kind == "cancelled":
            self._cancel()
            await asyncio.Event().wait()


async def nobody_looks(_: CheckpointFacts) -> CheckpointFacts:
    raise AssertionError("it was looked at already")


@dataclass
class Source:
    """A folder of files at a URL of its own."""

    files: Mapping[str, bytes]
    vouched: Vouched = "sha256"
    faults: Sequence[Fault | None] = ()
    url: str = field(default_factory=lambda: f"memory://source{next(_numbers)}/folder")
    asked: list[tuple[str, int]] = field(default_factory=list)
    """Key and first byte of every download."""

    def __post_init__(self) -> None:
        self._left = list(self.faults)

    def storage(self, url: str, task: asyncio.Task[object] | None = None) -> Storage:
        """A storage whose downloads cancel that task, where they are to be cancelled."""
        return Broken(url, self._left, self.asked, task.cancel if task else lambda: None)

    async def facts(self, main: str | None = None) -> CheckpointFacts:
        """The files, put there; ``main`` is the one that the URL names."""
        storage = MemoryStorage(self.url)
        found = []
        for name, content in self.files.items():
            meta = await storage.put(name, content)
            found.append(
                CheckpointFile(
                    name=name,
                    size=len(content),
                    etag=meta.etag if self.vouched == "etag" else None,
                    sha256=sha256(content) if self.vouched == "sha256" else None,
                )
            )
        found.sort(key=lambda file: file.name != main)
        return CheckpointFacts(
            url=f"{self.url}/{main}" if main else self.url, format="gguf", files=tuple(found)
        )

    async def fetch(
        self, cache: WeightsCache, facts: CheckpointFacts, on_progress: OnProgress = lambda _: None
    ) -> Weights:
        task = asyncio.current_task()
        return await cache.fetched(
            facts, Work("mine", on_progress), storage=lambda url: self.storage(url, task), look=nobody_looks
        )


def content_of(path: Path) -> dict[str, bytes]:
    """The content of each file in a folder."""
    return {
        each.relative_to(path).as_posix(): each.read_bytes() for each in path.rglob("*") if each.is_file()
    }
