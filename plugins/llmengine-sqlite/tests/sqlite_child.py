"""What a process of its own does to a store: `sqlite_child.py TASK URL`. It fails where a law doesn't hold."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import warnings

from llmengine_core.interfaces.store import StoreError
from llmengine_core.types.objects import Row
from llmengine_sqlite.store import SqliteStore

NOBODY = 65534


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def refused(url: str) -> None:
    """Insert where writing is refused; say why."""
    store = SqliteStore(url)
    try:
        await store.insert("t", "new", {})
    except StoreError as error:
        say(str(error))
    else:
        sys.exit("the insert was not refused")
    await store.aclose()


async def read_only(url: str) -> None:
    if os.geteuid() == 0:
        os.setuid(NOBODY)  # nothing is read-only to root
    await refused(url)


async def full(url: str) -> None:
    """Insert until the disk is full: what was acknowledged stays, and deleting makes room again."""
    store = SqliteStore(url)
    done = 0
    try:
        while True:
            await store.insert("t", str(done), {"fill": "x" * 50_000})
            done += 1
    except StoreError as error:
        say(str(error))
    assert done
    assert len(await store.scan("t")) == done
    await store.aclose()
    store = SqliteStore(url)
    rows = await store.scan("t")
    assert {row.key for row in rows} == {str(each) for each in range(done)}
    await store.aclose()


async def limited(url: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    await full(url)


async def forked(url: str) -> None:
    """Fork in the midst of writing; the child goes on with the store, also when its parent has closed it."""
    store = SqliteStore(url)
    await store.insert("t", "before", {})
    pending = [asyncio.ensure_future(store.insert("t", f"parent {each}", {})) for each in range(100)]
    await pending[10]
    opened, closed = os.pipe(), os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pythons that warn of forks beside threads: that is what is tested
        child = os.fork()
    if child == 0:
        os.close(closed[1])  # so that it ends with its parent
        asyncio._set_running_loop(None)
        os._exit(asyncio.run(in_child(store, opened[1], closed[0])))
    await asyncio.gather(*pending)
    os.read(opened[0], 1)
    await store.aclose()
    log = url.removeprefix("sqlite:///") + "-wal"
    assert await asyncio.to_thread(os.path.exists, log), "the child's log was taken from it"
    os.write(closed[1], b"x")
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    store = SqliteStore(url)
    rows = await store.scan("t")
    assert {row.key for row in rows} == {"before", "child", *(f"parent {each}" for each in range(100))}
    await store.aclose()


async def in_child(store: SqliteStore, opened: int, closed: int) -> int:
    assert await store.get("t", "before") == Row("before", 1, {})
    os.write(opened, b"x")
    os.read(closed, 1)
    await store.insert("t", "child", {})
    await store.aclose()
    return 0


async def left_open(url: str) -> None:
    """End with calls under way and nothing closed."""
    store = SqliteStore(url)
    say((await store.insert("t", "k", {})).key)
    pending = [asyncio.ensure_future(store.insert("t", str(each), {})) for each in range(50)]
    await asyncio.sleep(0)
    assert pending


async def left_waiting(url: str) -> None:
    """End while a call waits for a lock that another process keeps."""
    store = SqliteStore(url)
    waiting = asyncio.ensure_future(store.insert("t", "k", {}))
    say("waiting")
    await asyncio.to_thread(sys.stdin.readline)
    assert not waiting.done()


TASKS = [refused, read_only, full, limited, forked, left_open, left_waiting]

if __name__ == "__main__":
    asyncio.run({each.__name__: each for each in TASKS}[sys.argv[1]](sys.argv[2]))
