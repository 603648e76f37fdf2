"""What unpacking costs: our reader beside the standard library's and the system's, in one run.

    python benchmarks/bench_archives.py [--size 512] [--small 2000] [--rounds 3] [--folder /dev/shm]

An archive of four files of ``size`` MiB together, and one of ``small`` files of 2 KiB, both of bytes that don't
compress, as .tar, .tar.gz and .tar.zst. Every candidate unpacks into a fresh folder, in a process of its own; the round
with the least CPU time counts. Ours also syncs what it wrote to the disk, which takes no CPU but time; a folder in
memory shows what is left.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

OURS = "from pathlib import Path; from llmengine_core.archives import extract; extract(Path(a), Path(t))"
LIBRARY = "import tarfile; tarfile.open(a).extractall(t, filter='data')"
LIBRARY_ZSTD = (
    "import tarfile; from backports import zstd; "
    "tarfile.open(fileobj=zstd.open(a), mode='r|').extractall(t, filter='data')"
)
KINDS = ("tar", "tar.gz", "tar.zst")


def packed(folder: Path, name: str, files: Mapping[str, bytes], kind: str) -> Path:
    path = folder / f"{name}.{kind}"
    with path.open("wb") as target:
        if kind == "tar.zst":
            from backports import zstd

            with (
                zstd.open(target, "wb", level=1) as stream,
                tarfile.open(fileobj=stream, mode="w|") as archive,
            ):
                add(archive, files, folder)
        elif kind == "tar.gz":
            with tarfile.open(fileobj=target, mode="w:gz", compresslevel=1) as archive:
                add(archive, files, folder)
        else:
            with tarfile.open(fileobj=target, mode="w") as archive:
                add(archive, files, folder)
    return path


def add(archive: tarfile.TarFile, files: Mapping[str, bytes], folder: Path) -> None:
    source = folder / "source"
    for name, content in files.items():
        source.write_bytes(content)
        archive.add(source, f"model/{name}")
    source.unlink()


def measured(command: list[str], target: Path) -> tuple[float, float]:
    """CPU and wall seconds."""
    shutil.rmtree(target, ignore_errors=True)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = time.perf_counter() - began
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--small", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    noise = random.Random(0)
    large = {f"{number}.safetensors": noise.randbytes(options.size << 18) for number in range(4)}
    small = {f"{number}.json": noise.randbytes(2048) for number in range(options.small)}
    print(f"CPU / wall seconds\n{'':28}{'ours':>16}{'tarfile':>16}{'tar':>16}")
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        for name, files in (("large", large), ("small", small)):
            for kind in KINDS:
                archive, target = packed(folder, name, files, kind), folder / "target"
                library = LIBRARY_ZSTD if kind == "tar.zst" else LIBRARY
                python, paths = [sys.executable, "-c"], [str(archive), str(target)]
                commands = {
                    "ours": [*python, f"import sys; a, t = sys.argv[1:]; {OURS}", *paths],
                    "tarfile": [*python, f"import sys; a, t = sys.argv[1:]; {library}", *paths],
                    "tar": ["sh", "-c", 'mkdir "$1" && tar -xf "$0" -C "$1"', *paths],
                }
                cells = []
                for what, command in commands.items():
                    if what == "tar" and kind == "tar.zst" and shutil.which("zstd") is None:
                        cells.append("no zstd here")
                        continue
                    cpu, wall = min(measured(command, target) for _ in range(options.rounds))
                    cells.append(f"{cpu:.2f} / {wall:.2f}")
                size = f"{os.path.getsize(archive) >> 20} MiB"
                print(
                    f"{f'{len(files)} files, {kind}, {size}':28}" + "".join(f"{cell:>16}" for cell in cells)
                )
                archive.unlink()


if __name__ == "__main__":
    main()
