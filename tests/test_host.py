"""What this machine has, read from a folder that is laid out as a machine's is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmengine_core.host import host_facts, usable_cores, usable_memory
from llmengine_core.types.plan import HostFacts

GIB = 1 << 30


def machine(root: Path, **files: str) -> Path:
    """A root folder with 16 GiB of memory, unlimited, and these files ("proc/self/cgroup")."""
    for name, content in {"proc/meminfo": f"MemTotal: {16 << 20} kB\nMemFree: 1 kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def here(root: Path, **environ: str) -> HostFacts:
    return host_facts(root, environ)


def test_this_machine_is_described() -> None:
    facts = host_facts()
    assert 1 <= facts.cpus <= (os.cpu_count() or 1)
    assert 0 < facts.memory <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert facts.gpus <= len(list(Path("/dev").glob("nvidia[0-9]*")))
    assert facts.gpus or not facts.gpu_memory


def test_a_machine_without_limits_has_all_its_memory_and_no_gpu(tmp_path: Path) -> None:
    assert here(machine(tmp_path)) == HostFacts(cpus=len(os.sched_getaffinity(0)), memory=16 * GIB)


def test_memory_without_proc_is_asked_of_the_system(tmp_path: Path) -> None:
    assert here(tmp_path).memory == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("files", "memory"),
    [
        ({"sys/fs/cgroup/memory.max": f"{4 * GIB}\n"}, 4),
        ({"sys/fs/cgroup/memory.max": "max\n"}, 16),
        ({"sys/fs/cgroup/memory.max": f"{64 * GIB}\n"}, 16),
        ({"sys/fs/cgroup/a/b/memory.max": f"{4 * GIB}\n", "sys/fs/cgroup/a/memory.max": f"{2 * GIB}\n"}, 2),
        ({"sys/fs/cgroup/other/memory.max": f"{4 * GIB}\n"}, 16),
    ],
)
def test_the_smallest_limit_of_the_groups_around_counts(
    tmp_path: Path, files: dict[str, str], memory: int
) -> None:
    root = machine(tmp_path, **{"proc/self/cgroup": "0::/a/b\n"}, **files)
    assert here(root).memory == usable_memory(root) == memory * GIB


def test_groups_of_version_1_limit_too(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        **{
            "proc/self/cgroup": "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n2:pids:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{3 * GIB}\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    assert (here(root).cpus, here(root).memory) == (1, 3 * GIB)
    (root / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert here(root).memory == 16 * GIB


@pytest.mark.parametrize(
    ("quota", "cpus"), [("50000 100000", 1), ("max 100000", None), ("100 0", None), ("", None)]
)
def test_a_quota_of_processors_is_at_least_one(tmp_path: Path, quota: str, cpus: int | None) -> None:
    root = machine(tmp_path, **{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota}\n"})
    assert here(root).cpus == (cpus or len(os.sched_getaffinity(0)))
    assert usable_cores(root) == sorted(os.sched_getaffinity(0))[:cpus]


@pytest.fixture
def gpus(tmp_path: Path) -> Path:
    """A machine with three GPUs, of 80, 80 and 40 GiB, whose driver has its tool."""
    root = machine(
        tmp_path / "root", **dict.fromkeys(["dev/nvidia0", "dev/nvidia1", "dev/nvidia2", "dev/nvidiactl"], "")
    )
    tool = root / "bin/nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho '0, 81920'\necho '1, 81920'\necho '2, 40960'\n")
    tool.chmod(0o755)
    return root


def test_gpus_are_counted_and_the_smallest_is_measured(gpus: Path) -> None:
    facts = here(gpus, PATH=str(gpus / "bin"))
    assert (facts.gpus, facts.gpu_memory) == (3, 40 * GIB)


@pytest.mark.parametrize(
    ("visible", "count", "memory"),
    [
        ("0,1", 2, 80),
        ("2", 1, 40),
        ("", 0, 0),
        ("-1", 0, 0),
        ("1, 9, 0", 1, 80),
        ("GPU-8f2e, MIG-77aa", 2, 0),
    ],
)
def test_cuda_visible_devices_is_honoured(gpus: Path, visible: str, count: int, memory: int) -> None:
    facts = here(gpus, PATH=str(gpus / "bin"), CUDA_VISIBLE_DEVICES=visible)
    assert (facts.gpus, facts.gpu_memory) == (count, memory * GIB)


def test_gpus_whose_driver_says_nothing_are_only_counted(gpus: Path) -> None:
    assert (here(gpus).gpus, here(gpus).gpu_memory) == (3, 0)
    broken = gpus / "broken/nvidia-smi"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'no driver' >&2\nexit 9\n")
    broken.chmod(0o755)
    facts = here(gpus, PATH=str(broken.parent), CUDA_VISIBLE_DEVICES="1,2")
    assert (facts.gpus, facts.gpu_memory) == (2, 0)
