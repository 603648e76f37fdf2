"""Whether a device has room for weights."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

import torch

from llmengine_core.worker.contract import Refused

__all__ = ["check_room", "free_memory", "give_back", "is_out_of_memory", "out_of_memory"]

MEMINFO = Path("/proc/meminfo")


def free_memory(device: str) -> int | None:
    """Bytes that could be had on a device; None where the system doesn't say."""
    if device != "cpu":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return sum(int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))
    except (OSError, KeyError, ValueError):
        return None


def check_room(size: int, device: str, limit: int | None = None) -> None:
    """Raise ``Refused`` where there is no room for weights of ``size`` bytes: better than being killed halfway.

    ``limit`` is how many bytes of main memory this process may use at most, where something limits them.
    """
    free = free_memory(device)
    if free is not None and size > free:
        raise Refused(out_of_memory(size, device))
    if device == "cpu" and limit is not None and size > limit:
        raise Refused(
            f"out of memory: the weights take {size / 1e9:.2f} GB on cpu, and this process may use"
            f" {limit / 1e9:.2f} GB; raise its limit, quantize, or take a larger machine"
        )


def out_of_memory(size: int, device: str, error: Exception | None = None) -> str:
    """What to tell where there was no room for weights of ``size`` bytes, as it turned out by an error."""
    free = free_memory(device)
    left = "" if free is None else f", and {free / 1e9:.2f} GB are free"
    said = "" if error is None else f" ({str(error).splitlines()[0]})"
    return (
        f"out of memory: the weights take {size / 1e9:.2f} GB on {device}{left}{said}; free some, quantize, or take a"
        " larger machine"
    )


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; PyTorch says it of the CPU in words only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def give_back() -> None:
    """Return to the system what was freed, where the C library would keep it: 240 MB of SmolLM2 in 8 bits."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # the GNU one has it
    if trim is not None:
        trim(0)
