"""What objects in S3 cost through the storage, beside the library under it and beside boto3, in one run.

    python benchmarks/bench_s3.py [--rounds 3] [--megabytes 500] [--objects 2000] [--other PYTHON]
    python benchmarks/bench_s3.py --memory 5 [--folder DIR]

The server is SeaweedFS on this machine, in a folder of its own that is gone in the end. Every figure comes from an
interpreter of its own; the clients take turns within each round, and each round begins with another, so that a busy
machine or a warm server favours none. Wall and CPU seconds are the client's, medians of the rounds.
`up` and `down` stream one large object, `puts` and `gets` are small ones of 10 kB, 32 at once, `list` is all of them.
`--other` is the interpreter of an environment that has s3fs: what it depends on holds boto3 back, so it
is no part of this one. `--memory` streams that many gigabytes through `engine.files`, up and down: what
that adds to the most that the process has held after 16 MB went the same way.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MIB = 1 << 20
SMALL = 10_000
AT_ONCE = 32
TASKS = ("up", "down", "puts", "gets", "list")
GOAL = 0.9
"""Of the throughput of the library that the storage is built on."""
MOST_MEMORY = 100
"""MiB beyond what small files take."""


class Ours:
    """The storage."""

    def __init__(self, bucket: str) -> None:
        from llmengine_s3.storage import S3Storage

        self._storage = S3Storage(f"s3://{bucket}/ours")

    async def up(self, content: Content) -> None:
        """One large object."""
        await self._storage.put("large", content.pieces())

    async def down(self) -> int:
        """Its bytes, counted."""
        return sum([len(piece) async for piece in self._storage.get("large")])

    async def put(self, number: int, content: bytes) -> None:
        """A small object."""
        await self._storage.put(f"small/{number}", content)

    async def get(self, number: int) -> int:
        """Its bytes, counted."""
        return sum([len(piece) async for piece in self._storage.get(f"small/{number}")])

    async def list(self) -> int:
        """How many small objects there are."""
        return len([each async for each in self._storage.list("small/")])

    async def close(self) -> None:
        """Let go."""
        await self._storage.aclose()


class Obstore:
    """The library under it, as its documentation uses it."""

    def __init__(self, bucket: str) -> None:
        from obstore.store import S3Store

        # It finds the rest in the same variables of the environment.
        self._store = S3Store(bucket, prefix="obstore", client_options={"allow_http": True})

    async def up(self, content: Content) -> None:
        """One large object."""
        import obstore

        await obstore.put_async(self._store, "large", content.pieces())

    async def down(self) -> int:
        """Its bytes, counted."""
        import obstore

        found = await obstore.get_async(self._store, "large")
        return sum([len(piece) async for piece in found.stream()])

    async def put(self, number: int, content: bytes) -> None:
        """A small object."""
        import obstore

        await obstore.put_async(self._store, f"small/{number}", content)

    async def get(self, number: int) -> int:
        """Its bytes, counted."""
        import obstore

        found = await obstore.get_async(self._store, f"small/{number}")
        return len(await found.bytes_async())

    async def list(self) -> int:
        """How many small objects there are."""
        import obstore

        return sum([len(page) async for page in obstore.list(self._store, "small/")])

    async def close(self) -> None:
        """Nothing to let go of."""


class Boto3:
    """The usual client, whose calls block: threads."""

    def __init__(self, bucket: str) -> None:
        import boto3
        from botocore.config import Config

        config = Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=AT_ONCE,
        )
        self._client = boto3.session.Session().client("s3", config=config)
        self._bucket = bucket
        self._threads = ThreadPoolExecutor(AT_ONCE)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def up(self, content: Content) -> None:
        """One large object."""
        await self._call(lambda: self._client.upload_fileobj(content.file(), self._bucket, "boto3/large"))

    async def down(self) -> int:
        """Its bytes, counted."""

        def read() -> int:
            body = self._client.get_object(Bucket=self._bucket, Key="boto3/large")["Body"]
            return sum(len(piece) for piece in body.iter_chunks(MIB))

        return int(await self._call(read))

    async def put(self, number: int, content: bytes) -> None:
        """A small object."""
        key = f"boto3/small/{number}"
        await self._call(lambda: self._client.put_object(Bucket=self._bucket, Key=key, Body=content))

    async def get(self, number: int) -> int:
        """Its bytes, counted."""
        key = f"boto3/small/{number}"
        return len(
            await self._call(lambda: self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read())
        )

    async def list(self) -> int:
        """How many small objects there are."""

        def count() -> int:
            pages = self._client.get_paginator("list_objects_v2")
            return sum(
                page["KeyCount"] for page in pages.paginate(Bucket=self._bucket, Prefix="boto3/small/")
            )

        return int(await self._call(count))

    async def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()


class S3fs:
    """The files-like client over aiobotocore."""

    def __init__(self, bucket: str) -> None:
        options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
        config = {
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "max_pool_connections": AT_ONCE,
        }
        system = importlib.import_module("s3fs").S3FileSystem
        self._system = system(client_kwargs=options, config_kwargs=config, asynchronous=True)
        self._path = f"{bucket}/s3fs"

    async def up(self, content: Content) -> None:
        """One large object; it streams only from a file, which is there already."""
        await self._system._put_file(str(content.path), f"{self._path}/large")

    async def down(self) -> int:
        """Its bytes, counted; it streams only to a file."""
        with tempfile.NamedTemporaryFile() as file:
            await self._system._get_file(f"{self._path}/large", file.name)
            return os.fstat(file.fileno()).st_size

    async def put(self, number: int, content: bytes) -> None:
        """A small object."""
        await self._system._pipe_file(f"{self._path}/small/{number}", content)

    async def get(self, number: int) -> int:
        """Its bytes, counted."""
        return len(await self._system._cat_file(f"{self._path}/small/{number}"))

    async def list(self) -> int:
        """How many small objects there are."""
        return len(await self._system._find(f"{self._path}/small"))

    async def close(self) -> None:
        """End its session."""
        await self._system._s3.close()


CLIENTS: dict[str, type[Ours | Obstore | Boto3 | S3fs]] = {
    "obstore": Obstore,
    "ours": Ours,
    "boto3": Boto3,
    "s3fs": S3fs,
}


class Content:
    """A large object that is made while it is read: pieces of a megabyte, each an object of its own."""

    def __init__(self, pieces: int) -> None:
        self._count = pieces
        self._first = os.urandom(MIB - 8)
        self.path: Path | None = None
        """Where it lies once it was saved."""

    def _piece(self, number: int) -> bytes:
        return self._first + number.to_bytes(8, "big")

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it."""
        for number in range(self._count):
            yield self._piece(number)

    def save(self, folder: str) -> None:
        """Write it into a folder."""
        self.path = Path(folder, "large")
        with self.path.open("wb") as file:
            file.writelines(map(self._piece, range(self._count)))

    def file(self) -> File:
        """All of it, as an open file."""
        return File(map(self._piece, range(self._count)))


