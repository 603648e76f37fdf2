"""What a worker should get of a machine, where the spec doesn't say (M06); pure."""

from __future__ import annotations

from math import ceil

from llmengine_core.sizes import bits_by_name, parameters_by_name
from llmengine_core.types.declarations import BackendInfo
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.plan import CheckpointFacts, Hardware, HostFacts

__all__ = ["infer"]

GPU_LADDER = (
    (24, 1, "nvidia-ampere-a10"),
    (48, 2, "nvidia-ampere-a10"),
    (96, 4, "nvidia-ampere-a10"),
    (180, 2, "nvidia-hopper-h100"),
    (320, 4, "nvidia-hopper-h100"),
    (640, 8, "nvidia-hopper-h100"),
)
"""GB of weights and cache, and the GPUs that hold them: the original's own table."""
FILL = 0.9
"""The part of a GPU's memory that weights and cache may take; the original's too."""
CPUS_PER_GPU, MEMORY_PER_GPU = 8, 24
"""M06: CPUs, and GiB of memory, for each GPU."""
STORAGE_LADDER = ((10e9, 40), (30e9, 80), (72e9, 200))
"""M06: GiB of storage for models of up to so many parameters. What is called 7B has up to 8e9, 13B and 70B likewise
more; at each border the weights in 16 bits leave three tenths free."""
ROOM = 1.4
"""Storage for larger models, as a multiple of their weights in 16 bits: as much as 70B have."""
PRECISION = 16.0
"""Bits of a weight that nobody quantized."""


def infer(
    spec: ModelSpec, checkpoint: CheckpointFacts, info: BackendInfo, host: HostFacts, weight_bytes: int | None
) -> Hardware:
    """What was given, and for the rest what the model's size asks for.

    ``weight_bytes`` is what the weights take as they are served. Where that isn't known the parameters tell it, and
    where those aren't known either, the model's name; what depends on a size that nothing tells isn't inferred.
    """
    parameters = checkpoint.parameters or parameters_by_name(spec.model)
    if weight_bytes is None and parameters is not None:
        weight_bytes = _weight_bytes(parameters, spec.quantize or checkpoint.quantization)
    need = None if weight_bytes is None else weight_bytes + _cache(weight_bytes, checkpoint, info)
    gpus, gpu_type = spec.gpus, spec.gpu_type
    if gpus is None:
        gpus, inferred = _gpus(need, spec.num_shards) if "cpu" not in info.accelerators else (0, None)
        gpu_type = gpu_type or inferred
    elif gpus and gpu_type is None:
        gpu_type = _gpus(None if need is None else need / gpus, 1)[1]
    cpus = spec.cpus
    if cpus is None:
        cpus = gpus * CPUS_PER_GPU if gpus else max(1, host.cpus - 1)
    memory = spec.memory
    if memory is None and gpus:
        memory = f"{gpus * MEMORY_PER_GPU}Gi"
    elif memory is None and need is not None:
        memory = f"{max(1, ceil(need / 2**30))}Gi"
    storage = spec.storage
    if storage is None and parameters is not None:
        storage = f"{_storage(parameters)}Gi"
    return Hardware(cpus=cpus, memory=memory, storage=storage, gpus=gpus, gpu_type=gpu_type)


def _gpus(need: float | None, shards: int) -> tuple[int, str | None]:
    """How many GPUs, at least one for each shard, and of what type; the largest there is where none would do."""
    if need is None:
        return shards, None
    gigabytes = need / 1e9 / FILL
    rungs = [(count, kind) for limit, count, kind in GPU_LADDER if gigabytes <= limit and count >= shards]
    return rungs[0] if rungs else (max(shards, GPU_LADDER[-1][1]), GPU_LADDER[-1][2])


def _weight_bytes(parameters: int, method: str | None) -> int:
    return ceil(parameters * (bits_by_name(method or "") or PRECISION) / 8)


def _cache(weight_bytes: int, checkpoint: CheckpointFacts, info: BackendInfo) -> float:
    """What comes to the weights: the cache of one context of full length, or where its size isn't known a share."""
    if checkpoint.cache_bytes is None or checkpoint.context_length is None:
        return weight_bytes * (info.memory_factor - 1)
    return checkpoint.cache_bytes * checkpoint.context_length


def _storage(parameters: int) -> int:
    found = next((size for limit, size in STORAGE_LADDER if parameters <= limit), None)
    return found or ceil(parameters * 2 * ROOM / 2**30)
