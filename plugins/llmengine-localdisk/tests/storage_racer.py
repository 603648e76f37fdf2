"""One of several processes on one storage: `storage_racer.py FACTORY URL TASK ARGUMENT`.

It says "ready", waits for a line, does its task, and reports on its standard output.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import sys
from collections.abc import AsyncIterator

from llmengine_core.interfaces.storage import ObjectExists, PreconditionFailed, Storage


def opened(factory: str, url: str) -> Storage:
    module, _, name = factory.partition(":")
    storage = getattr(importlib.import_module(module), name)(url)
    assert isinstance(storage, Storage)
    return storage


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def sealed(number: int) -> bytes:
    """Content of some size that tells whether it is whole."""
    body = number.to_bytes(4, "big") * (1 + number * 7919 % 60_000)
    return hashlib.sha256(body).digest() + body


async def content(storage: Storage, key: str) -> bytes:
    return b"".join([piece async for piece in storage.get(key)])


async def increment(storage: Storage, times: int) -> None:
    """Add 1 to the number under "n" by compare-and-set."""
    for _ in range(times):
        while True:
            before = await storage.head("n")
            seen = await content(storage, "n")
            if (await storage.head("n")).etag != before.etag:
                continue
            try:
                await storage.put("n", b"%d" % (int(seen) + 1), if_match=before.etag)
                break
            except PreconditionFailed:
                continue


async def create(storage: Storage, number: int) -> None:
    """Create as many keys as it can, and name them."""
    for key in range(30):
        try:
            await storage.put(f"folder/{key}", b"%d" % number, mode="create")
            say(str(key))
        except ObjectExists:
            continue


async def churn(storage: Storage, number: int) -> None:
    """Put and delete what the others put and delete, in folders that come and go with it."""
    for turn in range(60):
        await storage.put(f"x/{turn % 3}/{number % 2}", sealed(turn))
        await storage.delete(f"x/{turn % 3}/{(number + 1) % 2}")
    await storage.put(f"y/{number}", b"done")


async def write(storage: Storage, start: int) -> None:
    """Put objects for ever, and acknowledge each."""

    async def pieces(whole: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(whole), 50_000):
            yield whole[at : at + 50_000]

    number = start
    while True:
        await storage.put(f"w/{number}", pieces(sealed(number)))
        await storage.put("last", sealed(number))
        say(str(number))
        number += 1


async def stall(storage: Storage, _: int) -> None:
    """Begin a put, say "mid", and go on at the next line."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * (3 << 20)
        say("mid")
        await asyncio.to_thread(sys.stdin.readline)
        yield b"y"

    await storage.put("stalled", pieces())


async def main(factory: str, url: str, task: str, argument: str) -> None:
    storage = opened(factory, url)
    say("ready")
    sys.stdin.readline()
    await {"increment": increment, "create": create, "churn": churn, "write": write, "stall": stall}[task](
        storage, int(argument)
    )
    await storage.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
