"""A program that fetches a folder of this machine into a cache, as if it lay elsewhere; tests run several at once.

``python fetcher.py HOME SOURCE FACTS SIZE MODE``. Each line that it prints is a JSON list; for some it waits
until a line comes. It prints ``["get", name, start]`` for each download, ``["told", done]`` for news, and in the end
``["done", path, digest]`` or ``["failed", class, message]``. Then it holds what it fetched until its input ends.

By MODE downloads are "free"; "stepwise": behind the first piece each waits for a line; "filled": behind the first
piece the disk is filled; or "limited": files larger than the source's half are refused.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from llmengine_core.cache import WeightsCache, Work
from llmengine_core.errors import LLMEngineError
from llmengine_core.records import from_json
from llmengine_core.types.plan import CheckpointFacts
from llmengine_core.types.progress import Progress
from llmengine_localdisk.storage import LocalDiskStorage

HOME, SOURCE, FACTS, SIZE, MODE = sys.argv[1:]


def say(*words: object) -> None:
    print(json.dumps(words), flush=True)


async def heard() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


class Elsewhere(LocalDiskStorage):
    """The folder, in small pieces, and with no path on this machine."""

    def path(self, key: str) -> None:  # type: ignore[override]
        return None

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        say("get", key, start)
        first = True
        async for piece in super().get(key, start=start, stop=stop):
            yield piece
            if first:
                first = False
                await asyncio.to_thread(between)
                if MODE == "stepwise":
                    await heard()


def between() -> None:
    filler = Path(HOME, "filler")
    if MODE == "filled" and not filler.exists():
        with filler.open("wb", buffering=0) as file:
            for piece in (bytes(1 << 16), b"0"):
                try:
                    while True:
                        file.write(piece)
                except OSError:
                    pass
    if MODE == "limited":
        half = sum(path.stat().st_size for path in Path(SOURCE).iterdir()) // 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (half, resource.RLIM_INFINITY))


async def looked(facts: CheckpointFacts) -> CheckpointFacts:
    return facts


async def main() -> None:
    facts = from_json(CheckpointFacts, json.loads(FACTS))
    cache = WeightsCache(Path(HOME), size=int(SIZE))
    last = [0.0]

    def told(news: Progress) -> None:
        if news.done != last[0]:
            last[0] = news.done
            say("told", news.done)

    def opened(_: str) -> LocalDiskStorage:
        return Elsewhere(Path(SOURCE).as_uri())

    while True:
        try:
            weights = await cache.fetched(facts, Work("mine", told), storage=opened, look=looked)
            say("done", str(weights.path), weights.digest)
        except LLMEngineError as error:
            say("failed", type(error).__name__, error.message)
        if (await heard()).strip() != "again":
            break
        await asyncio.to_thread(Path(HOME, "filler").unlink, missing_ok=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        globals()["MODE"] = "free"
    cache.close()


if __name__ == "__main__":
    os.umask(0o077)
    asyncio.run(main())