class File:
    """Pieces behind ``read``."""

    name = "made.bin"

    def __init__(self, pieces: Any) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, most: int = -1) -> bytes:
        """At most that many bytes."""
        while most < 0 or len(self._left) < most:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._left += piece
        taken, self._left = (self._left, b"") if most < 0 else (self._left[:most], self._left[most:])
        return taken


def cpu() -> float:
    """CPU seconds of this process, in all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak() -> float:
    """The most memory that this process has held, in MiB; what getrusage tells is at times the parent's."""
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (MIB if sys.platform == "darwin" else 1 << 10)


async def each(count: int, call: Callable[[int], Awaitable[Any]]) -> None:
    """Call it with every number, some at once."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await call(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())


async def measured(name: str, task: str, bucket: str, megabytes: int, objects: int) -> dict[str, float]:
    """One task by one client: seconds of wall and CPU, once it has a connection."""
    client = CLIENTS[name](bucket)
    await client.put(-1, b"warm")
    assert await client.get(-1) == 4
    content, small = Content(megabytes), os.urandom(SMALL)
    folder = tempfile.TemporaryDirectory()
    if name == "s3fs" and task == "up":
        content.save(folder.name)
    began, cpu_began = time.perf_counter(), cpu()
    if task == "up":
        await client.up(content)
    elif task == "down":
        assert await client.down() == megabytes * MIB
    elif task == "puts":
        await each(objects, lambda number: client.put(number, small))
    elif task == "gets":
        await each(objects, client.get)
    else:
        assert await client.list() == objects + 1
    figures = {"wall": time.perf_counter() - began, "cpu": cpu() - cpu_began, "peak": peak()}
    await client.close()
    folder.cleanup()
    return figures


async def remembered(gigabytes: float) -> dict[str, float]:
    """What a file of that size adds to the memory, up and down."""
    from llmengine_core.engine import Engine

    figures = {}
    async with Engine() as engine:

        async def up(pieces: int) -> str:
            record = await engine.files.upload(Content(pieces).pieces(), filename="made.bin")
            assert record.size == pieces * MIB, record
            return record.id

        async def down(file_id: str) -> int:
            return sum([len(piece) async for piece in engine.files.read(file_id)])

        warm = await up(16)
        assert await down(warm) == 16 * MIB
        idle, pieces = peak(), int(gigabytes * 1e9 / MIB)
        began, cpu_began = time.perf_counter(), cpu()
        file_id = await up(pieces)
        figures["up (MB/s)"] = pieces * MIB / 1e6 / (time.perf_counter() - began)
        figures["up (CPU s)"] = cpu() - cpu_began
        figures["up (MiB over idle)"] = peak() - idle
        began, cpu_began = time.perf_counter(), cpu()
        assert await down(file_id) == pieces * MIB
        figures["down (MB/s)"] = pieces * MIB / 1e6 / (time.perf_counter() - began)
        figures["down (CPU s)"] = cpu() - cpu_began
        figures["down (MiB over idle)"] = peak() - idle
        for each_id in (warm, file_id):
            await engine.files.delete(each_id)
    return figures


def compare(server: Any, wanted: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """Medians by task and client."""
    names = [name for name in CLIENTS if name != "s3fs" or wanted.other]
    found: dict[tuple[str, str], list[dict[str, float]]] = {pair: [] for pair in product(TASKS, names)}
    for number in range(wanted.rounds):
        bucket = server.bucket()
        for task in TASKS:
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                python = wanted.other if name == "s3fs" else sys.executable
                found[task, name].append(again(python, server, wanted, "--one", name, task, bucket))
        server.remove(bucket)
    return {
        task: {
            name: {
                figure: statistics.median(run[figure] for run in found[task, name])
                for figure in ("wall", "cpu", "peak")
            }
            for name in names
        }
        for task in TASKS
    }


def again(python: str, server: Any, wanted: argparse.Namespace, *more: str, **variables: str) -> Any:
    """What this script prints in an interpreter of its own."""
    sizes = ["--megabytes", str(wanted.megabytes), "--objects", str(wanted.objects)]
    done = subprocess.run(
        [python, __file__, *sizes, *more],
        env={**os.environ, **server.environment(), **variables},
        stdout=subprocess.PIPE,
        check=False,
    )
    if not done.stdout:
        raise SystemExit(f"{' '.join(more)} failed with status {done.returncode}")
    return json.loads(done.stdout)  # which is there also where obstore's interpreter aborts at its end


def shown(tasks: dict[str, dict[str, dict[str, float]]]) -> None:
    """A table: the figures, and the throughput and the CPU of each beside the library's."""
    print(f"{'':14} {'wall s':>8} {'CPU s':>8} {'peak MiB':>9} {'speed':>7} {'CPU':>6}   (× obstore's)")
    for task, clients in tasks.items():
        floor = clients["obstore"]
        for name, figures in clients.items():
            speed, work = floor["wall"] / figures["wall"], figures["cpu"] / floor["cpu"]
            verdict = f"   goal ≥ {GOAL}" if name == "ours" and task != "list" else ""
            print(
                f"{task:6} {name:7} {figures['wall']:8.2f} {figures['cpu']:8.2f} {figures['peak']:9.0f}"
                f" {speed:7.2f} {work:6.2f}{verdict}"
            )


