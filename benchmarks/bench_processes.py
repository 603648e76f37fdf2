"""What the supervisor adds to starting a child: CPU and wall time, the median and the least of many.

    python benchmarks/bench_processes.py [--rounds 30]

* `bare`        the program started directly, until it has said that it runs;
* `supervised`  the same through `llmengine_core.processes.spawn`;
* `end`         wall time of `aclose()` on a supervised child that obeys;
* `memory`      what a waiting supervisor keeps for itself (private pages).
"""

from __future__ import annotations

import argparse
import asyncio
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from llmengine_core.processes import spawn

PROGRAM = [sys.executable, "-I", "-S", "-c", "import sys; print('{}', flush=True); sys.stdin.read()"]


def children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def bare() -> dict[str, float]:
    cpu, wall = children_cpu(), time.perf_counter()
    with subprocess.Popen(PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = time.perf_counter() - wall
        process.communicate()
    return {"bare wall": started, "bare CPU": children_cpu() - cpu}


async def supervised() -> dict[str, float]:
    cpu, wall = children_cpu(), time.perf_counter()
    running = asyncio.Event()
    child = await spawn(PROGRAM, on_message=lambda _: running.set())
    await running.wait()
    started = time.perf_counter() - wall
    rollup = Path(f"/proc/{child._supervisor}/smaps_rollup").read_text()  # noqa: ASYNC240
    private = sum(int(kilobytes) for kilobytes in re.findall(r"Private_\w+: +(\d+) kB", rollup))
    wall = time.perf_counter()
    await child.aclose()
    ended = time.perf_counter() - wall
    return {
        "supervised wall": started,
        "supervised CPU": children_cpu() - cpu,
        "end wall": ended,
        "memory": private / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    rounds = [bare() | asyncio.run(supervised()) for _ in range(parser.parse_args().rounds)]
    for name in rounds[0]:
        values = [each[name] for each in rounds]
        unit = "MB" if name == "memory" else "ms"
        print(f"{name:16} {statistics.median(values) * 1e3:6.1f} {unit}  (least {min(values) * 1e3:.1f})")


if __name__ == "__main__":
    main()
