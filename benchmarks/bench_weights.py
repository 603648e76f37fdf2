"""What the weights cache costs: a model of 20 files, cold and warm, and the memory of one large fetch.

    python benchmarks/bench_weights.py [--mib 50] [--gib 5] [--folder DIR] [--json]

The storage makes its bytes up as they are asked for, so that neither a network nor another disk is measured.
`written` is the barest way to have the same files: their bytes written one after the other, hashed, and synced.
`cold` is the first fetch, `warm` the second by another program, and `changed` is one where all files were touched
since and are read again. `copied` is what a cache that copies would do instead of `warm`. The disk decides about the
rest, so look at the ratios. The large fetch is of one file, in an interpreter of its own; its figure is what resident
memory grew by at the most, over a fetch of 1 MiB before. Figures of several runs are their medians.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal, NoReturn

from llmengine_core.cache import WeightsCache, Work
from llmengine_core.interfaces.storage import Storage
from llmengine_core.types.objects import ObjectMeta
from llmengine_core.types.plan import CheckpointFacts, CheckpointFile

PIECE = bytes(range(256)) * 4096
FILES = 20
RUNS = 5


class Made(Storage):
    """Objects of any size, made up as they are read."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self._sizes = sizes

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        end = min(self._sizes[key], stop or self._sizes[key])
        while start < end:
            piece = PIECE[: end - start]
            yield bytes(bytearray(piece))  # a new object each time: whoever keeps them is seen to
            start += len(piece)
            await asyncio.sleep(0)

    async def head(self, key: str) -> ObjectMeta:
        return ObjectMeta(key, self._sizes[key], "made")

    async def put(
        self,
        key: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: Literal["overwrite", "create"] = "overwrite",
        if_match: str | None = None,
    ) -> NoReturn:
        raise NotImplementedError

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        raise NotImplementedError
        yield

    async def delete(self, key: str) -> NoReturn:
        raise NotImplementedError

    async def copy(self, source: str, target: str) -> NoReturn:
        raise NotImplementedError

    async def aclose(self) -> None:
        """Nothing is held."""


def fetch(home: Path, sizes: dict[str, int]) -> Path:
    """The files, by a cache that nobody else has open."""

    async def looked(facts: CheckpointFacts) -> CheckpointFacts:
        return facts

    files = tuple(CheckpointFile(name=name, size=size, etag="made") for name, size in sizes.items())
    facts = CheckpointFacts(url="made://up/model", files=files)
    cache = WeightsCache(home, size=1 << 50)

    async def path() -> Path:
        work = Work("model", lambda _: None)
        return (await cache.fetched(facts, work, storage=lambda _: Made(sizes), look=looked)).path

    try:
        return asyncio.run(path())
    finally:
        cache.close()


def written(folder: Path, sizes: dict[str, int]) -> None:
    """The barest way to have the same files."""
    folder.mkdir()
    for name, size in sizes.items():
        digest = hashlib.sha256()
        with (folder / name).open("wb", buffering=0) as file:
            for start in range(0, size, len(PIECE)):
                piece = PIECE[: size - start]
                file.write(piece)
                digest.update(piece)
            os.fsync(file.fileno())


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def folder_of_files(where: Path, mib: int) -> dict[str, float]:
    """Seconds of each way to have a folder of 20 files, and ratios."""
    sizes = {f"model-{number:05}.safetensors": (mib << 20) + number for number in range(FILES)}
    times: dict[str, list[float]] = {}

    def measure(name: str, work: Callable[[], object]) -> None:
        times.setdefault(name, []).append(seconds(work))

    for run in range(RUNS):
        home, plain, copy = where / f"home{run}", where / f"plain{run}", where / f"copy{run}"
        measure("written", partial(written, plain, sizes))
        measure("cold", partial(fetch, home, sizes))
        measure("warm", partial(fetch, home, sizes))
        measure("copied", partial(shutil.copytree, plain, copy))
        for blob in (home / "weights" / "blobs").iterdir():
            os.utime(blob)
        measure("changed", partial(fetch, home, sizes))
        for each in (home, plain, copy):
            shutil.rmtree(each)
    found = {f"{name} (s)": statistics.median(each) for name, each in times.items()}
    ratios = [statistics.median(times[name]) for name in ("written", "cold", "warm", "copied")]
    return found | {"cold / written": ratios[1] / ratios[0], "warm / copied": ratios[2] / ratios[3]}


def resident() -> float:
    """The most memory that was ever resident in this process, in MiB."""
    with suppress(FileNotFoundError):  # what others say of a process begins before its program does
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def large(where: Path, gib: float) -> dict[str, float]:
    """What memory one large fetch takes."""
    fetch(where / "small", {"model.gguf": 1 << 20})
    before = resident()
    took = seconds(lambda: fetch(where / "large", {"model.gguf": int(gib * (1 << 30))}))
    return {
        f"memory of {gib:g} GiB (MiB)": resident() - before,
        f"fetch of {gib:g} GiB (MiB/s)": gib * 1024 / took,
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mib", type=int, default=50, help="of each of the 20 files")
    parser.add_argument("--gib", type=float, default=5.0, help="of the large one; 0 leaves it out")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary one unless told")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--large", type=Path, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.large is not None:
        print(json.dumps(large(wanted.large, wanted.gib)))
        return
    with tempfile.TemporaryDirectory(dir=wanted.folder) as found:
        figures = folder_of_files(Path(found), wanted.mib)
        if wanted.gib:
            again = [sys.executable, __file__, "--gib", str(wanted.gib), "--large", found]
            figures |= json.loads(subprocess.run(again, check=True, capture_output=True, text=True).stdout)
    if wanted.json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        print(f"{name:28} {figure:12,.4f}")


if __name__ == "__main__":
    main()
