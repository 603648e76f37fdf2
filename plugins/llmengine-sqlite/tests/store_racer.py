"""One of several processes on one store: `store_racer.py FACTORY URL TASK ARGUMENT`.

It says "ready", waits for a line, does its task, and reports on its standard output.
"""

from __future__ import annotations

import asyncio
import importlib
import sys

from llmengine_core.interfaces.store import RowConflict, RowExists, Store


def opened(factory: str, url: str) -> Store:
    module, _, name = factory.partition(":")
    store = getattr(importlib.import_module(module), name)(url)
    assert isinstance(store, Store)
    return store


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def increment(store: Store, times: int) -> None:
    """Add 1 to a number by compare-and-set."""
    for _ in range(times):
        while True:
            row = await store.get("numbers", "n")
            assert row is not None
            try:
                await store.replace("numbers", "n", {"n": row.value["n"] + 1}, version=row.version)
                break
            except RowConflict:
                continue


async def create(store: Store, number: int) -> None:
    """Create as many rows as it can, and name them."""
    for key in range(60):
        try:
            await store.insert("created", str(key), {"by": number})
            say(str(key))
        except RowExists:
            continue


async def write(store: Store, start: int) -> None:
    """Insert rows and change one for ever, and acknowledge each."""
    number = start
    while True:
        await store.insert("written", str(number), {"n": number, "fill": "x" * (number * 7919 % 9000)})
        row = await store.get("last", "last")
        if row is None:
            await store.insert("last", "last", {"n": number})
        else:
            await store.replace("last", "last", {"n": number}, version=row.version)
        say(str(number))
        number += 1


async def main(factory: str, url: str, task: str, argument: str) -> None:
    store = opened(factory, url)
    say("ready")
    sys.stdin.readline()
    await {"increment": increment, "create": create, "write": write}[task](store, int(argument))
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
