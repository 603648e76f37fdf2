"""What the core adds to each call and each chunk, over a backend that costs nothing.

    python benchmarks/bench_completions.py [--json]

The echo backend answers from this process. `call` is the median time of one completion of four words, through
the engine on its own loop and through the façade from another thread. `chunks` is one stream of 50,000 words.
The floor beside them, in the same run: an async generator that yields ready-made chunks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import llmengine
from llmengine_core.arguments.completion import parse_completion
from llmengine_core.engine import Engine
from llmengine_core.settings import Settings
from llmengine_core.testing import echo
from llmengine_core.types.generation import GenerationChunk

CALLS, WORDS, ROUNDS = 3_000, 50_000, 5
GOALS = {
    "call, engine (µs)": "≤ 60",
    "call, façade (µs)": "≤ 200",
    "chunks/s, engine": "≥ 300,000",
    "chunks/s, façade": "≥ 60,000",
}


@asynccontextmanager
async def opened() -> AsyncIterator[Engine]:
    """An engine in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        async with Engine(Settings(home=Path(folder)), plugins=[echo]) as engine:
            yield engine


async def measure_engine() -> dict[str, float]:
    """On the engine's own loop."""
    figures: dict[str, float] = {}
    async with opened() as engine:
        short = parse_completion(model="echo", prompt="one two three four")
        times = []
        for _ in range(CALLS):
            began = time.perf_counter()
            await engine.completions.create(short)
            times.append(time.perf_counter() - began)
        figures["call, engine (µs)"] = statistics.median(times) * 1e6
        long = parse_completion(model="echo", prompt="word " * WORDS, max_new_tokens=WORDS)
        best = 0.0
        for _ in range(ROUNDS):
            async with await engine.completions.stream(long) as stream:
                began = time.perf_counter()
                count = 0
                async for _chunk in stream:
                    count += 1
                best = max(best, count / (time.perf_counter() - began))
        figures["chunks/s, engine"] = best
        figures["chunks/s, floor"] = await floor()
    return figures


async def floor() -> float:
    """Chunks per second of one async generator with nothing around it."""

    async def ready_made() -> AsyncIterator[GenerationChunk]:
        chunk = GenerationChunk("word ")
        for _ in range(WORDS):
            yield chunk

    began = time.perf_counter()
    async for _chunk in ready_made():
        pass
    return WORDS / (time.perf_counter() - began)


@contextmanager
def on_a_thread(folder: Path) -> Iterator[Engine]:
    """An engine on a loop of its own, as the home engine is."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    engine = Engine(Settings(home=folder), plugins=[echo])
    asyncio.run_coroutine_threadsafe(engine.__aenter__(), loop).result()
    try:
        yield engine
    finally:
        asyncio.run_coroutine_threadsafe(engine.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def measure_facade() -> dict[str, float]:
    """From the main thread, the engine on a thread of its own."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, on_a_thread(Path(folder)) as engine, llmengine.use(engine):
        times = []
        for _ in range(CALLS):
            began = time.perf_counter()
            llmengine.Completion.create(model="echo", prompt="one two three four")
            times.append(time.perf_counter() - began)
        figures["call, façade (µs)"] = statistics.median(times) * 1e6
        best = 0.0
        for _ in range(ROUNDS):
            stream = llmengine.Completion.create(
                model="echo", prompt="word " * WORDS, max_new_tokens=WORDS, stream=True
            )
            began = time.perf_counter()
            count = sum(1 for _ in stream)
            best = max(best, count / (time.perf_counter() - began))
        figures["chunks/s, façade"] = best
    return figures


def main() -> None:
    """Measure, and print beside the goals."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    wanted = parser.parse_args()
    figures = asyncio.run(measure_engine()) | measure_facade()
    if wanted.json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        print(f"{name:20} {figure:12,.0f}   {GOALS.get(name, '')}")


if __name__ == "__main__":
    main()