def main() -> None:
    """Measure, and print beside the goals."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=500, help="size of the large object, in MiB")
    parser.add_argument("--objects", type=int, default=2000, help="how many small ones")
    parser.add_argument("--other", help="an interpreter that has s3fs, which is left out unless told")
    parser.add_argument("--memory", type=float, help="gigabytes to send and fetch, instead of all else")
    parser.add_argument("--folder", type=Path, help="where the server keeps all of it; a temporary one")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--remembered", action="store_true", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.one:
        name, task, bucket = wanted.one
        figures = asyncio.run(measured(name, task, bucket, wanted.megabytes, wanted.objects))
        print(json.dumps(figures), flush=True)
        return
    if wanted.remembered:
        print(json.dumps(asyncio.run(remembered(wanted.memory))))
        return
    sys.path.insert(0, str(ROOT))
    from tests.servers.seaweed import s3_server

    with s3_server(volume_mb=30_000, root=wanted.folder) as server:
        if wanted.memory is None:
            tasks = compare(server, wanted)
            print(json.dumps(tasks)) if wanted.json else shown(tasks)
            return
        with tempfile.TemporaryDirectory() as home:
            variables = {"LLMENGINE_HOME": home, "LLMENGINE_STORAGE_URL": f"s3://{server.bucket()}/bench"}
            command = ("--memory", str(wanted.memory), "--remembered")
            figures = again(sys.executable, server, wanted, *command, **variables)
    if wanted.json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        print(f"{name:22} {figure:10,.1f}   {f'≤ {MOST_MEMORY}' if 'idle' in name else ''}")


if __name__ == "__main__":
    main()
