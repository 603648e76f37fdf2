"""Whether the memory of the calling process stays flat, however many completions it has asked for.

    python benchmarks/bench_memory.py [--completions 1000] [--engine-completions 200] [--json]

`echo` goes through a backend in this process, so that a thousand calls take no time: whole answers and streams,
from threads and from tasks, and streams that are given up after their first piece. `llama_cpp` is the real child,
answering with a few tokens. The figures are what the resident memory grew by, in KiB: over the warm-up, over that
many completions after it, and over as many once more. Flat is: the last no larger than the noise of an allocator.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import llmengine
from llmengine import Completion
from llmengine_core.engine import Engine
from llmengine_core.settings import Settings
from llmengine_core.testing import echo

PROMPT = "one two three four five six seven eight"
REAL = "smollm2-135m-instruct"
WARM_UP = 200
THREADS = 8


def resident() -> float:
    """What this process holds now, in KiB; where the system doesn't tell, the most that it has held."""
    gc.collect()
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)


@contextmanager
def default_engine() -> Iterator[None]:
    """An engine on a thread of its own, that this process's calls go to."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Settings(home=Path(folder)), plugins=[echo])
        asyncio.run_coroutine_threadsafe(engine.__aenter__(), loop).result()
        llmengine.set_default_engine(engine)
        try:
            yield
        finally:
            llmengine.set_default_engine(None)
            asyncio.run_coroutine_threadsafe(engine.aclose(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


def whole(model: str) -> None:
    """One answer."""
    Completion.create(model, PROMPT, 4)


def streamed(model: str) -> None:
    """One answer in pieces."""
    for _ in Completion.create(model, PROMPT, 4, stream=True):
        pass


def given_up(model: str) -> None:
    """The first piece of an answer."""
    next(Completion.create(model, PROMPT, 4, stream=True))


async def in_tasks(model: str, count: int) -> None:
    """Answers in pieces, for tasks."""

    async def one() -> None:
        async for _ in await Completion.acreate(model, PROMPT, 4, stream=True):
            pass

    for _ in range(count // THREADS):
        await asyncio.gather(*(one() for _ in range(THREADS)))


def complete(model: str, count: int) -> None:
    """That many completions, a quarter of them in each way."""
    ways: list[Callable[[str], None]] = [whole, streamed, given_up]
    with ThreadPoolExecutor(THREADS) as threads:
        for way in ways:
            list(threads.map(way, [model] * (count // 4)))
    asyncio.run(in_tasks(model, count // 4))


def measure(model: str, count: int) -> Iterator[float]:
    """What memory grew by: over the warm-up, and over twice that many completions."""
    held = resident()
    for number in (min(WARM_UP, count), count, count):
        complete(model, number)
        before, held = held, resident()
        yield held - before


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--completions", type=int, default=1000, help="of the echo backend")
    parser.add_argument("--engine-completions", type=int, default=200, help="of the real engine")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    wanted = parser.parse_args()
    figures: dict[str, float] = {}
    with default_engine():
        counts = {"echo": wanted.completions, REAL: wanted.engine_completions}
        for model, count in counts.items():
            grown = measure(model, count)
            for phase in ("warm-up", f"{count}", f"{count} more"):
                figures[f"{model}, {phase} (KiB)"] = next(grown)
    if wanted.json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        print(f"{name:42} {figure:10,.0f}")


if __name__ == "__main__":
    main()
