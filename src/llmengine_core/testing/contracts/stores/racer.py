"""One of several processes on one store; see ``racer``."""

from __future__ import annotations

import time

from llmengine_core.interfaces.store import RowConflict, RowExists, Store
from llmengine_core.testing.contracts.racer import race, say

__all__ = ["KEYS", "create", "fill", "increment"]

KEYS = 12
"""How many rows creators race for."""


def fill(number: int) -> str:
    """Text of some size, to be told whole."""
    return "x" * (number * 7919 % 9000)


async def increment(store: Store, seconds: float) -> int:
    """Add 1 to a number by compare-and-set, again and again, once at least; how often."""
    end, done = time.monotonic() + seconds, 0
    while not done or time.monotonic() < end:
        row = await store.get("numbers", "n")
        if row is None:
            raise AssertionError("a row that nobody deletes is gone")
        try:
            await store.replace("numbers", "n", {"n": row.value["n"] + 1}, version=row.version)
        except RowConflict:
            continue
        done += 1
    return done


async def create(store: Store, who: float) -> list[int]:
    """Create as many rows as it can; which."""
    won = []
    for key in range(KEYS):
        try:
            await store.insert("created", str(key), {"by": int(who)})
            won.append(key)
        except RowExists:
            continue
    return won


async def write(store: Store, start: float) -> None:
    """Insert rows and change one for ever, and acknowledge each."""
    number = int(start)
    while True:
        await store.insert("written", str(number), {"n": number, "fill": fill(number)})
        row = await store.get("last", "last")
        if row is None:
            await store.insert("last", "last", {"n": number})
        else:
            await store.replace("last", "last", {"n": number}, version=row.version)
        say(number)
        number += 1


async def _increment(store: Store, seconds: float) -> None:
    say(await increment(store, seconds))


async def _create(store: Store, who: float) -> None:
    say(" ".join(map(str, await create(store, who))))


if __name__ == "__main__":
    race({"increment": _increment, "create": _create, "write": write})
