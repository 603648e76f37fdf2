"""What objects on the local disk and rows in SQLite cost, beside the barest way to do the same.

    python benchmarks/bench_storage.py [--gib 1] [--folder DIR]

Every figure comes from an interpreter of its own. `put` and `get` stream pieces of 1 MiB through the storage, and
`raw put` writes the same pieces and syncs once; `obstore put` and `obstore get` are the library that could
have carried the storage, where it is installed. Growth is that of the resident memory while streaming.
`rows` compares the two ways to make a commit durable, and `open` is the CPU time from an interpreter
that has asyncio loaded to the first answer of a store, `import sqlite3` included.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any


async def pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * (1 << 20)  # a new object each time: whoever keeps them is seen to


async def put(folder: Path, count: int) -> int:
    from llmengine_localdisk.storage import LocalDiskStorage

    return (await LocalDiskStorage(folder.as_uri()).put("k", pieces(count))).size


async def put_create(folder: Path, count: int) -> int:
    from llmengine_localdisk.storage import LocalDiskStorage

    return (await LocalDiskStorage(folder.as_uri()).put("k", pieces(count), mode="create")).size


async def get(folder: Path, _: int) -> int:
    from llmengine_localdisk.storage import LocalDiskStorage

    return sum([len(piece) async for piece in LocalDiskStorage(folder.as_uri()).get("k")])


async def copy(folder: Path, _: int) -> int:
    from llmengine_localdisk.storage import LocalDiskStorage

    return (await LocalDiskStorage(folder.as_uri()).copy("k", "copied")).size


async def raw_put(folder: Path, count: int) -> int:
    with (folder / "k").open("wb", buffering=0) as file:
        async for piece in pieces(count):
            file.write(piece)
        os.fsync(file.fileno())
    return count << 20


async def obstore_put(folder: Path, count: int) -> int:
    import obstore
    from obstore.store import LocalStore

    await obstore.put_async(LocalStore(folder), "k", pieces(count))
    return count << 20


async def obstore_put_create(folder: Path, count: int) -> int:
    import obstore
    from obstore.store import LocalStore

    await obstore.put_async(LocalStore(folder), "k", pieces(count), mode="create")
    return count << 20


async def obstore_get(folder: Path, _: int) -> int:
    import obstore
    from obstore.store import LocalStore

    found = await obstore.get_async(LocalStore(folder), "k")
    return sum([len(piece) async for piece in found.stream(1 << 20)])


def resident() -> int:
    """The most memory that was ever resident, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


async def streamed(name: str, folder: Path, count: int) -> None:
    task: Callable[[Path, int], Coroutine[Any, Any, int]] = globals()[name]
    warm = Path(tempfile.mkdtemp(dir=folder))
    (warm / "k").write_bytes(b"x" * 1000)
    if "create" in name:
        (warm / "k").unlink()
    await task(warm, 1)
    before, cpu, wall = resident(), time.process_time(), time.perf_counter()
    size = await task(folder, count)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    gib = size / (1 << 30)
    print(f"{name:20} {cpu / gib:8.2f} {wall / gib:8.2f} {(resident() - before) / (1 << 20):8.1f}")


async def rows(level: str, folder: Path, count: int) -> None:
    from llmengine_sqlite import files
    from llmengine_sqlite.store import SqliteStore

    opened = files.open_file

    def connect(path: Path) -> Any:
        connection = opened(path)
        connection.execute(f"PRAGMA synchronous = {level}")
        return connection

    store = SqliteStore(f"sqlite:///{folder}/{level}.db")
    store._worker._connect = lambda: connect(store._path)
    await store.insert("t", "k", {})
    cpu, wall = time.process_time(), time.perf_counter()
    for number in range(count):
        await store.insert("t", str(number), {"status": "READY", "number": number})
    print(
        f"{level:20} {micro(time.process_time() - cpu, count)} {micro(time.perf_counter() - wall, count)}",
        end="",
    )
    wall = time.perf_counter()
    for number in range(count):
        await store.get("t", str(number))
    print(f" {micro(time.perf_counter() - wall, count)}")
    await store.aclose()


def micro(seconds: float, count: int) -> str:
    return f"{seconds / count * 1e6:8.0f}"


async def opening(folder: Path) -> None:
    import llmengine_core.interfaces.store  # noqa: F401  the core has it loaded

    assert "sqlite3" not in sys.modules
    for state in ("fresh file", "existing file"):
        cpu = time.process_time()
        from llmengine_sqlite.store import SqliteStore

        store = SqliteStore(f"sqlite:///{folder}/state.db")
        await store.get("t", "k")
        print(f"{state:20} {(time.process_time() - cpu) * 1000:8.1f}")
        await store.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gib", type=float, default=1.0, help="how much to stream")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary one unless told")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    count = max(1, int(arguments.gib * 1024))
    if arguments.one:
        kind, name, folder = arguments.one[0], arguments.one[1], Path(arguments.one[2])
        if kind == "rows":
            asyncio.run(rows(name, folder, 1000))
        elif kind == "open":
            asyncio.run(opening(folder))
        else:
            asyncio.run(streamed(name, folder, count))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as found:

        def run(kind: str, name: str) -> None:
            again = [sys.executable, __file__, "--gib", str(arguments.gib), "--one", kind, name, found]
            subprocess.run(
                again, check=not name.startswith("obstore")
            )  # its interpreters abort at the end at times

        print(f"{'per GiB':20} {'CPU s':>8} {'wall s':>8} {'MiB grown':>9}")
        run("stream", "raw_put")
        if importlib.util.find_spec("obstore"):
            for name in ("obstore_put", "obstore_get"):
                run("stream", name)
            Path(found, "k").unlink()
            run("stream", "obstore_put_create")
        for name in ("put", "get", "copy"):
            run("stream", name)
        Path(found, "k").unlink()
        run("stream", "put_create")
        print(f"\n{'synchronous':20} {'CPU us':>8} {'insert':>8} {'get':>8}")
        run("rows", "NORMAL")
        run("rows", "FULL")
        print(f"\n{'open':20} {'CPU ms':>8}")
        run("open", "-")


if __name__ == "__main__":
    main()
