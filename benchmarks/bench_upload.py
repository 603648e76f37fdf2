"""How fast a large file is taken in, and how much memory that takes.

    python benchmarks/bench_upload.py [--gigabytes 5] [--json]

`File.upload` reads a made-up file of that size, a megabyte at a time, into a home of its own on the disk of the
temporary files. The floor beside it, in the same run: the same pieces written to a file there and synced.
`memory` is what the upload added to the most that the process had ever held, after a small upload before it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from llmengine import File
from llmengine_core import home

GIGABYTE = 1_000_000_000
PIECE = os.urandom(1 << 20)
GOALS = {"memory (MiB)": "≤ 48, whatever the size"}


class Made:
    """An open file that holds one piece again and again."""

    name = "made.bin"

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, most: int) -> bytes:
        """At most that many bytes."""
        piece = PIECE[: min(most, self.left)]
        self.left -= len(piece)
        return piece


def peak() -> float:
    """The most memory that this process has held, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def write(path: Path, size: int) -> None:
    """The floor."""
    source = Made(size)
    with path.open("wb", buffering=0) as file:
        while piece := source.read(1 << 20):
            file.write(piece)
        os.fsync(file.fileno())


def cpu() -> float:
    """CPU-seconds of this process."""
    return time.process_time()


def measure(size: int) -> dict[str, float]:
    """The floor first, whose file is gone before the upload."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        began, cpu_began = time.perf_counter(), cpu()
        write(Path(folder, "floor"), size)
        figures["floor (MB/s)"] = size / 1e6 / (time.perf_counter() - began)
        figures["floor (CPU s)"] = cpu() - cpu_began
        Path(folder, "floor").unlink()
        os.environ["LLMENGINE_HOME"] = str(Path(folder, "home"))
        File.upload(io.BytesIO(PIECE * 8))
        before = peak()
        began, cpu_began = time.perf_counter(), cpu()
        uploaded = File.upload(Made(size))  # type: ignore[arg-type]
        figures["upload (MB/s)"] = size / 1e6 / (time.perf_counter() - began)
        figures["upload (CPU s)"] = cpu() - cpu_began
        figures["memory (MiB)"] = peak() - before
        if File.get(uploaded.id).size != size:
            raise SystemExit(f"{size} bytes were sent, {File.get(uploaded.id).size} arrived")
        home.shutdown()
    return figures


def main() -> None:
    """Measure, and print beside the goals."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=5, help="the file's size")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    wanted = parser.parse_args()
    figures = measure(int(wanted.gigabytes * GIGABYTE))
    if wanted.json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        print(f"{name:20} {figure:12,.1f}   {GOALS.get(name, '')}")


if __name__ == "__main__":
    main()
