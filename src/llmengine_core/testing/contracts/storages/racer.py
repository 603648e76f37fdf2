"""One of several processes on one storage; see ``racer``."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator

from llmengine_core.interfaces.storage import ObjectExists, PreconditionFailed, Storage
from llmengine_core.testing.contracts.racer import race, say, told

__all__ = ["KEYS", "content", "create", "increment", "sealed"]

KEYS = 12
"""How many keys creators race for."""


def sealed(number: int) -> bytes:
    """Content of some size that tells whether it is whole."""
    body = number.to_bytes(4, "big") * (1 + number * 7919 % 60_000)
    return hashlib.sha256(body).digest() + body


async def content(storage: Storage, key: str) -> bytes:
    """The whole content of an object."""
    return b"".join([piece async for piece in storage.get(key)])


async def increment(storage: Storage, seconds: float) -> int:
    """Add 1 to the number under "n" by compare-and-set, again and again, once at least; how often."""
    end, done = time.monotonic() + seconds, 0
    while not done or time.monotonic() < end:
        before = await storage.head("n")
        seen = await content(storage, "n")
        if (await storage.head("n")).etag != before.etag:
            continue
        try:
            await storage.put("n", b"%d" % (int(seen) + 1), if_match=before.etag)
        except PreconditionFailed:
            continue
        done += 1
    return done


async def create(storage: Storage, who: float) -> list[int]:
    """Create as many keys as it can; which."""
    won = []
    for key in range(KEYS):
        try:
            await storage.put(f"folder/{key}", b"%d" % who, mode="create")
            won.append(key)
        except ObjectExists:
            continue
    return won


async def churn(storage: Storage, who: float) -> None:
    """Put and delete what the others put and delete, in folders that come and go with it."""
    end, number = time.monotonic() + 0.5, int(who)
    for turn in range(60):
        await storage.put(f"x/{turn % 3}/{number % 2}", sealed(turn))
        await storage.delete(f"x/{turn % 3}/{(number + 1) % 2}")
        if time.monotonic() > end:
            break
    await storage.put(f"y/{number}", b"done")


async def write(storage: Storage, start: float) -> None:
    """Put objects for ever, and acknowledge each."""

    async def pieces(whole: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(whole), 50_000):
            yield whole[at : at + 50_000]

    number = int(start)
    while True:
        await storage.put(f"w/{number}", pieces(sealed(number)))
        await storage.put("last", sealed(number))
        say(number)
        number += 1


async def stall(storage: Storage, _: float) -> None:
    """Begin to overwrite one object and to put another, say "mid", and go on when told."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * (3 << 20)
        say("mid")
        await asyncio.to_thread(told)
        yield b"y"

    await asyncio.gather(storage.put("old", pieces()), storage.put("new", pieces()))


async def _increment(storage: Storage, seconds: float) -> None:
    say(await increment(storage, seconds))


async def _create(storage: Storage, who: float) -> None:
    say(" ".join(map(str, await create(storage, who))))


if __name__ == "__main__":
    race({"increment": _increment, "create": _create, "churn": churn, "write": write, "stall": stall})
