"""What the kernel says of processes, and waiting until it says what is hoped for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["alive", "cpu_seconds", "engines_of", "memory_peak", "processes_of", "until", "working"]

ENGINE = b"llmengine_llamacpp/worker/serve.py"
"""In the command line of every llama.cpp child."""
TICKS = os.sysconf("SC_CLK_TCK")


def processes_of(home: Path) -> set[int]:
    """Every process that was started with ``home`` as its LLMENGINE_HOME and has not ended."""
    setting = f"LLMENGINE_HOME={home}".encode()
    return {pid for pid in _processes() if setting in _read(pid, "environ").split(b"\0") and alive(pid)}


def engines_of(home: Path) -> set[int]:
    """The llama.cpp children among them."""
    return {pid for pid in processes_of(home) if ENGINE in _read(pid, "cmdline")}


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    return _status(Path(f"/proc/{pid}/stat")) not in (b"", b"Z", b"X")


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors since it began."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_peak(pid: int) -> int:
    """The most memory that a process has ever held, in bytes."""
    lines = _read(pid, "status").decode().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def working(pid: int) -> bool:
    """Whether a process computes: whether three of ten looks find it running, or ready to."""
    looks = 0
    for _ in range(40):
        looks += any(_status(task) == b"R" for task in Path(f"/proc/{pid}/task").glob("*/stat"))
        time.sleep(0.01)
    return looks > 12


def until(condition: Callable[[], object], seconds: float, hoped: str) -> None:
    """Wait for a condition; an ``AssertionError`` that says what was hoped for where it doesn't come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {hoped}"
        time.sleep(0.01)


def _status(stat: Path) -> bytes:
    """ "R" for running or ready to, "S" for asleep, "Z" for ended; nothing where there is no such process."""
    with suppress(OSError):
        return stat.read_bytes().rpartition(b")")[2].split()[0]
    return b""


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    with suppress(OSError):  # it ended, or is somebody else's
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""
