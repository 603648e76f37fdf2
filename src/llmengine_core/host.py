"""What this machine has, as far as this process may use it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from llmengine_core.errors import BadRequestError
from llmengine_core.types.plan import HostFacts

__all__ = ["host_facts", "launch_threads", "usable_cores", "usable_memory"]

ASK_SECONDS = 10
"""How long the driver may take to answer."""


def host_facts(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> HostFacts:
    """Processors, memory and GPUs, limited to what affinity, cgroups and CUDA_VISIBLE_DEVICES leave of them.

    ``root`` is where ``proc``, ``sys`` and ``dev`` are looked for.
    """
    groups = list(_cgroups(root))
    gpus, gpu_memory = _gpus(root, environ)
    return HostFacts(cpus=_cpus(groups), memory=_memory(root, groups), gpus=gpus, gpu_memory=gpu_memory)


def usable_cores(root: Path = Path("/")) -> list[int]:
    """The numbers of the processors that this process may use, no more of them than its cgroups leave time for."""
    return _cores()[: _cpus(list(_cgroups(root)))]


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of main memory that this process may use at most: what there is, or what its cgroups leave of it."""
    return _memory(root, list(_cgroups(root)))


def launch_threads(backend: str, options: Mapping[str, Any], others: Collection[str] = ()) -> int:
    """How many threads one replica computes on at most, by its launch options: all cores but one, unless they say.

    ``threads`` is how many are wanted, ``cpus`` the cores that it may use; ``others`` are the names of options that
    the backend has besides. Raises ``BadRequestError`` for any further option and for a value below 1.
    """
    known = ["cpus", "threads", *sorted(others)]
    if odd := set(options) - set(known):
        raise BadRequestError(f"{backend} has no launch option {min(odd)!r}; it has: {', '.join(known)}")
    for name in ("cpus", "threads"):
        value = options.get(name, 1)
        if type(value) is not int or value < 1:
            raise BadRequestError(f"{name} is {value!r}; it must be a whole number of at least 1")
    threads: int = options.get("threads", max(1, len(_cores()) - 1))
    cpus: int = options.get("cpus", threads)
    return min(threads, cpus)


def _cgroups(root: Path) -> Iterator[Path]:
    """The folders of this process's control groups and of all that contain them."""
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        mount = root / "sys/fs/cgroup" / controllers
        inner = mount / path.lstrip("/")  # in a container it may be missing; its parents then say it all
        yield from (each for each in (inner, *inner.parents) if each == mount or mount in each.parents)


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _cpus(groups: list[Path]) -> int:
    cpus = float(len(_cores()))
    for group in groups:
        quota, period = [*_word(group / "cpu.max").split(), "", ""][:2]
        if not quota:
            quota, period = _word(group / "cpu.cfs_quota_us"), _word(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            cpus = min(cpus, int(quota) / int(period))
    return max(1, int(cpus))


def _memory(root: Path, groups: list[Path]) -> int:
    meminfo = dict(line.partition(":")[::2] for line in _lines(root / "proc/meminfo"))
    if total := meminfo.get("MemTotal", "").split():
        memory = int(total[0]) * 1024
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_word(group / name) for group in groups for name in ("memory.max", "memory.limit_in_bytes")]
    return min([memory, *(int(limit) for limit in limits if limit.isdigit() and int(limit))])


def _gpus(root: Path, environ: Mapping[str, str]) -> tuple[int, int]:
    """How many NVIDIA GPUs may be used, and the bytes of the smallest (0 where unknown)."""
    devices = [path for path in root.glob("dev/nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    if not devices:
        return 0, 0
    command = shutil.which("nvidia-smi", path=environ.get("PATH", ""))
    known = _ask_driver(command) if command else ()
    gpus = dict(known) or {path.name.removeprefix("nvidia"): 0 for path in devices}
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        seen = list(gpus)[: len(devices)]
    else:  # the driver ignores all that follows a name that it doesn't know
        names = (name.strip() for name in visible.split(","))
        seen = list(takewhile(lambda name: name in gpus or name.startswith(("GPU-", "MIG-")), names))
    return len(seen), min((gpus.get(name, 0) for name in seen), default=0)


@cache
def _ask_driver(command: str) -> tuple[tuple[str, int], ...]:
    """The index and the bytes of each GPU, as the driver's tool lists them; empty where it fails."""
    import subprocess  # noqa: TID251  a tool that answers and ends, no engine

    query = [command, "--query-gpu=index,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=ASK_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = (line.replace(" ", "").partition(",") for line in said.splitlines())
    return tuple((index, int(mib) << 20) for index, _, mib in found if mib.isdigit())


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, ValueError):
        return []


def _word(path: Path) -> str:
    return " ".join(_lines(path)[:1])
